"""Making a store that others may read: `system share DIR IMAGE...`.

The directory is an ordinary store, but its images can be looked up by everybody, and its layers are of the
flavour `shared`: every file is readable, what was executable is so for all, and no file keeps a setuid or
setgid bit, which would hand the keeper's account to whoever starts it. The true modes stand in the layer's
index. A layer of any other flavour stays closed: its directory is 0700, and only this module opens one.
"""

from __future__ import annotations

import os
import stat

from duckweed.errors import Conflict
from duckweed.oci.manifest import Manifest
from duckweed.oci.reference import Reference
from duckweed.store import layer_index
from duckweed.store.layout import Layout, cannot
from duckweed.store.shared import FLAVOUR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore

_OPEN_DIRECTORIES = ("", "/blobs", "/blobs/sha256", "/images", "/layers")
_INDEX_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFIFO: "fifo"}


def share(store: ImageStore, directory: str, names: Sequence[str]) -> list[Image]:
    """Puts images of `store` into the store at `directory`, for everybody to read; returns them.

    Raises NoSuchImage, Conflict, StoreError.
    """
    from duckweed.store.images import ImageStore as Store
    from duckweed.store.layers import Flavour

    images = [store.get(name) for name in names]
    for image in images:
        if image.is_host:
            raise Conflict("cannot share `host`: it is the machine itself, not an image of the store")
    layout = Layout(directory, read_stores=())
    if layout.root == store.layout.root:
        raise Conflict(
            f"cannot share in `{layout.root}`: it is the store you work in", "name another directory"
        )
    layout.ensure()
    target = Store(layout, Flavour(FLAVOUR))
    _open_store(layout)
    for image in images:
        _share_one(store, target, image)
    return images


def _open_store(layout: Layout) -> None:
    try:
        for name in _OPEN_DIRECTORIES:
            os.chmod(layout.root + name, 0o755)
        os.chmod(layout.root + "/version", 0o644)
    except OSError as error:
        raise cannot("open for others", layout.root, error) from None


def _share_one(store: ImageStore, target: ImageStore, image: Image) -> None:
    manifest = Manifest.read(store.blobs.read(image.manifest), f"manifest `{image.manifest}`")
    blobs = [layer.digest for layer in manifest.layers]
    for digest in blobs:
        with open(store.blobs.path(digest), "rb", buffering=0) as file:
            if not target.blobs.exists(digest):
                target.blobs.copy(file.fileno(), 0, os.fstat(file.fileno()).st_size, digest)
    target.layers.ensure(image.chain_ids, image.diff_ids, blobs, target.flavour)
    for digest in (image.id, image.manifest):
        target.blobs.put(store.blobs.read(digest))
    for digest in (image.id, image.manifest, *blobs):
        os.chmod(target.layout.blob(digest), 0o644)
    record = store.records.image(image.id) or {}
    tags = [Reference.parse(tag["reference"]) for tag in store.records.tags_of(image.id)]
    original = bool(record.get("original") and record["manifest"] == image.manifest)
    target.records.add(image.manifest, image.id, original, tags, image.chain_ids)
    os.chmod(target.layout.image(image.id), 0o644)
    for tag in tags:
        os.chmod(target.layout.tag(str(tag)), 0o644)


def open_layer(directory: str) -> None:
    """Makes an extracted layer readable by everybody and harmless to start from; its index gets the modes
    that files had. Raises StoreError.
    """
    entries = layer_index.read(directory)
    modes: dict[tuple[int, int], int] = {}
    try:
        for name, facts in _tree(os.fsencode(directory + "/fs"), modes):
            mode = modes[facts.st_dev, facts.st_ino]
            if mode != _open_mode(mode, facts.st_mode):
                kind = _INDEX_KINDS[stat.S_IFMT(facts.st_mode)]
                entries.setdefault(layer_index.key(name), layer_index.record(mode, facts.st_mtime_ns, kind))
        layer_index.write(directory, entries)
        for file in ("index.json", "layer.json"):
            os.chmod(f"{directory}/{file}", 0o644)
        os.chmod(directory, 0o755)
    except OSError as error:
        raise cannot("open for others", directory, error) from None


def _tree(top: bytes, modes: dict[tuple[int, int], int]) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every file and directory below `top`, opened for others; `modes` gets what they had, by inode.

    The tree lies in a directory of tmp/ that nobody else can enter, so a path looked at stays what it is.
    """
    waiting = [b""]
    while waiting:
        name = waiting.pop()
        path = os.path.join(top, name) if name else top
        facts = os.lstat(path)
        if stat.S_IFMT(facts.st_mode) not in _INDEX_KINDS:
            continue  # links have no mode, whiteouts need none
        mode = modes.setdefault((facts.st_dev, facts.st_ino), stat.S_IMODE(facts.st_mode))
        if mode != _open_mode(mode, facts.st_mode):
            os.chmod(path, _open_mode(mode, facts.st_mode))
        yield name, facts
        if stat.S_ISDIR(facts.st_mode):
            waiting += [name + b"/" + below if name else below for below in os.listdir(path)]


def _open_mode(mode: int, kind: int) -> int:
    """`mode` with reading for all, searching and starting for all where anybody may, and no setuid."""
    runs = 0o111 if stat.S_ISDIR(kind) or mode & 0o111 else 0
    return (mode | 0o444 | runs) & 0o1777
