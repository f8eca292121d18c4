"""`exec`: another command in a running container; this process becomes the exec client."""

from __future__ import annotations

from duckweed.cli.container_run import become, require_terminal
from duckweed.cli.parse import BOOL, LIST, STRING, Call, Flag, verb


@verb(
    "exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    flags=(
        Flag("detach", "d", BOOL, "Run the command in the background"),
        Flag("detach-keys", "", STRING, "Keys that detach from the command (default ctrl-p,ctrl-q)"),
        Flag("env", "e", LIST, "Set an environment variable (NAME=VALUE, or NAME to pass yours on)"),
        Flag("env-file", "", LIST, "Read environment variables from a file", completes="file"),
        Flag("interactive", "i", BOOL, "Keep stdin open"),
        Flag("privileged", "", BOOL, "Give the command all capabilities of the container's user namespace"),
        Flag("tty", "t", BOOL, "Give the command a terminal"),
        Flag("user", "u", STRING, "User of the command (name|uid[:group|gid])"),
        Flag("workdir", "w", STRING, "Working directory inside the container"),
    ),
    at_least=2,
    interspersed=False,
    completes="running",
)
def exec_(call: Call) -> int:
    """Run a command in a running container

    The exit code is the command's; 126 when it is not executable, 127 when it does not exist.
    """
    name, *command = call.arguments
    container = call.engine.containers.get(name)
    detach = call.get("detach", False)
    stdin = call.get("interactive", False) and not detach
    require_terminal(stdin and call.get("tty", False))
    become(
        container.exec_argv(
            command,
            stdin=stdin,
            tty=call.get("tty", False),
            detach=detach,
            env=call.get("env", ()),
            env_file=call.get("env_file", ()),
            workdir=call.get("workdir"),
            user=call.get("user"),
            privileged=call.get("privileged", False),
            detach_keys=call.get("detach_keys"),
        )
    )
