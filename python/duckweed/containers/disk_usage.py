"""What the store takes on disk, in the shape of docker's /system/df."""

from __future__ import annotations

import os

from duckweed.errors import DuckweedError
from duckweed.store.usage import ImagesUsage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.engine import Engine


def disk_usage(engine: Engine) -> dict[str, Any]:
    """`{"LayersSize", "ImagesReclaimable", "Images", "Containers", "Volumes", "BuildCache"}`."""
    images = ImagesUsage(engine.images)
    return {
        "LayersSize": images.total,
        "ImagesReclaimable": images.reclaimable,
        "Images": sorted(images.rows, key=lambda row: row["Created"], reverse=True),
        "Containers": _containers(engine),
        "Volumes": _volumes(engine),
        **_builds(engine),
    }


def _builds(engine: Engine) -> dict[str, Any]:
    if not os.path.isdir(engine.layout.build):
        return {"BuildCache": [], "BuilderSize": 0}
    from duckweed.build.pruning import usage

    return usage(engine)


def _containers(engine: Engine) -> list[dict[str, Any]]:
    rows = []
    for container in engine.containers.list(all=True):
        try:
            rows.append({**container.summary, **container.size()})
        except DuckweedError:
            continue  # went away meanwhile
    return rows


def _volumes(engine: Engine) -> list[dict[str, Any]]:
    users = engine.volumes.users()
    return [
        {
            **volume.attrs,
            "UsageData": {
                "Size": engine.volumes.size(volume.name),
                "RefCount": len(users.get(volume.name, ())),
            },
        }
        for volume in engine.volumes.list()
    ]
