"""`diff`: what a container has added, changed and deleted, as Docker lists it."""

from __future__ import annotations

import os

from duckweed.containers import tree_request
from duckweed.store import tree_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.containers.container import Container

# Docker's API has numbers for the kinds.
_KINDS = {"C": 0, "A": 1, "D": 2}
LETTERS = {number: letter for letter, number in _KINDS.items()}


def changes(container: Container) -> list[dict[str, Any]]:
    """`[{"Path", "Kind"}]` sorted by path; kinds are 0 changed, 1 added, 2 deleted. Raises StoreError."""
    if not tree_request.is_filled(container):
        return []
    found = tree_stream.changes(tree_request.of_changes(container), tree_request.maps_of(container))
    if container.document["rootfs"] == "host":
        found = _without_tops(found)
    return [{"Path": "/" + os.fsdecode(path), "Kind": _KINDS[kind]} for kind, path in found]


def _without_tops(found: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The runtime makes an upperdir for each directory of the machine, changed or not."""
    busy = {path.partition(b"/")[0] for _, path in found if b"/" in path}
    return [(kind, path) for kind, path in found if b"/" in path or path in busy or kind != "C"]
