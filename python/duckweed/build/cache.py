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
    from duckweed.store.layers import LayerStore
    from duckweed.store.layout import Layout


class CachedLayer:
    """What a step made: `chain_id`, `diff_id`, `created` (RFC 3339)."""

    __slots__ = ("chain_id", "created", "diff_id")

    def __init__(self, chain_id: str, diff_id: str, created: str) -> None:
        self.chain_id = chain_id
        self.diff_id = diff_id
        self.created = created


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
        return CachedLayer(record["chain"], record["diff_id"], str(record.get("created")))

    def also(self, key: str, other: str) -> None:
        """Lets a second key lead to what another leads to."""
        record = scratch.read_json(f"{self.path}/{other}.json")
        if record is not None:
            scratch.write_json(self._layout, f"{self.path}/{key}.json", {**record, "same_as": other})

    def remember(
        self, key: str, chain_id: str, diff_id: str, parent: str, kind: str, description: str, size: int
    ) -> CachedLayer:
        """Records what a key led to; `size` are the bytes of the layer's tar."""
        created = timestamp.now()
        os.makedirs(self.path, exist_ok=True)
        record = {
            "chain": chain_id,
            "diff_id": diff_id,
            "parent": parent,
            "created": created,
            "kind": kind,
            "size": size,
            "description": description[:500].encode("utf-8", "replace").decode(),
        }
        scratch.write_json(self._layout, f"{self.path}/{key}.json", record)
        return CachedLayer(chain_id, diff_id, created)
