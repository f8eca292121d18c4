"""`run`, `create`, `start` and `attach`: the verbs that bring a container up or a terminal to it.

The path of every `duckweed run`. A foreground container is launched with the first client's request already
in its channel; then this process *becomes* that client, the static `duckweed-runtime attach`, so Python is
gone before the container has printed its first byte.
"""

from __future__ import annotations

import os
import sys

from duckweed.cli.container_flags import CREATE_FLAGS, REFUSED_FLAGS, RUN_FLAGS, engine_options
from duckweed.cli.parse import BOOL, STRING, Call, Flag, Refused, verb
from duckweed.errors import DuckweedError, NoSuchImage, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from duckweed.containers.container import Container

_STREAMS = ("stdout", "stderr")


@verb(
    "run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags=CREATE_FLAGS + RUN_FLAGS + REFUSED_FLAGS,
    at_least=1,
    interspersed=False,
    completes="image",
    failure_code=125,
)
def run(call: Call) -> int:
    """Create a container from an image and start it

    The exit code is the command's; 125 when the container could not be made, 126 when the command is not
    executable, 127 when it does not exist, 128+n when signal n ended it.
    """
    attach = [stream.lower() for stream in call.get("attach", ())]
    detach = call.get("detach", False)
    if detach and attach:
        raise Refused("conflicting options: cannot specify both --attach and --detach")
    stdin = call.get("interactive", False) and not detach and (not attach or "stdin" in attach)
    require_terminal(stdin and call.get("tty", False))
    container = _create(call)
    try:
        if detach:
            container.start()
            sys.stdout.write(container.id + "\n")
            return 0
        streams = [stream for stream in _STREAMS if stream in attach] if attach else list(_STREAMS)
        channel = container.launch(attach=streams, stdin=stdin, **_window(call))
    except DuckweedError:
        if call.get("rm"):
            _remove_quietly(container)
        raise
    become_client(container, channel, stdin=stdin, **_client_flags(call))


@verb(
    "create",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags=CREATE_FLAGS + REFUSED_FLAGS,
    at_least=1,
    interspersed=False,
    completes="image",
)
def create(call: Call) -> int:
    """Create a container without starting it

    The container's id is printed; `duckweed start` starts it.
    """
    sys.stdout.write(_create(call).id + "\n")
    return 0


def _create(call: Call) -> Container:
    options = engine_options(call.given)
    cidfile = call.get("cidfile")
    if cidfile and os.path.lexists(cidfile):
        raise UsageError(
            "container ID file found, make sure the other container isn't running or delete " + cidfile,
            f"if that container is gone: `rm {cidfile}`",
        )
    image, *command = call.arguments
    container = _create_pulling(call, image, command, options)
    for warning in container.document.get("warnings", ()):
        sys.stderr.write(f"WARNING: {warning}\n")
    for line in call.engine.news():
        sys.stderr.write(f"note: {line}\n")
    if cidfile:
        _write_cidfile(cidfile, container)
    return container


