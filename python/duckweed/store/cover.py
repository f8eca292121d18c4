"""The cover: a thin layer of our own over an image whose trees belong to another user.

Overlay copies a file up together with its owner, and refuses (EOVERFLOW) when that owner has no number in
the container's user namespace; a directory of such an owner cannot even be filled. So all directories of the
image are made once more, owned by us, and with them the small files of those places where programs change
files instead of replacing them (/etc, /var, /root, /home). The rest of the image is read in place; it can be
replaced and deleted, not changed. An image that is loaded into the own store has no such limit.
"""

from __future__ import annotations

import os
import stat

from duckweed.errors import StoreError
from duckweed.store import layer_index, scratch, within
from duckweed.store.layout import cannot
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

CHANGED_IN_PLACE = frozenset((b"etc", b"var", b"root", b"home", b"srv"))
LARGEST_FILE = 1 << 20
MOST_BYTES = 64 << 20
_OPAQUE = "user.overlay.opaque"


class _Node:
    """A directory of the image (`below` is a dict) or one of its small files, as the topmost layer has it."""

    __slots__ = ("below", "path", "record")

    def __init__(self, path: bytes, record: dict[str, Any], is_directory: bool) -> None:
        self.path = path
        self.record = record
        self.below: dict[bytes, _Node] | None = {} if is_directory else None


def name_of(chain_id: str, flavour: str) -> str:
    """The cover's directory in layers/, for the image with this topmost chain id."""
    return f"{chain_id[7:]}.cover-{flavour}"


def make(layout: Layout, name: str, directories: Sequence[str], flavour: Flavour) -> None:
    """Makes the cover of the layers at `directories` (topmost first) in layers/. Raises StoreError."""
    root = _Node(b"", layer_index.record(0o755, 0, "dir"), True)
    for directory in reversed(directories):
        _Layer(directory).lay_over(root)
    work = scratch.new_directory(layout, "layer", layout.tree_tmp)
    try:
        size = _write(root, work + "/layer")
        record = {
            "chain_id": "sha256:" + name.partition(".")[0],
            "size": size,
            "flavour": name.partition(".")[2],
            "uid_map": flavour.uid_map,
            "gid_map": flavour.gid_map,
        }
        scratch.write_json(layout, work + "/layer/layer.json", record)
        if flavour.uid_map:
            within.run(flavour.uid_map, flavour.gid_map, "own", work + "/layer")
        try:
            os.rename(work + "/layer", f"{layout.layers}/{name}")
        except OSError as error:
            if not os.path.isdir(f"{layout.layers}/{name}"):  # else another maker was first
                raise cannot("write", f"{layout.layers}/{name}", error) from None
    finally:
        remove_tree(work, flavour)


class _Layer:
    """One layer on its way over those below."""

    def __init__(self, directory: str) -> None:
        self._top = os.fsencode(directory + "/fs")
        self._index = layer_index.read(directory)

    def lay_over(self, root: _Node) -> None:
        for key, record in self._index.items():
            if record.get("type") == "whiteout":
                _forget(root, key)
        root.record = self._record(b"", os.lstat(self._top), "dir")
        waiting = [(b"", root)]
        while waiting:
            path, node = waiting.pop()
            assert node.below is not None
            for name, entry in self._entries(path):
                inner = path + b"/" + name if path else name
                facts = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(facts.st_mode):
                    node.below.pop(name, None)
                    if self._is_wanted(inner, facts):
                        record = self._record(inner, facts, "file")
                        node.below[name] = _Node(entry.path, record, False)
                    continue
                below = node.below.get(name)
                if below is None or below.below is None or self._is_opaque(inner):
                    below = node.below[name] = _Node(entry.path, {}, True)
                below.record = self._record(inner, facts, "dir")
                waiting.append((inner, below))

    def _entries(self, path: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
        try:
            with os.scandir(os.path.join(self._top, path)) as entries:
                for entry in entries:
                    yield entry.name, entry
        except PermissionError:
            return  # of a flavour that is not made for sharing: what cannot be read stays as it is

    def _is_wanted(self, path: bytes, facts: os.stat_result) -> bool:
        return (
            stat.S_ISREG(facts.st_mode)
            and facts.st_size <= LARGEST_FILE
            and path.partition(b"/")[0] in CHANGED_IN_PLACE
            and self._index.get(layer_index.key(path), {}).get("type", "file") == "file"
        )

    def _record(self, path: bytes, facts: os.stat_result, kind: str) -> dict[str, Any]:
        known = self._index.get(layer_index.key(path))
        if known is not None and "mode" in known:
            return known
        return layer_index.record(stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, kind)

    def _is_opaque(self, path: bytes) -> bool:
        if self._index.get(layer_index.key(path), {}).get("opaque"):
            return True
        try:
            return os.getxattr(os.path.join(self._top, path), _OPAQUE, follow_symlinks=False) == b"y"
        except OSError:
            return False


def _forget(root: _Node, key: str) -> None:
    """Takes away what a whiteout of the index hides."""
    *parents, name = _unquote(key).split(b"/")
    node: _Node | None = root
    for part in parents:
        node = node.below.get(part) if node is not None and node.below is not None else None
    if node is not None and node.below is not None:
        node.below.pop(name, None)


def _unquote(key: str) -> bytes:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(key)


def _write(root: _Node, directory: str) -> int:
    """Makes fs/ and index.json of the cover; the bytes of its files."""
    entries: dict[str, dict[str, Any]] = {}
    made: list[tuple[bytes, _Node]] = []
    total = 0
    top = os.fsencode(directory + "/fs")
    try:
        os.mkdir(directory, 0o700)
        waiting = [(b"", root)]
        while waiting:
            path, node = waiting.pop()
            target = os.path.join(top, path) if path else top
            if node.below is None:
                total += _copy(node.path, target, MOST_BYTES - total)
            else:
                os.mkdir(target, 0o700)
                waiting += [
                    (path + b"/" + name if path else name, below) for name, below in node.below.items()
                ]
            made.append((path, node))
        for path, node in reversed(made):
            target = os.path.join(top, path) if path else top
            if node.below is not None or os.path.exists(target):
                _settle(target, node.record)
                entries[layer_index.key(path)] = {
                    name: node.record[name] for name in ("uid", "gid", "mode", "mtime", "type")
                }
    except OSError as error:
        raise cannot("make the cover of a shared image in", directory, error) from None
    except KeyError:
        raise StoreError("cannot cover the shared image: the index of a layer is damaged") from None
    needed = {
        key: entry for key, entry in entries.items() if entry["uid"] or entry["gid"] or entry["mode"] & 0o7000
    }
    layer_index.write(directory, needed)
    return total


def _copy(source: bytes, target: bytes, room: int) -> int:
    """Copies a small file if there is room for it; its bytes. What cannot be read is left below."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return 0
    with open(fd, "rb", buffering=0) as file:
        content = file.read(LARGEST_FILE + 1)
    if content is None or len(content) > min(LARGEST_FILE, room):
        return 0
    with open(target, "xb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) or 0 :]
    return len(content)


def _settle(target: bytes, record: dict[str, Any]) -> None:
    """Mode and time; deepest first, so that no directory is closed or touched again."""
    os.chmod(target, record["mode"])
    moment = record["mtime"][0] * 1_000_000_000 + record["mtime"][1]
    os.utime(target, ns=(moment, moment), follow_symlinks=False)
