"""`stop`, `kill`, `restart`, `wait`, `rm`, `rename`, `container prune`: what becomes of containers.

Verbs over several containers do what they can: a name that fails gets a line on stderr, the others are still
done, and the exit code is 1.
"""

from __future__ import annotations

import sys

from duckweed.cli.failure import each
from duckweed.cli.parse import BOOL, FILTER, INT, STRING, Call, Flag, filters_of, verb
from duckweed.cli.prompt import is_confirmed
from duckweed.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGNAL = Flag("signal", "s", STRING, "Signal to send to the container", completes="signal")
_TIMEOUT = (
    Flag("time", "", INT, "Seconds to wait before killing the container", key="timeout", hidden=True),
    Flag("timeout", "t", INT, "Seconds to wait before killing the container"),
)


@verb(
    "stop", "[OPTIONS] CONTAINER [CONTAINER...]", flags=(_SIGNAL, *_TIMEOUT), at_least=1, completes="running"
)
def stop(call: Call) -> int:
    """Stop running containers

    The stop signal first (SIGTERM unless the image or `--stop-signal` says otherwise), SIGKILL after the
    timeout (10 seconds unless told otherwise; -1 waits for ever).
    """

    def stop_one(name: str) -> str:
        call.engine.containers.get(name).stop(timeout=call.get("timeout"), **_signal(call))
        return name

    return each(call.arguments, stop_one)


@verb(
    "restart",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(_SIGNAL, *_TIMEOUT),
    at_least=1,
    completes="container",
)
def restart(call: Call) -> int:
    """Stop containers and start them again"""

    def restart_one(name: str) -> str:
        container = call.engine.containers.get(name)
        if call.get("signal") and container.status == "running":
            container.stop(timeout=call.get("timeout"), **_signal(call))
        container.restart(timeout=call.get("timeout"))
        return name

    return each(call.arguments, restart_one)


@verb("kill", "[OPTIONS] CONTAINER [CONTAINER...]", flags=(_SIGNAL,), at_least=1, completes="running")
def kill(call: Call) -> int:
    """Send a signal to running containers, SIGKILL unless told otherwise"""

    def kill_one(name: str) -> str:
        call.engine.containers.get(name).kill(**_signal(call))
        return name

    return each(call.arguments, kill_one)


def _signal(call: Call) -> dict[str, Any]:
    """The signal given, or nothing: the defaults are the engine's."""
    return {"signal": call.get("signal")} if call.get("signal") else {}


@verb("wait", "CONTAINER [CONTAINER...]", at_least=1, completes="container")
def wait(call: Call) -> int:
    """Wait until containers end, and print their exit codes"""
    return each(call.arguments, lambda name: str(call.engine.containers.get(name).wait()))


@verb(
    "rm",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("force", "f", BOOL, "Kill a running container first, forgive a missing one"),
        Flag("volumes", "v", BOOL, "Remove the container's anonymous volumes too"),
    ),
    at_least=1,
    completes="container",
)
def rm(call: Call) -> int:
    """Remove containers"""
    from duckweed.errors import NoSuchContainer

    force = call.get("force", False)

    def remove_one(name: str) -> str | None:
        try:
            call.engine.containers.get(name).remove(force=force, volumes=call.get("volumes", False))
        except NoSuchContainer as error:
            if not force:
                raise
            # As Docker: it is said, and it is no failure.
            sys.stderr.write(f"Error: {error.message}\n")
            return None
        return name

    return each(call.arguments, remove_one)


@verb("rename", "CONTAINER NEW_NAME", at_least=2, at_most=2, completes="container")
def rename(call: Call) -> int:
    """Give a container another name"""
    old, new = call.arguments
    call.engine.containers.get(old).rename(new)
    return 0


@verb(
    "container prune",
    "[OPTIONS]",
    flags=(
        Flag("filter", "", FILTER, "Only containers that match (until=TIME, label=NAME[=VALUE])"),
        Flag("force", "f", BOOL, "Do not ask"),
    ),
    at_most=0,
)
def prune(call: Call) -> int:
    """Remove all stopped containers"""
    if not is_confirmed(call, "This will remove all stopped containers."):
        return 0
    report = call.engine.containers.prune(filters_of(call) or None)
    if report["ContainersDeleted"]:
        sys.stdout.write(
            "Deleted Containers:\n" + "".join(f"{name}\n" for name in report["ContainersDeleted"]) + "\n"
        )
    sys.stdout.write(f"Total reclaimed space: {human_size(report['SpaceReclaimed'])}\n")
    return 0
