"""How a base image comes, told to the display of the step that waits for it."""

from __future__ import annotations

from duckweed.registry.pulling import PullWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed import _core
    from duckweed.build.progress import Vertex


class BaseWatch(PullWatch):
    """Tells a step's display which layers come, and when one is there."""

    def __init__(self, vertex: Vertex) -> None:
        self._vertex = vertex
        self._sizes: dict[str, int] = {}

    def queued(self, digest: str, size: int) -> None:
        self._sizes[digest] = size

    def arriving(self, digest: str, part: _core.Part) -> None:
        self._vertex.transfers[digest] = lambda: (part.received, part.size)

    def stored(self, digest: str) -> None:
        self._vertex.transfers.pop(digest, None)
        self._vertex.status(f"{digest} {self._sizes.get(digest, 0) / 1e6:.2f}MB done")
