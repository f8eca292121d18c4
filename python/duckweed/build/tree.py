"""Trees that a COPY reads from or writes to: a directory of the machine, or layers seen merged.

Paths are relative, `/` between the parts, "" is the root. Nothing is followed unless `resolve` is asked, and
then as if the tree's root were `/`: a link can lead nowhere else.
"""

from __future__ import annotations

import os
import stat

from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.dockerfile.ignore import Matcher

_LINK_LIMIT = 255
_OPAQUE = "user.overlay.opaque"


class Node:
    """One entry. `path` is where it is on the disk; `record` what the layer's index says beyond that."""

    __slots__ = ("facts", "path", "record")

    def __init__(self, path: str, facts: os.stat_result, record: dict[str, Any] | None = None) -> None:
        self.path = path
        self.facts = facts
        self.record = record

    @property
    def kind(self) -> str:
        """`file`, `dir`, `symlink`, `fifo`, `char`, `block` or `socket`."""
        if self.record is not None:
            return str(self.record["type"])
        return _KINDS.get(stat.S_IFMT(self.facts.st_mode), "file")

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.facts.st_mode)

    @property
    def mode(self) -> int:
        """Permission bits, setuid, setgid and sticky."""
        return int(self.record["mode"]) if self.record is not None else stat.S_IMODE(self.facts.st_mode)


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}


class Tree:
    """What both kinds of trees can do."""

    def node(self, path: str) -> Node | None:
        """The entry, a link unfollowed; None when there is none."""
        raise NotImplementedError

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted by their bytes."""
        raise NotImplementedError

    def resolve(self, path: str, *, last: bool = True) -> str:
        """The path with every link in it followed (the last part only if `last`), also where nothing is."""
        waiting = [part for part in path.split("/") if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            here = "/".join([*done, part])
            node = self.node(here) if waiting or last else None
            if node is not None and node.kind == "symlink":
                links += 1
                if links > _LINK_LIMIT:
                    raise OSError(40, "too many levels of symbolic links", path)
                target = os.readlink(node.path)
                if target.startswith("/"):
                    done = []
                waiting = [piece for piece in target.split("/") if piece not in ("", ".")] + waiting
                continue
            done.append(part)
        return "/".join(done)


def by_bytes(names: list[str]) -> list[str]:
    """Names in the order of their bytes."""
    return sorted(names, key=os.fsencode)


class DirectoryTree(Tree):
    """A directory of the machine without what `ignore` leaves out. All belongs to root, as in a build."""

    def __init__(self, root: str, ignore: Matcher | None = None) -> None:
        self.root = root
        self._ignore = ignore if ignore else None
        self._known: dict[str, tuple[bool, tuple[bool, ...] | None]] = {}

    @property
    def hides_something(self) -> bool:
        """Whether there are patterns at all."""
        return self._ignore is not None

    def node(self, path: str) -> Node | None:
        try:
            facts = os.lstat(f"{self.root}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if path and self._is_hidden(path, stat.S_ISDIR(facts.st_mode)):
            return None
        return Node(f"{self.root}/{path}", facts)

    def names(self, path: str) -> list[str]:
        names = by_bytes(os.listdir(f"{self.root}/{path}"))
        if self._ignore is None:
            return names
        lead = f"{path}/" if path else ""
        return [name for name in names if self.node(lead + name) is not None]

    def _is_hidden(self, path: str, is_directory: bool) -> bool:
        """A directory that is left out is there all the same while something in it is not."""
        if self._ignore is None or not self._match(path)[0]:
            return False
        if not is_directory or not self._ignore.may_have_exceptions_below(path):
            return True
        return not any(
            not self._is_hidden(f"{path}/{name}", os.path.isdir(f"{self.root}/{path}/{name}"))
            for name in os.listdir(f"{self.root}/{path}")
        )

    def _match(self, path: str) -> tuple[bool, tuple[bool, ...] | None]:
        known = self._known.get(path)
        if known is None:
            assert self._ignore is not None
            parent = path.rpartition("/")[0]
            known = self._ignore.below(path, self._match(parent)[1] if parent else None)
            self._known[path] = known
        return known


class LayeredTree(Tree):
    """Layers as a container sees them: `layers` are the directories in the store, topmost first."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._trees = [f"{layer}/fs" for layer in layers]
        self._indices = [_Index(layer) for layer in layers]
        self._directories: dict[str, list[int]] = {"": list(range(len(layers)))}

    def _members(self, path: str) -> list[int]:
        """The layers that make up a directory, topmost first; none when it is no directory."""
        known = self._directories.get(path)
        if known is not None:
            return known
        parent, _, _ = path.rpartition("/")
        found: list[int] = []
        for layer in self._members(parent):
            facts = self._lstat(layer, path)
            if facts is None:
                if self._indices[layer].is_whiteout(path):
                    break
                continue
            if not stat.S_ISDIR(facts.st_mode):
                break
            found.append(layer)
            if self._is_opaque(layer, path):
                break
        self._directories[path] = found
        return found

    def _lstat(self, layer: int, path: str) -> os.stat_result | None:
        try:
            return os.lstat(f"{self._trees[layer]}/{path}")
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # Into a directory of another id nobody looks; what is put there replaces what may be there.
            return None

    def _is_opaque(self, layer: int, path: str) -> bool:
        record = self._indices[layer].get(path)
        if record is not None and record.get("opaque"):
            return True
        try:
            return os.getxattr(f"{self._trees[layer]}/{path}", _OPAQUE, follow_symlinks=False) == b"y"
        except OSError:
            return False

    def node(self, path: str) -> Node | None:
        parent = path.rpartition("/")[0]
        for layer in self._members(parent):
            facts = self._lstat(layer, path)
            if facts is None:
                if self._indices[layer].is_whiteout(path):
                    return None
                continue
            if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0:
                return None
            return Node(f"{self._trees[layer]}/{path}", facts, self._indices[layer].get(path))
        return None

    def directories(self, path: str) -> list[str]:
        """The directories on the disk that a directory is made of, topmost first."""
        return [f"{self._trees[layer]}/{path}".rstrip("/") for layer in self._members(path)]

    def names(self, path: str) -> list[str]:
        found: set[str] = set()
        for layer in self._members(path):
            found.update(os.listdir(f"{self._trees[layer]}/{path}"))
        lead = f"{path}/" if path else ""
        return [name for name in by_bytes(list(found)) if self.node(lead + name) is not None]


class _Index:
    """A layer's index.json, read when first asked."""

    __slots__ = ("_entries", "_layer")

    def __init__(self, layer: str) -> None:
        self._layer = layer
        self._entries: dict[str, dict[str, Any]] | None = None

    def get(self, path: str) -> dict[str, Any] | None:
        if self._entries is None:
            document = scratch.read_json(f"{self._layer}/index.json") or {}
            entries = document.get("entries")
            self._entries = entries if isinstance(entries, dict) else {}
        return self._entries.get(encode(path)) if self._entries else None

    def is_whiteout(self, path: str) -> bool:
        record = self.get(path)
        return record is not None and record.get("type") == "whiteout"


def encode(path: str) -> str:
    """A path as index.json spells it (docs/contracts.md §2)."""
    if not path:
        return "."
    if path.isascii() and "%" not in path:
        return path
    raw = os.fsencode(path).replace(b"%", b"%25")
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
