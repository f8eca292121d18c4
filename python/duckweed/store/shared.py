"""Read-only stores of others (`DUCKWEED_READ_STORES`): what the own store lacks is looked for there.

Many users may read one such store at once. Nothing is ever written or removed in it, and its keeper cannot
know who uses it. Its files belong to the keeper, whose id means nothing in a container of ours: the kernel
lets such a file be read by its `other` bits, replaced and deleted, but not changed in place, and a directory
not even be filled. So layers are shared in a flavour of their own (`sharing`), and a thin layer of our own
covers them (`cover`).

A read store is trusted as far as the programs in it are: whoever keeps it may change what is run from it.
"""

from __future__ import annotations

import os
import stat

from duckweed.errors import DuckweedError
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

FLAVOUR = "shared"
"""The flavour of layers that are made to be read by everybody: no setuid bits, all files readable."""


def read_json(path: str) -> dict[str, Any] | None:
    """A document of somebody else; None when it is not there, not ours to read, or no JSON object."""
    try:
        return scratch.read_json(path)
    except DuckweedError:
        return None


def list_directory(path: str) -> list[str]:
    """The entries of a directory of somebody else; none when it cannot be read."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def find_blob(layout: Layout, digest: str) -> str:
    """The path of a blob: in the own store, else in the first read store that has it, else the own path."""
    own = layout.blob(digest)
    if layout.read_stores and not os.path.exists(own):
        for root in layout.read_stores:
            path = f"{root}/blobs/sha256/{digest[7:]}"
            if os.access(path, os.R_OK):
                return path
    return own


def find_layer(layout: Layout, chain_id: str, flavour: str) -> str | None:
    """The directory of a layer in a flavour that fits: the own store's, else a read store's; None without."""
    own = layout.layer(chain_id, flavour)
    if os.path.isdir(own):
        return own
    for root in layout.read_stores:
        for name in (flavour, FLAVOUR, "single"):
            path = f"{root}/layers/{chain_id[7:]}.{name}"
            if _is_usable(path):
                return path
    return None


def _is_usable(path: str) -> bool:
    """Whether there is a tree that we may read; a link to somewhere else is none."""
    try:
        facts = (os.lstat(path), os.lstat(path + "/fs"))
    except OSError:
        return False
    is_open = os.access(path + "/fs", os.R_OK | os.X_OK) and os.access(path + "/index.json", os.R_OK)
    return is_open and all(stat.S_ISDIR(each.st_mode) for each in facts)


def _is_foreign(directory: str) -> bool:
    """Whether this layer's files belong to another user."""
    try:
        return os.stat(directory).st_uid != os.geteuid()
    except OSError:
        return False


def directories(layout: Layout, chain: list[str], flavour: Flavour) -> list[str]:
    """The directories of an image's layers, topmost first, with the cover of those of others where it is
    needed and there. `chain` is bottom first; a layer that is nowhere has the path that it would have here.
    """
    found = [
        find_layer(layout, chain_id, flavour.name) or layout.layer(chain_id, flavour.name)
        for chain_id in reversed(chain)
    ]
    at = _topmost_foreign(found)
    if at is not None:
        from duckweed.store import cover

        path = f"{layout.layers}/{cover.name_of(chain[-1 - at], flavour.name)}"
        if os.path.isdir(path):
            found.insert(at, path)
    return found


def _topmost_foreign(found: Sequence[str]) -> int | None:
    """Where the first layer of somebody else is; layers of our own may lie on it."""
    return next((at for at, directory in enumerate(found) if _is_foreign(directory)), None)


def prepare(layout: Layout, chain: list[str], flavour: Flavour) -> bool:
    """Sees to it that an image can be run from read-only stores, making its cover; false when a layer is
    nowhere in a flavour that fits. Raises StoreError.
    """
    found = [find_layer(layout, chain_id, flavour.name) for chain_id in reversed(chain)]
    whole = [directory for directory in found if directory is not None]
    if len(whole) < len(chain):
        return False
    at = _topmost_foreign(whole)
    if at is not None:
        from duckweed.store import cover

        name = cover.name_of(chain[-1 - at], flavour.name)
        if not os.path.isdir(f"{layout.layers}/{name}"):
            cover.make(layout, name, whole[at:], flavour)
    return True


def layer_record(layout: Layout, chain_id: str, flavour: str) -> dict[str, Any] | None:
    """layer.json of this chain id in the read stores; blob, size and diff id are the same in all flavours."""
    for root in layout.read_stores:
        for name in (flavour, FLAVOUR, "single"):
            record = read_json(f"{root}/layers/{chain_id[7:]}.{name}/layer.json")
            if record is not None:
                return record
    return None
