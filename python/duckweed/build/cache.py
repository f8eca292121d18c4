"""The build cache: which key led to which layer, and the directories of `RUN --mount=type=cache`.

`build/keys/<key>.json` has the layer's chain id and diff id, and its mtime is the last use. The layer itself
is in the store like any other; a record here refers to it, as an image does (docs/contracts.md §2).
"""

from __future__ import annotations

import os

from duckweed.oci import timestamp
from duckweed.oci.digest import is_digest
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from duckweed.build.cache_places import Record
    from duckweed.store.layers import LayerStore
    from duckweed.store.layout import Layout


class CachedLayer:
    """What a step made: `chain_id`, `diff_id`, `created` (RFC 3339). `parent` is the chain id below, and
    `same_as` the exact key where the layer was found by a cheaper one.
    """

    __slots__ = ("chain_id", "created", "description", "diff_id", "kind", "parent", "same_as", "size")

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.chain_id: str = record["chain"]
        self.diff_id: str = record["diff_id"]
        self.created = str(record.get("created"))
        self.parent = str(record.get("parent") or "")
        self.kind = str(record.get("kind") or "regular")
        self.description = str(record.get("description") or "")
        size = record.get("size")
        self.size = size if isinstance(size, int) else 0
        self.same_as = str(record.get("same_as") or "")


class BuildCache:
    """The keys below one root."""

    __slots__ = ("_flavour", "_layers", "_layout", "path")

    def __init__(self, layout: Layout, layers: LayerStore, flavour: str) -> None:
        self._layout = layout
        self._flavour = flavour
        self._layers = layers
        self.path = layout.build + "/keys"

    def look_up(self, key: str) -> CachedLayer | None:
        """The layer that a key led to, if it is in the store in any flavour, or can be made from its blob."""
        path = f"{self.path}/{key}.json"
        record = scratch.read_json(path)
        if record is None or not is_digest(record.get("chain")) or not is_digest(record.get("diff_id")):
            return None
        chain_id = record["chain"]
        if not self._layers.exists(chain_id, self._flavour) and not self._layers.flavours(chain_id):
            return None
        try:
            os.utime(path)
        except OSError:
            pass  # a read-only store: when it was last used is not kept
        return CachedLayer(record)

    def also(self, key: str, other: str) -> None:
        """Lets a second key lead to what another leads to."""
        record = scratch.read_json(f"{self.path}/{other}.json")
        if record is not None:
            same = record.get("same_as") or other
            scratch.write_json(self._layout, f"{self.path}/{key}.json", {**record, "same_as": same})

    def remember(
        self, key: str, chain_id: str, diff_id: str, parent: str, kind: str, description: str, size: int
    ) -> CachedLayer:
        """Records what a key led to; `size` are the bytes of the layer's tar."""
        record = {
            "chain": chain_id,
            "diff_id": diff_id,
            "parent": parent,
            "created": timestamp.now(),
            "kind": kind,
            "size": size,
            "description": description[:500].encode("utf-8", "replace").decode(),
        }
        self._write(key, record)
        return CachedLayer(record)

    def put(self, key: str, found: Record) -> None:
        """Records what a key of another cache led to; its layer is in the store."""
        record = {
            "chain": found.chain_id,
            "diff_id": found.diff_id,
            "parent": found.parent,
            "created": found.created,
            "kind": found.kind,
            "size": found.size,
            "description": found.description[:500],
        }
        exact = found.keys[-1]
        self._write(key, record if key == exact else {**record, "same_as": exact})

    def _write(self, key: str, record: dict[str, Any]) -> None:
        os.makedirs(self.path, exist_ok=True)
        scratch.write_json(self._layout, f"{self.path}/{key}.json", record)
