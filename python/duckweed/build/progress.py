"""What a build tells while it runs: steps begin, say something, end.

A step is a *vertex*, as BuildKit calls it. Whoever shows them is a `Progress`; stages run in threads, so its
`hear` may be called from several at once.
"""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_TAIL_BYTES = 32 * 1024


class Vertex:
    """One step. `number` counts from 1 in the order of beginning; times are of `time.time()`, 0: not yet."""

    __slots__ = (
        "_progress",
        "ended",
        "error",
        "is_cached",
        "is_internal",
        "name",
        "number",
        "started",
        "tail",
        "transfers",
    )

    def __init__(self, progress: Progress, number: int, name: str, is_internal: bool) -> None:
        self._progress = progress
        self.number = number
        self.name = name
        self.is_internal = is_internal
        self.started = time.time()
        self.ended = 0.0
        self.is_cached = False
        self.error = ""
        # The last of its output, for who asks why it failed.
        self.tail: list[tuple[float, bytes]] = []
        # What is being fetched for it, for displays that look now and then: name -> bytes here, and in all.
        self.transfers: dict[str, Callable[[], tuple[int, int]]] = {}

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.time()) - self.started

    def log(self, data: bytes) -> None:
        """Output of the step's command."""
        self.tail.append((time.time() - self.started, data))
        while len(self.tail) > 1 and sum(len(piece) for _, piece in self.tail) > _TAIL_BYTES:
            self.tail.pop(0)
        self._progress.tell("log", self, data)

    def status(self, text: str) -> None:
        """A line about what the step does: `transferring context: 2B done`."""
        self._progress.tell("status", self, text.encode())

    def cached(self) -> None:
        """It ends, and nothing had to be done."""
        self.is_cached = True
        self.done()

    def done(self) -> None:
        """It ends well."""
        if not self.ended:
            self.ended = time.time()
            self._progress.tell("end", self, b"")

    def fail(self, error: str) -> None:
        """It ends badly."""
        if not self.ended:
            self.error = error
            self.ended = time.time()
            self._progress.tell("end", self, b"")


class Progress:
    """Hands what happens to `show(kind, vertex, data)`, one at a time; kinds are begin, log, status, end."""

    def __init__(self, show: Callable[[str, Vertex, bytes], None] = lambda *_: None) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._count = 0

    def begin(self, name: str, *, internal: bool = False) -> Vertex:
        """A step begins."""
        with self._lock:
            self._count += 1
            vertex = Vertex(self, self._count, name, internal)
            self._show("begin", vertex, b"")
        return vertex

    def tell(self, kind: str, vertex: Vertex, data: bytes) -> None:
        """For vertices."""
        with self._lock:
            self._show(kind, vertex, data)
