"""What builds refer to in the store: the layers of the build cache, and those that a running build stands on.

`build/keys/<key>.json` and `build/leases/<owner>-<random>.json` name layers by their chain ids
(docs/contracts.md §2). A lease whose owner is dead means nothing and is removed by whoever sees it.
"""

from __future__ import annotations

import os

from duckweed.oci.digest import is_digest
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from duckweed.store.layout import Layout


def records(layout: Layout) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Every key of the build cache, its record, and when it was used last (seconds since 1970)."""
    directory = layout.build + "/keys"
    for entry in scratch.list_directory(directory):
        path = f"{directory}/{entry}"
        record = scratch.read_json(path) if entry.endswith(".json") else None
        if record is None or not is_digest(record.get("chain")):
            continue
        try:
            used = os.stat(path).st_mtime
        except OSError:
            continue
        yield entry[:-5], record, used


def leased(layout: Layout) -> set[str]:
    """The chain ids that living builds stand on."""
    found: set[str] = set()
    directory = f"{layout.build}/leases"
    for entry in scratch.list_directory(directory):
        if scratch.is_stale(entry):
            scratch.discard_file(f"{directory}/{entry}")
            continue
        chains = (scratch.read_json(f"{directory}/{entry}") or {}).get("chains")
        found.update(chain for chain in chains or () if is_digest(chain))
    return found


def live_layers(layout: Layout) -> tuple[set[str], set[str]]:
    """The layers that builds refer to: their chain ids in hex, and the digests of their blobs."""
    if not os.path.isdir(layout.build):
        return set(), set()
    chains = {record["chain"][7:] for _, record, _ in records(layout)}
    chains |= {chain[7:] for chain in leased(layout)}
    blobs: set[str] = set()
    if chains:
        for entry in scratch.list_directory(layout.layers):
            if entry.partition(".")[0] in chains:
                blob = (scratch.read_json(f"{layout.layers}/{entry}/layer.json") or {}).get("blob")
                if is_digest(blob):
                    blobs.add(str(blob))
    return chains, blobs
