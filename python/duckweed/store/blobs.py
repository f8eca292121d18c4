"""Blobs: manifests, configs and compressed layers, named by their digest, written once, never changed."""

from __future__ import annotations

import os

from duckweed.errors import BadImage
from duckweed.oci.digest import digest_of
from duckweed.store import scratch, shared
from duckweed.store.layout import cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.store.layout import Layout

_CHUNK = 1 << 20


class BlobStore:
    """The blobs below one root. What is only to be read may also be in a read-only store; `exists` speaks of
    the own one alone.
    """

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def exists(self, digest: str) -> bool:
        """Whether this blob is there: what is at its final path was verified."""
        return os.path.exists(self._layout.blob(digest))

    def path(self, digest: str) -> str:
        """Where to read a blob: here, or in the first read-only store that has it."""
        return shared.find_blob(self._layout, digest)

    def size(self, digest: str) -> int | None:
        """The blob's size; None when it is nowhere."""
        try:
            return os.stat(self.path(digest)).st_size
        except OSError:
            return None

    def read(self, digest: str) -> bytes:
        """The bytes of a small blob. Raises StoreError."""
        path = self.path(digest)
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            raise cannot("read", path, error) from None

    def put(self, content: bytes) -> str:
        """Stores these bytes; returns their digest. Raises StoreError."""
        digest = digest_of(content)
        if not self.exists(digest):
            scratch.write_file(self._layout, self._layout.blob(digest), content, durable=True)
        return digest

    def adopt(self, path: str, digest: str) -> None:
        """Moves a finished file of tmp/, whose digest was computed while writing, to its final path."""
        final = self._layout.blob(digest)
        try:
            if os.path.exists(final):
                os.unlink(path)
                return
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(path, final)
        except OSError as error:
            raise cannot("write", final, error) from None

    def copy(self, fd: int, offset: int, length: int, digest: str) -> None:
        """Copies a blob out of an archive, checking it on the way. Raises BadImage, StoreError."""
        import hashlib

        half = scratch.new_path(self._layout, "blob")
        state, position, end = hashlib.sha256(), offset, offset + length
        try:
            with open(half, "xb") as file:
                while position < end:
                    chunk = os.pread(fd, min(_CHUNK, end - position), position)
                    if not chunk:
                        raise BadImage(f"blob `{digest}`: the archive ends within it")
                    state.update(chunk)
                    file.write(chunk)
                    position += len(chunk)
            if "sha256:" + state.hexdigest() != digest:
                raise BadImage(f"blob `{digest}`: its bytes have the digest `sha256:{state.hexdigest()}`")
            self.adopt(half, digest)
        except OSError as error:
            raise cannot("write", half, error) from None
        finally:
            scratch.discard_file(half)

    def all(self) -> list[str]:
        """The digests of all blobs, in no order."""
        names = scratch.list_directory(self._layout.blobs)
        return ["sha256:" + name for name in names if len(name) == 64]
