"""Where a COPY's files land: the entries of the layer it makes, in the order of a tar.

The destination is a path of the stage's image, links in it followed. It is a directory when it ends with `/`,
when it is one in the image, or when a directory is copied. Directories that are missing on the way are made,
0755 (or the octal `--chmod`) and of the new files' owner. What a directory of the source puts over one of the
image gets the source's mode and owner, except the destination itself.
"""

from __future__ import annotations

import base64
import os
import time

from duckweed.build.tree import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from duckweed.build.modes import Chmod
    from duckweed.build.selection import Source
    from duckweed.build.tree import Node, Tree


class CannotCopy(ValueError):
    """A file in the way of a directory, or a directory in the way of a file."""


class Entry:
    """One entry of the layer. `node` is where it comes from; else it is a directory, or a file of `data`."""

    __slots__ = ("data", "gid", "mode", "node", "time", "uid")

    def __init__(
        self, node: Node | None, data: bytes | None, mode: int, uid: int, gid: int, when: int
    ) -> None:
        self.node = node
        self.data = data
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.time = when

    @property
    def is_directory(self) -> bool:
        return self.node.is_directory if self.node is not None else self.data is None

    def item(self, to: str, root: str) -> dict[str, Any]:
        """The entry as `_core.pack_layer`'s `items` take it."""
        item: dict[str, Any] = {"to": encode(to), "uid": self.uid, "gid": self.gid, "mode": self.mode}
        item["mtime"] = [self.time, 0]
        if self.node is not None:
            item["from"] = encode(os.path.relpath(self.node.path, root) if self.node.path != root else "")
        elif self.data is not None:
            item["bytes"] = base64.b64encode(self.data).decode()
        return item


def _time(node: Node) -> int:
    return int(node.record["mtime"][0] if node.record else node.facts.st_mtime_ns // 10**9)


class CopyPlan:
    """The layer of one COPY, ADD or WORKDIR on the tree of the stage so far.

    `owner` is that of everything (`--chown`), else `owner_of` tells each node's. `now` (seconds since 1970)
    is the time of what is made here.
    """

    def __init__(
        self,
        below: Tree,
        *,
        owner: tuple[int, int] | None = None,
        owner_of: Callable[[Node], tuple[int, int]] = lambda _: (0, 0),
        chmod: Chmod | None = None,
        now: int | None = None,
    ) -> None:
        self.below = below
        self.owner = owner
        self._owner_of = owner_of
        self._chmod = chmod
        self._now = int(time.time()) if now is None else now
        self.entries: dict[str, Entry] = {}

    def add(self, source: Source, destination: str) -> None:
        """Adds what a source holds. Raises CannotCopy."""
        path = destination.lstrip("/")
        into_directory = path == "" or path.endswith("/")
        target = self.below.resolve(path)
        if source.is_directory:
            if into_directory or source.keeps_path:
                self.make_directories(target)
            self._add_directory(source, target)
            return
        if into_directory:
            self.make_directories(target)
        if into_directory or self._is_directory(target):
            target = f"{target}/{source.name}".lstrip("/")
        self.make_directories(target.rpartition("/")[0])
        self._put(target, source.entries[0][1])

    def add_file(self, name: str, data: bytes, destination: str, mode: int = 0o644) -> None:
        """Adds a file that is in no tree: a heredoc's, or one that was fetched."""
        target = self._file_target(name, destination)
        if self._chmod is not None:
            mode = self._chmod.apply(mode, False)
        uid, gid = self.owner or (0, 0)
        self._replace(target, Entry(None, data, mode, uid, gid, self._now))

    def add_node(self, name: str, node: Node, destination: str) -> None:
        """Adds a file of the machine under a name."""
        self._put(self._file_target(name, destination), node)

    def _file_target(self, name: str, destination: str) -> str:
        path = destination.lstrip("/")
        target = self.below.resolve(path)
        if path == "" or path.endswith("/") or self._is_directory(target):
            self.make_directories(target)
            target = f"{target}/{name}".lstrip("/")
        self.make_directories(target.rpartition("/")[0])
        return target

    def _add_directory(self, source: Source, target: str) -> None:
        entries = source.entries
        if not source.keeps_path:
            top = entries[0][1]
            entries = entries[1:]
            if not self._is_directory(target):
                if self._exists(target):
                    raise CannotCopy(f"cannot copy to non-directory: /{target}")
                # As BuildKit: made like any directory on the way, with the source's time.
                self.make_directories(target)
                self.entries[target].time = _time(top)
        for below, node in entries:
            self._put(f"{target}/{below}".lstrip("/"), node)

    def _put(self, target: str, node: Node) -> None:
        if node.is_directory:
            if self._exists(target) and not self._is_directory(target):
                raise CannotCopy(f"cannot copy to non-directory: /{target}")
        elif self._is_directory(target):
            raise CannotCopy(f"cannot replace to directory /{target} with file")
        mode = node.mode
        if self._chmod is not None and node.kind != "symlink":
            mode = self._chmod.apply(mode, node.is_directory)
        uid, gid = self.owner or self._owner_of(node)
        self._replace(target, Entry(node, None, mode, uid, gid, _time(node)))

    def _replace(self, target: str, entry: Entry) -> None:
        self.entries.pop(target, None)
        self.entries[target] = entry

    def make_directories(self, path: str) -> None:
        """The directories of a resolved path that are missing. Raises CannotCopy."""
        parts = [part for part in path.split("/") if part]
        for count in range(1, len(parts) + 1):
            here = "/".join(parts[:count])
            if self._is_directory(here):
                continue
            if self._exists(here):
                raise CannotCopy(f"/{here} is not a directory")
            uid, gid = self.owner or (0, 0)
            mode = self._chmod.for_directories_made if self._chmod else 0o755
            self.entries[here] = Entry(None, None, mode, uid, gid, self._now)

    def _exists(self, path: str) -> bool:
        return not path or path in self.entries or self.below.node(path) is not None

    def _is_directory(self, path: str) -> bool:
        if not path:
            return True
        entry = self.entries.get(path)
        if entry is not None:
            return entry.is_directory
        node = self.below.node(path)
        return node is not None and node.is_directory

    def items(self, root: str) -> list[dict[str, Any]]:
        """The entries in the order of their paths; their files are beneath `root`."""
        return [self.entries[path].item(path, root) for path in sorted(self.entries, key=os.fsencode)]
