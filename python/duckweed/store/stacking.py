"""Stacking: the layers of one image, two of them in work at once.

While one layer's files are written, the next is read, inflated and hashed already, and written too. It waits
for the layers below only where it leans on them: when a hard link leads into them, when it implies a
directory of theirs, and before it gets its name in the store. So what has a name always lies on what has one.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from duckweed import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# More would only share the same processors and the same disk.
_AT_ONCE = 2


class Turn:
    """What one layer knows of the others: `below` opens when those below it are in the store, `cancel` says
    that they never will be.
    """

    __slots__ = ("below", "cancel")

    def __init__(self, below: _core.Gate, cancel: _core.Cancel) -> None:
        self.below = below
        self.cancel = cancel


class LayerFailed(Exception):
    """Layer `index` (from 0, the bottom) failed with `error`; those below it are in the store."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


class _Worker(threading.Thread):
    """A thread whose end can be waited for. Not by `join`: in CPython 3.11 one that Ctrl-C interrupts takes
    the thread for ended, so that the next returns at once.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name="layer", daemon=True)
        self._work = work
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            self._work()
        finally:
            self.ended.set()


class Stack(Generic[T]):
    """Takes `count` layers in with `take(index, turn)`, bottom first."""

    def __init__(self, count: int, take: Callable[[int, Turn], T], give_up: Callable[[], None]) -> None:
        self._count = count
        self._take = take
        self._give_up = give_up
        self._cancel = _core.Cancel()
        self._gates = [_core.Gate() for _ in range(count + 1)]
        self._gates[0].open()
        self._lock = threading.Lock()
        self._next = 0
        self._results: dict[int, T] = {}
        self._failed: dict[int, BaseException] = {}

    def take_all(self) -> list[T]:
        """What `take` returned for each layer. Raises LayerFailed for the lowest that failed. Ctrl-C ends
        all; `give_up` is called then.
        """
        workers = [_Worker(self._work) for _ in range(min(_AT_ONCE, self._count))]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.ended.wait()
        except BaseException:
            self._cancel.cancel()
            self._give_up()
            for worker in workers:
                # One that has not begun by now finds the flag raised, and does nothing.
                if worker.ident is not None:
                    worker.ended.wait()
            raise
        for index, error in sorted(self._failed.items()):
            if isinstance(error, Exception):
                raise LayerFailed(index, error) from error
            raise error
        return [self._results[index] for index in range(self._count)]

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._failed or self._next == self._count or self._cancel.is_cancelled():
                    return
                index = self._next
                self._next += 1
            try:
                self._results[index] = self._take(index, Turn(self._gates[index], self._cancel))
            except BaseException as error:
                with self._lock:
                    self._failed[index] = error
                    is_lowest = all(below in self._results for below in range(index))
                # A layer below may still be good, and is wanted then; one above is lost with this one.
                if is_lowest:
                    self._cancel.cancel()
                return
            self._gates[index + 1].open()