def _create_pulling(call: Call, image: str, command: list[str], options: dict[str, Any]) -> Container:
    """Pulls when `--pull` says so, and tells of it on stderr: stdout is the container's."""
    policy = options.pop("pull", "missing")
    if policy not in ("always", "missing", "never"):
        raise UsageError(f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"')
    if policy == "always":
        _pull(call, image)
    try:
        return call.engine.containers.create(image, command or None, pull="never", **options)
    except NoSuchImage as error:
        if policy != "missing":
            raise
        sys.stderr.write(f"{error.message}\n")
    _pull(call, image)
    return call.engine.containers.create(image, command or None, pull="never", **options)


def _pull(call: Call, image: str) -> None:
    from duckweed.cli.registry_pull import pull_shown
    from duckweed.store.images import HOST_NAMES

    if image not in HOST_NAMES:
        quiet = call.get("quiet", False)
        pull_shown(call.engine.images, image, quiet, sys.stderr, platform=call.get("platform"))


def _write_cidfile(path: str, container: Container) -> None:
    try:
        # O_EXCL: of two starts at once with one file, one is told so.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w") as file:
            file.write(container.id)
    except OSError as error:
        _remove_quietly(container)
        raise UsageError(f"cannot write the container's id to `{path}`: {error.strerror}") from None


def _remove_quietly(container: Container) -> None:
    try:
        container.remove(force=True, volumes=True)
    except DuckweedError:
        pass


@verb(
    "start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("attach", "a", BOOL, "Attach to the container's output and pass signals on"),
        Flag("detach-keys", "", STRING, "Keys that detach from the container (default ctrl-p,ctrl-q)"),
        Flag("interactive", "i", BOOL, "Attach to the container's stdin"),
        Flag("sig-proxy", "", BOOL, "Pass signals on to the process (default true)", hidden=True),
    ),
    at_least=1,
    completes="container",
)
def start(call: Call) -> int:
    """Start containers that are not running"""
    if not (call.get("attach") or call.get("interactive")):
        from duckweed.cli.failure import each

        def start_one(name: str) -> str:
            call.engine.containers.get(name).start()
            return name

        return each(call.arguments, start_one)
    if len(call.arguments) > 1:
        raise Refused("you cannot start and attach multiple containers at once")
    container = call.engine.containers.get(call.arguments[0])
    if container.status == "running":
        _attach_running(container, call, stdin=call.get("interactive", False))
    stdin = call.get("interactive", False) and _config(container, "OpenStdin")
    require_terminal(stdin and _config(container, "Tty"))
    channel = container.launch(attach=_STREAMS, stdin=stdin, **_window(call, tty=_config(container, "Tty")))
    become_client(container, channel, stdin=stdin, **_client_flags(call))


@verb(
    "attach",
    "[OPTIONS] CONTAINER",
    flags=(
        Flag("detach-keys", "", STRING, "Keys that detach from the container (default ctrl-p,ctrl-q)"),
        Flag("no-stdin", "", BOOL, "Do not attach stdin"),
        Flag("sig-proxy", "", BOOL, "Pass signals on to the process (default true)"),
    ),
    at_least=1,
    at_most=1,
    completes="running",
)
def attach(call: Call) -> int:
    """Attach the terminal to a running container"""
    container = call.engine.containers.get(call.arguments[0])
    _attach_running(container, call, stdin=not call.get("no_stdin", False))


def _attach_running(container: Container, call: Call, *, stdin: bool) -> NoReturn:
    stdin = stdin and _config(container, "OpenStdin")
    require_terminal(stdin and _config(container, "Tty"))
    become_client(container, None, stdin=stdin, **_client_flags(call))


def _config(container: Container, name: str) -> bool:
    return bool(container.attrs["Config"].get(name))


def require_terminal(wanted: bool) -> None:
    """A terminal in the container with stdin attached needs one here; the words are Docker's."""
    if wanted and not os.isatty(0):
        raise Refused("the input device is not a TTY", "leave out `-t`, or run it from a terminal")


def _window(call: Call, tty: bool = False) -> dict[str, int]:
    """The size of our terminal for a container that gets one."""
    if not (tty or call.get("tty")):
        return {}
    for fd in (1, 0, 2):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        return {"rows": size.lines, "cols": size.columns}
    return {}


def _client_flags(call: Call) -> dict[str, Any]:
    return {"sig_proxy": call.get("sig_proxy", True), "detach_keys": call.get("detach_keys")}


def become_client(container: Container, channel: int | None, **flags: Any) -> NoReturn:
    """Turns this process into the attached client."""
    become(container.attach_argv(channel=channel, **flags))


def become(argv: list[str]) -> NoReturn:
    """execv with the signal dispositions a program expects: Python's ignored SIGPIPE would be passed on."""
    import _signal  # type: ignore[import-not-found]  # the module below `signal`, which costs 2 ms in enums

    sys.stdout.flush()
    sys.stderr.flush()
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    os.execv(argv[0], argv)
