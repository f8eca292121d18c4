"""Who refers to what, and the removal of what nobody refers to.

Images refer to blobs and layers, containers and the build cache to layers. No count is kept: it is found by
walking, and always twice. First what seems unused is taken away by rename; then everybody is asked again;
then it is deleted, or put back. Whoever makes a reference does the opposite, writing it first and looking for
its object after, so one of the two always sees the other.
"""

from __future__ import annotations

import os

from duckweed.oci.config import diff_ids
from duckweed.oci.digest import chain_ids, is_digest
from duckweed.store import build_records, scratch
from duckweed.store.layers import flavour_on_disk
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from duckweed.store.layout import Layout

_LOOKS = 3


class Live:
    """What is referred to: `blobs` (digests), `chains` (hex, all flavours), `layers` (`<chain
    hex>.<flavour>`).
    """

    __slots__ = ("blobs", "chains", "layers")

    def __init__(self) -> None:
        self.blobs: set[str] = set()
        self.chains: set[str] = set()
        self.layers: set[str] = set()

    def needs(self, name: str) -> bool:
        """Whether a blob (64 hex digits) or a layer (`<chain hex>.<flavour>`) is referred to."""
        chain, dot, _ = name.partition(".")
        if not dot:
            return "sha256:" + name in self.blobs
        return chain in self.chains or name in self.layers


def walk(
    layout: Layout, is_counted: Callable[[str], bool] = lambda config: True, *, with_builds: bool = True
) -> Live:
    """Everything that containers, builds, and those images whose config `is_counted`, refer to now."""
    live = Live()
    seen: set[tuple[str, str]] = set()
    for entry in scratch.list_directory(layout.images):
        record = scratch.read_json(f"{layout.images}/{entry}") if entry.endswith(".json") else None
        if not record or not is_digest(record.get("config")) or not is_digest(record.get("manifest")):
            continue
        if is_counted(record["config"]):
            seen.add((record["manifest"], record["config"]))
    for manifest, config in seen:
        _add_image(layout, live, manifest, config)
    for container_id in scratch.list_directory(layout.containers):
        record = scratch.read_json(f"{layout.containers}/{container_id}/container.json")
        live.layers.update(name for name in (record or {}).get("layers") or () if isinstance(name, str))
    if with_builds:
        chains, blobs = build_records.live_layers(layout)
        live.chains |= chains
        live.blobs |= blobs
    return live


def _add_image(layout: Layout, live: Live, manifest: str, config: str) -> None:
    live.blobs.update((manifest, config))
    for layer in document(layout, manifest).get("layers") or ():
        live.blobs.add(layer["digest"])
    live.chains.update(chain[7:] for chain in chain_ids(diff_ids(document(layout, config))))


def document(layout: Layout, digest: str) -> dict[str, Any]:
    """A manifest or config, also when a remover has just taken it away and will put it back; else empty.

    Without that look, what this document refers to would seem unused to a second remover.
    """
    for _ in range(_LOOKS):
        found = scratch.read_json(layout.blob(digest))
        if found is not None:
            return found
        for entry in scratch.list_directory(layout.tmp):
            if "-gone-" in entry:
                found = scratch.read_json(f"{layout.tmp}/{entry}/{digest[7:]}")
                if found is not None:
                    return found
    return {}


def collect(layout: Layout, names: Iterable[str]) -> tuple[list[str], int]:
    """Removes those of `names` (as `Live.needs` takes them) that nobody refers to: the ones removed, and
    their bytes.
    """
    live = walk(layout)
    doomed = [name for name in names if not live.needs(name)]
    if not doomed:
        return [], 0
    removed, reclaimed = [], 0
    # Layers may be on another file system than blobs, and a rename ends there. Layers last: what needs one
    # is read in blobs.
    for kind in (False, True):
        mine = [name for name in doomed if ("." in name) == kind]
        if mine:
            names_gone, bytes_gone = _collect_one_kind(layout, mine, layout.tree_tmp if kind else layout.tmp)
            removed += names_gone
            reclaimed += bytes_gone
    return removed, reclaimed


def _collect_one_kind(layout: Layout, doomed: list[str], top: str) -> tuple[list[str], int]:
    gone = scratch.new_directory(layout, "gone", top)
    for name in doomed:
        try:
            os.rename(final(layout, name), f"{gone}/{name}")
        except OSError:
            pass  # another remover was first
    return finish(layout, gone)


def finish(layout: Layout, gone: str) -> tuple[list[str], int]:
    """The second half of `collect`, also run for a remover that died between: puts back what is needed,
    deletes the rest.
    """
    live = walk(layout)
    removed, reclaimed = [], 0
    # Blobs first: what needs a layer is read in them.
    for name in sorted(scratch.list_directory(gone), key=lambda name: "." in name):
        path = f"{gone}/{name}"
        if live.needs(name):
            try:
                os.rename(path, final(layout, name))
                continue
            except OSError:
                pass  # somebody made it again meanwhile
        else:
            removed.append(name)
            reclaimed += size(path)
        remove_tree(path, flavour_on_disk(path))
    remove_tree(gone)
    return removed, reclaimed


def final(layout: Layout, name: str) -> str:
    """Where a blob or layer of this name is."""
    return f"{layout.layers if '.' in name else layout.blobs}/{name}"


def size(path: str) -> int:
    """Bytes of a blob, or of the tar that a layer was."""
    if os.path.isdir(path):
        tar_size = (scratch.read_json(path + "/layer.json") or {}).get("size")
        return tar_size if isinstance(tar_size, int) else 0
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def everything(layout: Layout) -> list[str]:
    """The names of all blobs and layers, for `collect`."""
    return scratch.list_directory(layout.blobs) + scratch.list_directory(layout.layers)
