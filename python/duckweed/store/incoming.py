"""Incoming: an image's blobs on their way from a registry, looking to the loader like an archive.

A few threads fetch what the store has not, bottom layer first; the loader extracts each layer behind its
download (`_core.Part`) while the next ones are coming. A blob is in its final place as soon as it is whole,
also when the image is never finished: the next pull finds it there. What is not whole stays in `partial/`,
and the next pull goes on with it.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from duckweed import _core
from duckweed.errors import BadImage, DuckweedError, StoreError, TransferError
from duckweed.store import claims, scratch
from duckweed.store.archive import Archive
from duckweed.store.layers import LayerBytes
from duckweed.store.layout import cannot
from duckweed.store.room import Need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from duckweed.oci.manifest import Descriptor
    from duckweed.store.blobs import BlobStore
    from duckweed.store.layout import Layout
    from duckweed.store.plan import LayerPlan

    Fetch = Callable[[str, _core.Part], None]

# As Docker's client does.
_AT_ONCE = 3
_LOOK_S = 0.03
_QUEUED, _WAITING, _ARRIVING, _STORED, _FAILED = range(5)


class Watch:
    """Told what happens to each blob, from several threads; this one keeps it to itself."""

    def queued(self, digest: str, size: int) -> None:
        """It will be fetched."""

    def waiting(self, digest: str) -> None:
        """Another process is fetching it."""

    def arriving(self, digest: str, part: _core.Part) -> None:
        """It is being fetched."""

    def stored(self, digest: str) -> None:
        """It is here, verified."""

    def taken(self, digest: str) -> None:
        """It is extracted."""


class _Arrival:
    """One blob's way into the store. Everything but the two constants is guarded by the owner's condition."""

    __slots__ = ("digest", "is_asked", "part", "renewed", "size", "state")

    def __init__(self, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self.state = _QUEUED
        self.part: _core.Part | None = None
        # How often its bytes had to be begun anew, and whether a failed extraction was told so.
        self.renewed = 0
        self.is_asked = 0


class Incoming(Archive):
    """The layers of one image; a context manager that ends its threads."""

    def __init__(
        self,
        layout: Layout,
        blobs: BlobStore,
        layers: Iterable[Descriptor],
        fetch: Fetch,
        cancel: Callable[[], None],
        watch: Watch,
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._fetch = fetch
        self._cancel = cancel
        self._watch = watch
        self._arrivals = {layer.digest: _Arrival(layer.digest, layer.size) for layer in layers}
        self._queue = deque(one for one in self._arrivals.values() if not blobs.exists(one.digest))
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._cause: BaseException | None = None
        self._fds: list[int] = []
        for arrival in self._arrivals.values():
            if arrival in self._queue:
                watch.queued(arrival.digest, arrival.size)
            else:
                arrival.state = _STORED
        self._threads = [
            threading.Thread(target=self._work, name="fetch", daemon=True)
            for _ in range(min(_AT_ONCE, len(self._queue)))
        ]
        for thread in self._threads:
            thread.start()

    # What the loader asks for.

    def locate(self, name: str) -> tuple[int, int, int]:
        raise BadImage(f"`{name}` is not in an image that is pulled")

    def layer(self, layer: LayerPlan) -> LayerBytes:
        """The blob's bytes as soon as the first of them are here."""
        arrival = self._arrival(layer)
        with self._changed:
            while arrival.state in (_QUEUED, _WAITING):
                self._changed.wait(0.5)
            if arrival.state == _FAILED:
                raise self._failure()
            if arrival.state == _ARRIVING and arrival.part is not None:
                return LayerBytes(arrival.part, blob=arrival.digest, is_kept=True)
        path = self._layout.blob(arrival.digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # A remover took it in this moment.
            self._bring(arrival)
            return self.layer(layer)
        self._fds.append(fd)
        return LayerBytes(fd, blob=arrival.digest, is_kept=True)

    def need(self, layer: LayerPlan) -> Need:
        """A tree is no smaller than its blob."""
        arrival = self._arrival(layer)
        try:
            here = os.stat(claims.part_path(self._layout, arrival.digest[7:])).st_size
        except OSError:
            here = arrival.size if self._blobs.exists(arrival.digest) else 0
        return Need(blobs=max(arrival.size - here, 0), trees=arrival.size)

    def keep(self, blobs: BlobStore, layer: LayerPlan, digest: str) -> None:
        """Waits until the blob is in its place."""
        arrival = self._arrival(layer)
        with self._changed:
            while arrival.state not in (_STORED, _FAILED):
                self._changed.wait(0.5)
            if arrival.state == _FAILED:
                raise self._failure()
        if not blobs.exists(digest):
            self._bring(arrival)
            self.keep(blobs, layer, digest)

    def taken(self, layer: LayerPlan) -> None:
        self._watch.taken(layer.member)

    def is_renewed(self, layer: LayerPlan) -> bool:
        arrival = self._arrival(layer)
        with self._changed:
            while (
                arrival.state == _ARRIVING
                and arrival.part is not None
                and arrival.renewed == arrival.is_asked
            ):
                # The extraction has seen damaged bytes before the download has: it will say so.
                self._changed.wait(0.5)
            is_new = arrival.renewed > arrival.is_asked
            arrival.is_asked = arrival.renewed
            return is_new

    def give_up(self) -> None:
        self._stop.set()
        with self._changed:
            self._cause = self._cause or TransferError("cancelled", "cancelled")
            rest = list(self._queue)
            self._queue.clear()
        for arrival in rest:
            self._set(arrival, _FAILED, error=self._cause)
        self._cancel()

    def failure(self) -> BaseException | None:
        """Why a blob could not be fetched, if one could not."""
        return self._cause

    def __enter__(self) -> Incoming:
        return self

    def close(self) -> None:
        """Ends the threads; parts stay where the next pull finds them."""
        self._stop.set()
        with self._changed:
            is_idle = not self._queue and all(
                one.state in (_STORED, _FAILED) for one in self._arrivals.values()
            )
            self._queue.clear()
        if not is_idle:
            self._cancel()
        for thread in self._threads:
            thread.join()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def discard(self) -> None:
        """Removes the parts that were left, for a disk that is full; the threads have ended."""
        for digest in self._arrivals:
            scratch.discard_file(f"{self._layout.partial}/{digest[7:]}.{scratch.owner()}")

    def _arrival(self, layer: LayerPlan) -> _Arrival:
        return self._arrivals[layer.member]

    def _failure(self) -> DuckweedError:
        if isinstance(self._cause, DuckweedError):
            return self._cause
        return StoreError(f"cannot fetch the image's blobs: {self._cause}")

    # What the threads do.

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                if not self._queue:
                    return
                arrival = self._queue.popleft()
            try:
                self._bring(arrival)
            except BaseException as error:
                # Nothing more is needed of an image that cannot be had.
                self._stop.set()
                with self._changed:
                    self._cause = self._cause or error
                    rest = [arrival, *self._queue]
                    self._queue.clear()
                for other in rest:
                    self._set(other, _FAILED, error=self._cause)

    def _set(
        self,
        arrival: _Arrival,
        state: int,
        *,
        part: _core.Part | None = None,
        error: BaseException | None = None,
    ) -> None:
        with self._changed:
            if error is not None and arrival.part is not None:
                arrival.part.fail(getattr(error, "message", "") or str(error))
            arrival.state, arrival.part = state, part
            self._changed.notify_all()

    def _bring(self, arrival: _Arrival) -> None:
        """Fetches one blob, or waits for another process that does."""
        hex_digits = arrival.digest[7:]
        while not self._blobs.exists(arrival.digest):
            if self._stop.is_set():
                raise TransferError("cancelled", "cancelled")
            if not claims.take(self._layout, hex_digits):
                if arrival.state != _WAITING:
                    self._set(arrival, _WAITING)
                    self._watch.waiting(arrival.digest)
                self._stop.wait(_LOOK_S)
                continue
            try:
                if not self._blobs.exists(arrival.digest):
                    self._receive(arrival, claims.part_path(self._layout, hex_digits))
            finally:
                claims.release(self._layout, hex_digits)
        self._set(arrival, _STORED)
        self._watch.stored(arrival.digest)

    def _receive(self, arrival: _Arrival, path: str) -> None:
        while True:
            try:
                part = _core.Part(path, arrival.digest, arrival.size)
                self._set(arrival, _ARRIVING, part=part)
                self._watch.arriving(arrival.digest, part)
                self._fetch(arrival.digest, part)
                self._blobs.adopt(path, arrival.digest)
                return
            except OSError as error:
                raise cannot("write", path, error) from None
            except TransferError as error:
                if error.kind not in ("digest", "digest-resumed", "size"):
                    raise
                scratch.discard_file(path)
                if error.kind != "digest-resumed":
                    raise BadImage(f"blob `{arrival.digest}`: {error.message}") from None
                # What an earlier process left was damaged, as after a power cut: once more from nothing.
                with self._changed:
                    arrival.renewed += 1
                    part.fail("begun anew")
