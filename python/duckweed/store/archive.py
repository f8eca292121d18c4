"""Archives given to `load`: from whatever was handed in to members that can be read at an offset.

A path, a descriptor or a file object; a tar, bare or compressed with gzip or zstd; or the directory of an
OCI layout. What cannot be read at an offset is first written to a file of tmp/ that has no name, so a
killed load leaves nothing of it. No member is ever extracted here and no member's name becomes a path:
names are looked up among the members alone.
"""

from __future__ import annotations

import os
import stat

from duckweed import _core
from duckweed.errors import BadImage, DuckweedError, StoreError
from duckweed.oci.document import LIMIT_BYTES
from duckweed.store import scratch
from duckweed.store.layers import LayerBytes
from duckweed.store.layout import cannot
from duckweed.store.room import Need, packed_need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Union

    from duckweed.store.blobs import BlobStore
    from duckweed.store.layout import Layout
    from duckweed.store.plan import LayerPlan

    Source = Union[str, int, BinaryIO]

_LINK_DEPTH = 8
_SINGLE = frozenset(("manifest.json", "index.json", "oci-layout"))


class Archive:
    """Members by name. A context manager: it owns the descriptors it opened."""

    def read(self, name: str) -> bytes:
        """A small member, whole. Raises BadImage: missing, or larger than documents are."""
        fd, offset, length = self.locate(name)
        if length > LIMIT_BYTES:
            raise BadImage(f"`{_shown(name)}`: larger than {LIMIT_BYTES >> 20} MiB")
        content = b""
        while len(content) < length:
            chunk = os.pread(fd, length - len(content), offset + len(content))
            if not chunk:
                raise BadImage(f"`{_shown(name)}`: the archive ends within it")
            content += chunk
        return content

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        try:
            self.locate(name)
        except BadImage:
            return False
        return True

    def locate(self, name: str) -> tuple[int, int, int]:
        """`(fd, offset, length)` of a member. Raises BadImage."""
        raise NotImplementedError

    def layer(self, layer: LayerPlan) -> LayerBytes:
        """Where to read one layer. Raises BadImage."""
        return LayerBytes(*self.locate(layer.member), layer.blob)

    def need(self, layer: LayerPlan) -> Need:
        """The room that one layer takes at least. Raises BadImage."""
        return packed_need(*self.locate(layer.member))

    def keep(self, blobs: BlobStore, layer: LayerPlan, digest: str) -> None:
        """Makes sure that a layer's blob, which has this digest, is in the store as it came. Raises BadImage,
        StoreError.
        """
        blobs.copy(*self.locate(layer.member), digest)

    def taken(self, layer: LayerPlan) -> None:
        """Told when a layer is in the store, tree and blob."""

    def is_renewed(self, layer: LayerPlan) -> bool:
        """Whether a layer whose extraction failed is worth another try: its bytes are coming once more."""
        return False

    def give_up(self) -> None:
        """Ends whoever waits for a layer's bytes, from another thread."""

    def close(self) -> None:
        """Gives the descriptors back."""
        raise NotImplementedError

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TarArchive(Archive):
    """An uncompressed tar: its headers are read once, its bodies where they lie."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        os.lseek(fd, 0, os.SEEK_SET)
        for name, kind, size, offset, link in _core.archive_index(fd):
            self._add(name, kind, size, offset, link)
        if not self._files:
            raise BadImage("not an image archive: no files in it")

    def _add(self, name: str, kind: str, size: int, offset: int, link: str) -> None:
        path = _join((), name)
        if path is None:
            raise BadImage(f"member `{_shown(name)}` leads out of the archive")
        if path in _SINGLE and path in self._files:
            raise BadImage(f"member `{path}` is there twice")
        # A later member replaces an earlier one, as in any tar; what is used is checked by its digest.
        self._files.pop(path, None)
        self._links.pop(path, None)
        if kind == "file":
            self._files[path] = (offset, size)
        elif kind == "symlink":
            target = _join(tuple(path.split("/")[:-1]), link)
            self._links[path] = target if target is not None else ""
        elif kind == "link":
            self._links[path] = _join((), link) or ""

    def locate(self, name: str) -> tuple[int, int, int]:
        path = _join((), name)
        for _ in range(_LINK_DEPTH):
            if path is None or path not in self._links:
                break
            path = self._links[path]
        place = self._files.get(path) if path else None
        if place is None:
            raise BadImage(f"`{_shown(name)}`: not in the archive")
        return self._fd, place[0], place[1]

    def close(self) -> None:
        os.close(self._fd)


class DirectoryArchive(Archive):
    """The directory of an OCI layout. Links are not followed: a layout has none."""

    def __init__(self, path: str) -> None:
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[str, int] = {}

    def locate(self, name: str) -> tuple[int, int, int]:
        path = _join((), name)
        if not path:
            raise BadImage(f"`{_shown(name)}`: not in the directory")
        fd = self._open.get(path)
        if fd is None:
            fd = self._open[path] = self._open_beneath(path)
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise BadImage(f"`{_shown(name)}`: not a file")
        return fd, 0, facts.st_size

    def _open_beneath(self, path: str) -> int:
        here = os.dup(self._root)
        try:
            parts = path.split("/")
            for index, part in enumerate(parts):
                kind = os.O_DIRECTORY if index < len(parts) - 1 else os.O_NONBLOCK
                below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=here)
                os.close(here)
                here = below
        except (OSError, ValueError):
            os.close(here)
            raise BadImage(f"`{_shown(path)}`: not in the directory") from None
        return here

    def close(self) -> None:
        for fd in (*self._open.values(), self._root):
            os.close(fd)
        self._open.clear()


def open_archive(layout: Layout, source: Source) -> Archive:
    """The archive in `source`: a path, `-` for stdin, a descriptor, or a binary file object. The source
    stays open.

    Raises BadImage; StoreError when it cannot be read or there is no room to unpack it.
    """
    if isinstance(source, (str, os.PathLike)) and source != "-" and os.path.isdir(source):
        return DirectoryArchive(os.fspath(source))
    fd = inflate(layout, open_source(layout, source))
    try:
        return TarArchive(fd)
    except DuckweedError:
        os.close(fd)
        raise


def open_source(layout: Layout, source: Source) -> int:
    """A descriptor of our own that can be read at any offset. Raises StoreError."""
    if isinstance(source, (str, os.PathLike)) and source != "-":
        path = os.fspath(source)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise cannot("open", path, error) from None
        return fd if _is_plain(fd) else _spool_descriptor(layout, fd)
    if isinstance(source, (str, int)):
        try:
            fd = os.dup(0 if source == "-" else int(source))
        except OSError as error:
            raise cannot("read", "stdin" if source == "-" else f"descriptor {source}", error) from None
        return fd if _is_plain(fd) and os.lseek(fd, 0, os.SEEK_CUR) == 0 else _spool_descriptor(layout, fd)
    return _open_file_object(layout, source)


def _open_file_object(layout: Layout, source: BinaryIO) -> int:
    try:
        fd, position = os.dup(source.fileno()), source.tell()
    except (OSError, AttributeError, ValueError):
        return _spool(layout, source.read)
    if position == 0 and _is_plain(fd):
        return fd
    os.close(fd)
    return _spool(layout, source.read)


def _is_plain(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _spool_descriptor(layout: Layout, fd: int) -> int:
    try:
        return _spool(layout, lambda size: os.read(fd, size))
    finally:
        os.close(fd)


def nameless_file(layout: Layout) -> int:
    """A file of tmp/ that is gone when its descriptor is. Raises StoreError."""
    path = scratch.new_path(layout, "spool")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    except OSError as error:
        raise cannot("write in", layout.tmp, error) from None
    return fd


def _spool(layout: Layout, read: object) -> int:
    assert callable(read)
    out = nameless_file(layout)
    try:
        while True:
            chunk = read(1 << 20)
            if not chunk:
                break
            if not isinstance(chunk, (bytes, bytearray)):
                raise StoreError("cannot read the source: it is not a binary file")
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(out, rest) :]
    except OSError as error:
        os.close(out)
        raise cannot("spool the archive in", layout.tmp, error) from None
    except BaseException:
        os.close(out)
        raise
    return out


def inflate(layout: Layout, fd: int) -> int:
    """The descriptor itself, or one of the inflated bytes (then `fd` is closed). Raises BadImage,
    StoreError.
    """
    magic = os.pread(fd, 4, 0)
    if not magic:
        os.close(fd)
        raise BadImage("not an image archive: it is empty")
    if magic[:2] != b"\x1f\x8b" and magic != b"\x28\xb5\x2f\xfd":
        return fd
    out = -1
    try:
        out = nameless_file(layout)
        os.lseek(fd, 0, os.SEEK_SET)
        _core.decompress(fd, out)
    except BaseException as error:
        if out >= 0:
            os.close(out)
        if isinstance(error, OSError):
            raise cannot("unpack the archive in", layout.tmp, error) from None
        raise
    finally:
        os.close(fd)
    return out


def _join(base: tuple[str, ...], name: str) -> str | None:
    """A member's name without `.` and empty components, relative to `base`; None when it leads out."""
    if name.startswith("/"):
        return None
    parts = list(base)
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _shown(name: str) -> str:
    """A name from an archive, fit for one line."""
    text = name.encode("ascii", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 120 else text[:117] + "..."
