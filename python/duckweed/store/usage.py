"""How much room things take: trees on disk, and what images and their layers share.

Trees that containers wrote may hold directories of subordinate ids that this user cannot look into; those
are measured from inside the user namespace that owns them.
"""

from __future__ import annotations

import os

from duckweed.errors import DuckweedError
from duckweed.store import build_records, references, scratch, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore
    from duckweed.store.layers import Flavour


def tree_bytes(path: str, flavour: Callable[[], Flavour | None] = lambda: None) -> int:
    """The sum of the sizes of the files below `path`, hard links counted once; links are not followed.

    `flavour` finds out whose ids own what this user may not read; without it that counts nothing.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    waiting = [path]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except FileNotFoundError:
            continue
        except OSError:
            inside = _bytes_inside(path, flavour())
            if inside is not None:
                return inside
            continue
        with entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif facts.st_nlink == 1 or (facts.st_dev, facts.st_ino) not in seen:
                    seen.add((facts.st_dev, facts.st_ino))
                    total += facts.st_size
    return total


def _bytes_inside(path: str, flavour: Flavour | None) -> int | None:
    if flavour is None or not flavour.uid_map:
        return None
    try:
        return int(within.run(flavour.uid_map, flavour.gid_map, "size", path))
    except (DuckweedError, ValueError):
        return None


def layer_bytes(tree: str) -> int:
    """The size of the layer whose tree is at `tree`, as `images` counts it: bytes of its tar."""
    size = (scratch.read_json(os.path.dirname(tree) + "/layer.json") or {}).get("size")
    return size if isinstance(size, int) else 0


class ImagesUsage:
    """All images together: `total` bytes, how many of them `reclaimable` by `image prune -a`, and `rows`,
    docker's image dicts with `Size`, `SharedSize` and `Containers`.

    Counted is what the store holds of an image: its trees and, beside them, the documents and compressed
    layers that `save` and `push` need. `Size` is therefore more than `images` says.
    """

    __slots__ = ("reclaimable", "rows", "total")

    def __init__(self, store: ImageStore) -> None:
        from duckweed.store import tagging
        from duckweed.store.image_view import container_records

        store = store.own
        names = references.everything(store.layout)
        sizes = {name: references.size(references.final(store.layout, name)) for name in names}
        parts = [(image, tagging.candidates(store, image)) for image in store.all()]
        users: dict[str, int] = {}
        for each in parts:
            for name in each[1]:
                users[name] = users.get(name, 0) + 1
        used_by: dict[str, int] = {}
        for record in container_records(store):
            used_by[str(record.get("ImageID"))] = used_by.get(str(record.get("ImageID")), 0) + 1
        kept = references.walk(store.layout, lambda config: config in used_by)
        self.rows = [_row(store, image, mine, sizes, users, used_by) for image, mine in parts]
        chains, blobs = build_records.live_layers(store.layout)
        of_images = references.walk(store.layout, with_builds=False)
        # What only the build cache has is counted there.
        self.total = sum(
            size
            for name, size in sizes.items()
            if of_images.needs(name)
            or not (name.partition(".")[0] in chains if "." in name else f"sha256:{name}" in blobs)
        )
        self.reclaimable = sum(size for name, size in sizes.items() if not kept.needs(name))


def _row(
    store: ImageStore,
    image: Image,
    names: list[str],
    sizes: dict[str, int],
    users: dict[str, int],
    used_by: dict[str, int],
) -> dict[str, Any]:
    from duckweed.store import image_view

    row = image_view.summary_of(store, image)
    row["Size"] = sum(sizes.get(name, 0) for name in names)
    row["SharedSize"] = sum(sizes.get(name, 0) for name in names if users[name] > 1)
    row["Containers"] = used_by.get(image.id, 0)
    return row
