"""Following a container's log: to its last line, and no longer than the container lives."""

from __future__ import annotations

import os
import time

from duckweed.containers import supervisor
from duckweed.containers.logs import read_log
from duckweed.containers.supervisor import NobodyThere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckweed.containers.container import Container


def follow_log(
    container: Container,
    *,
    tail: int,
    since: str | float | None,
    until: str | float | None,
    timestamps: bool,
) -> Iterator[tuple[str, bytes]]:
    """The log so far and as it grows; ends when the container has ended and all was read."""
    watch = _EndWatch(container)
    try:
        yield from read_log(
            f"{container.directory}/container.log",
            tail=tail,
            since=since,
            until=until,
            timestamps=timestamps,
            wait=watch.wait,
        )
    finally:
        watch.close()


class _EndWatch:
    """Tells a follower of the log whether the container still runs, by a wait connection instead of asking
    again.
    """

    def __init__(self, container: Container) -> None:
        self.state = container.state()
        self.fd = -1
        self.ended = not self.state.running
        if not self.ended and not self.state.elsewhere:
            try:
                self.fd = supervisor.open_wait(self.state.socket)
            except NobodyThere:
                self.ended = True

    def wait(self, seconds: float) -> bool:
        """Sleeps at most so long; false once the container has ended (and its last lines are written)."""
        if self.ended:
            return False
        if self.fd < 0:
            time.sleep(seconds)
            return True
        try:
            self.ended = supervisor.receive_end(self.fd, seconds) is not None
        except NobodyThere:
            self.ended = True
        return not self.ended

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
