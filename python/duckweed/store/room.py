"""Room: whether what is about to be written can fit, asked before anything of it is.

The sizes are the least that is known (a tar's own headers are counted as files, which they become), so that
nothing is refused that would have fitted; what fails all the same on the way
fails as any full disk does, and leaves nothing either.
"""

from __future__ import annotations

import os

from duckweed.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.store.layout import Layout

# File systems that may keep a tree in less room than its bytes.
_COMPRESSING = frozenset(("btrfs", "zfs", "bcachefs", "f2fs", "fuse.zfs"))
_HINT = "free some, as with `duckweed system prune`, or set `DUCKWEED_ROOT` to a larger disk"


class Need:
    """What is going to be written: bytes of blobs, bytes of trees, files; each at least."""

    __slots__ = ("blobs", "files", "trees")

    def __init__(self, blobs: int = 0, trees: int = 0, files: int = 0) -> None:
        self.blobs = blobs
        self.trees = trees
        self.files = files

    def __add__(self, other: Need) -> Need:
        return Need(self.blobs + other.blobs, self.trees + other.trees, self.files + other.files)


def require(layout: Layout, need: Need, what: str) -> None:
    """Raises StoreError unless there is room for `need` in the store; `what` is for the sentence."""
    try:
        facts = os.statvfs(layout.root)
    except OSError:
        return  # whoever writes will say what is wrong
    if not facts.f_blocks:
        return  # ramfs, and a tmpfs without a limit
    free = facts.f_bavail * facts.f_frsize
    wanted = need.blobs + need.trees
    if wanted > free and (need.blobs > free or not _may_compress(layout.root)):
        raise StoreError(
            f"no room for {what}: {_size(wanted)} needed, {_size(free)} free in `{layout.root}`",
            _HINT,
            code="no-room",
        )
    # Where inodes are made as they are needed, none are counted.
    if facts.f_files and need.files > facts.f_favail:
        raise StoreError(
            f"no room for {what}: {need.files} files needed, {facts.f_favail} free in `{layout.root}`",
            _HINT,
            code="no-room",
        )


def packed_need(fd: int, offset: int, length: int) -> Need:
    """What a layer needs that lies there, packed or not."""
    magic = os.pread(fd, 4, offset)
    if magic[:2] == b"\x1f\x8b":
        # The last member's size modulo 2^32 (RFC 1952 §2.3.1): no more than all of it.
        size = int.from_bytes(os.pread(fd, 4, offset + length - 4), "little") if length > 18 else 0
        # DEFLATE cannot pack better than 1032 to 1, so anything above is not a size.
        return Need(blobs=length, trees=size if size <= length * 1032 else 0)
    if magic == b"\x28\xb5\x2f\xfd":
        return Need(blobs=length)
    return Need(trees=length)


def _may_compress(path: str) -> bool:
    return _file_system(path) in _COMPRESSING


def _file_system(path: str) -> str:
    """The type of the file system that `path` is on; empty when it cannot be told (proc_pid_mountinfo(5))."""
    path, best, kind = os.path.realpath(path), "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                point = before.split()[4].replace("\\040", " ")
                if len(point) >= len(best) and (path + "/").startswith(point.rstrip("/") + "/"):
                    best, kind = point, after.split()[0]
    except (OSError, IndexError):
        return ""
    return kind


def _size(count: int) -> str:
    """As Docker writes sizes: decimal units, three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"
