"""`exec`: one more command in a running container."""

from __future__ import annotations

import json
import os
import time

from duckweed import _core
from duckweed.containers import supervisor
from duckweed.containers.environment import merge, parse_environment, read_file
from duckweed.containers.options import parse_command
from duckweed.containers.supervisor import NobodyThere
from duckweed.errors import CommandFailed, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.engine import Result

_CHUNK = 64 * 1024


def request_of(
    document: Mapping[str, Any],
    command: str | Sequence[str],
    *,
    env: Sequence[str] | Mapping[str, str] = (),
    env_file: Sequence[str] = (),
    workdir: str | None = None,
    user: str | None = None,
    tty: bool = False,
    detach: bool = False,
    privileged: bool = False,
) -> dict[str, Any]:
    """The J exec message for a command in the container of `document`. Raises UsageError."""
    from duckweed.containers.spec import process_environment

    args = parse_command(command, "command")
    if not args:
        raise UsageError("no exec command specified")
    if workdir and not workdir.startswith("/"):
        raise UsageError(f"the working directory '{workdir}' is invalid, it needs to be an absolute path")
    config = document.get("Config") or {}
    lines = [
        line
        for path in ([env_file] if isinstance(env_file, str) else env_file)
        for line in read_file(path, inherit=True)
    ]
    environment = process_environment(config.get("Env") or (), config.get("Hostname") or "", tty)
    return {
        "op": "exec",
        "args": args,
        "env": merge(environment, lines, parse_environment(env)),
        "cwd": workdir or config.get("WorkingDir") or "/",
        "user": config.get("User") or "" if user is None else user,
        "groups": (document.get("HostConfig") or {}).get("GroupAdd") or [],
        "tty": tty,
        "privileged": privileged,
        "rows": 0,
        "cols": 0,
        "detach": detach,
    }


def execute(
    socket: str, request: Mapping[str, Any], *, input: bytes | str | None, check: bool, timeout: float | None
) -> Result:
    """Sends the request, feeds and collects its streams, and waits for its end. Raises NobodyThere,
    StartError ...
    """
    from duckweed.engine import Result

    data = input.encode() if isinstance(input, str) else input
    session = _Session(socket)
    try:
        session.begin(request)
        if request["detach"]:
            return Result(0)
        exit_code = session.run(data, timeout)
    finally:
        session.close()
    result = Result(exit_code, bytes(session.stdout), bytes(session.stderr))
    if check and exit_code != 0:
        raise CommandFailed(f"`{request['args'][0]}` exited with {exit_code}", result)
    return result


class _Session:
    """One exec's connection and the pipes (or the terminal) behind it."""

    def __init__(self, socket: str) -> None:
        self.connection = supervisor.connect(socket)
        self.fds: list[int] = [self.connection]
        self.stdin = self.out = self.err = -1
        self.stdout = bytearray()
        self.stderr = bytearray()

    def begin(self, request: Mapping[str, Any]) -> None:
        theirs: list[int] = []
        if not request["tty"] and not request["detach"]:
            for index in range(3):
                read, write = os.pipe()
                theirs.append(read if index == 0 else write)
                self.fds.append(write if index == 0 else read)
            self.stdin, self.out, self.err = self.fds[1:]
        try:
            _core.send(self.connection, b"J", json.dumps(request).encode(), theirs)
        except OSError as error:
            raise NobodyThere("exec") from error
        finally:
            for fd in theirs:
                os.close(fd)
        answer = _core.receive(self.connection, 60.0)
        if answer is not None and answer[0] == b"":
            raise NobodyThere("exec")
        supervisor.check_answer(answer)
        if answer is not None and answer[2]:
            self.out = self.stdin = answer[2][0]  # the master of its terminal
            self.fds += answer[2]

    def run(self, data: bytes | None, timeout: float | None) -> int:
        """Moves bytes until the X message and the ends of the pipes; the command's exit code."""
        import select

        deadline = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        outputs = {fd for fd in (self.out, self.err) if fd >= 0}
        for fd in outputs:
            poll.register(fd, select.POLLIN)
        feed = memoryview(data or b"")
        is_tty = self.stdin == self.out
        if feed:
            os.set_blocking(self.stdin, False)
            poll.register(self.stdin, select.POLLOUT | (select.POLLIN if is_tty else 0))
        elif not is_tty:
            self._close(self.stdin)
        exit_code: int | None = None
        while exit_code is None or outputs:
            wait_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            events = poll.poll(wait_ms)
            if not events and deadline is not None and time.monotonic() >= deadline:
                _core.send(self.connection, b"S", b"\x09")
                raise TimeoutError(f"the command still ran after {timeout} seconds")
            for fd, event in events:
                if fd == self.connection:
                    exit_code = self._read_end(exit_code)
                    poll.unregister(fd)
                    if is_tty:
                        self._drain_terminal(outputs)
                elif fd in outputs and event & ~select.POLLOUT:
                    if not self._collect(fd):
                        poll.unregister(fd)
                        outputs.discard(fd)
                elif fd == self.stdin:
                    feed = self._feed(feed)
                    if not feed:
                        if is_tty:
                            poll.modify(fd, select.POLLIN)
                        else:
                            poll.unregister(fd)
                            self._close(fd)
        return exit_code

    def _read_end(self, known: int | None) -> int:
        message = _core.receive(self.connection, 60.0)
        if message is None or message[0] == b"":
            return 137 if known is None else known
        return int(json.loads(message[1]).get("exit_code") or 0) if message[0] == b"X" else 125

    def _collect(self, fd: int) -> bool:
        try:
            block = os.read(fd, _CHUNK)
        except OSError:
            return False  # EIO: the terminal's last user has gone
        (self.stderr if fd == self.err else self.stdout).extend(block)
        return bool(block)

    def _drain_terminal(self, outputs: set[int]) -> None:
        """A process left behind may hold the terminal for ever: after the end only what is there counts."""
        for fd in list(outputs):
            os.set_blocking(fd, False)
            while self._collect(fd):
                pass
            outputs.discard(fd)

    def _feed(self, feed: memoryview) -> memoryview:
        try:
            return feed[os.write(self.stdin, feed) :]
        except BlockingIOError:
            return feed
        except OSError:
            return feed[:0]  # EPIPE: it did not want the rest

    def _close(self, fd: int) -> None:
        self.fds.remove(fd)
        os.close(fd)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []
