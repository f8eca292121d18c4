"""Talking to a supervisor: starting one, and the requests one may send it (docs/contracts.md §6)."""

from __future__ import annotations

import json
import os
import time

from duckweed import _core
from duckweed.errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

RUNTIME = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_bin", "duckweed-runtime"
)
# What a channel is called in the supervisor, and in an attach client.
CHANNEL = 3

_HINTS = {
    "command-not-found": "check the spelling, or look into the image with `duckweed run --rm -it IMAGE sh`",
    "command-not-executable": "check the file's mode, its first line, and the architecture it was built for",
    "bad-user": "name a user of the image's /etc/passwd, or a number",
    "namespace": "see `duckweed doctor` for what this machine allows",
    "idmap": "see `duckweed doctor` for this account's subordinate ids",
    "network EADDRINUSE": "publish another port, or let `--remap-ports` choose one",
    "network EACCES": "publish a higher port, as in `-p 8080:80`, or let `--remap-ports` choose one",
    "network EPERM": "publish a higher port, as in `-p 8080:80`, or let `--remap-ports` choose one",
    "network EADDRNOTAVAIL": "leave the address out, or use one that `ip addr` shows",
}


class NobodyThere(Exception):
    """The socket is dead: the supervisor has ended, or is about to be found dead."""


def start_error(error: Mapping[str, Any] | str | None) -> StartError:
    """The StartError of the runtime's JSON, with a hint."""
    if isinstance(error, str):
        try:
            error = json.loads(error)
        except ValueError:
            return StartError(str(error) or "the runtime could not start the command")
    if not isinstance(error, dict):
        return StartError("the runtime could not start the command")
    code = str(error.get("code") or "start")
    message = str(error.get("message") or error.get("context") or "the runtime could not start the command")
    name = error.get("errno_name")
    if name and name not in message:
        message = f"{message} ({name})"
    return StartError(
        message.replace("\n", " "),
        _HINTS.get(f"{code} {name}") or _HINTS.get(code, ""),
        code=code,
        exit_code=int(error.get("exit_code") or 125),
    )


def spawn_managed(directory: str, attach: Mapping[str, Any] | None) -> int:
    """Starts the supervisor of the container in `directory` and waits for its word; returns our end of the
    channel.

    With `attach` that request is in the channel before the supervisor lives, so that no output is lost.
    Raises StartError.
    """
    ours, theirs = _core.channel()
    null = -1
    try:
        if attach is not None:
            _core.send(ours, b"J", json.dumps({"op": "attach", **attach}).encode())
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        argv = [RUNTIME, "supervise", "--container", directory, "--channel", str(CHANNEL), "--daemonize"]
        try:
            pid = _core.spawn(argv, [(null, 0), (null, 1), (null, 2), (theirs, CHANNEL)])
        except OSError as error:
            raise cannot_start(error) from None
        os.close(theirs)
        theirs = -1
        answer = _core.receive(ours, None)
        reap(pid)
        check_answer(answer)
        kept, ours = ours, -1
        return kept
    finally:
        for fd in (ours, theirs, null):
            if fd >= 0:
                os.close(fd)


def reap(pid: int) -> None:
    """Waits for a child of ours that has ended or is about to."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # somebody's waitpid(-1), or SIGCHLD is ignored


def cannot_start(error: OSError) -> StartError:
    """The runtime itself could not be executed."""
    return StartError(
        f"cannot start `{RUNTIME}`: {(error.strerror or '').lower()}",
        "reinstall with `pip install --force-reinstall duckweed`",
    )


def check_answer(answer: tuple[bytes, bytes, list[int]] | None) -> dict[str, Any]:
    """The JSON of an answer that says ok; StartError otherwise."""
    if answer is None or answer[0] != b"J":
        raise StartError(
            "the supervisor ended without a word", "see `duckweed doctor`; if it stays, please report it"
        )
    document = json.loads(answer[1])
    if not document.get("ok"):
        raise start_error(document.get("error"))
    return document if isinstance(document, dict) else {}


def connect(socket: str) -> int:
    """A connection to a supervisor. Raises NobodyThere."""
    try:
        return _core.connect(socket)
    except OSError as error:
        raise NobodyThere(socket) from error


def request(socket: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Sends one J request and returns its answer. Raises NobodyThere, StartError."""
    fd = connect(socket)
    try:
        try:
            _core.send(fd, b"J", json.dumps(message).encode())
            answer = _core.receive(fd, 60.0)
        except OSError as error:
            raise NobodyThere(socket) from error
        if answer is not None and answer[0] == b"":
            raise NobodyThere(socket)
        return check_answer(answer)
    finally:
        os.close(fd)


def open_wait(socket: str) -> int:
    """A connection on which X will arrive when the container ends. Raises NobodyThere."""
    fd = connect(socket)
    try:
        _core.send(fd, b"J", b'{"op":"wait"}')
    except OSError as error:
        os.close(fd)
        raise NobodyThere(socket) from error
    return fd


def receive_end(fd: int, timeout_s: float | None) -> int | None:
    """The exit code from a wait connection; None when the time is up. Raises NobodyThere when it closes
    without one.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        message = _core.receive(fd, left)
        if message is None:
            return None
        kind, payload, fds = message
        for stray in fds:
            os.close(stray)
        if kind == b"X":
            return int(json.loads(payload).get("exit_code") or 0)
        if kind == b"":
            raise NobodyThere("closed")


def attach_request(streams: Sequence[str], stdin: bool, rows: int, cols: int) -> dict[str, Any]:
    """The fields of J attach."""
    return {
        "stdin": stdin,
        "stdout": "stdout" in streams,
        "stderr": "stderr" in streams,
        "rows": rows,
        "cols": cols,
    }
