"""From mounts wanted to mount points: volumes found or made, bind sources checked, the image's VOLUMEs added.

A mount point is a dict in the shape of `docker inspect`'s Mounts, with three keys of our own that `spec`
needs: IsDirectory, Recursive and Options. They are kept in container.json as they are.
"""

from __future__ import annotations

import os

from duckweed.containers.mounts import Mount, check_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from duckweed.store.volumes import VolumeStore

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


def wanted_mounts(mounts: list[Mount], image_volumes: Iterable[str]) -> list[Mount]:
    """The user's mounts, and an anonymous volume for each VOLUME of the image that none of them covers."""
    taken = {mount.target for mount in mounts}
    result = list(mounts)
    for path in sorted(image_volumes):
        target = os.path.normpath("/" + path.lstrip("/"))
        if target != "/" and target not in taken:
            taken.add(target)
            result.append(Mount("volume", "", target))
    return result


def resolve(mounts: Iterable[Mount], volumes: VolumeStore) -> list[dict[str, Any]]:
    """The mount points of `mounts`. Makes volumes (and the missing sources of `-v`); raises UsageError."""
    return [_RESOLVERS[mount.kind](mount, volumes) for mount in mounts]


def _bind(mount: Mount, volumes: VolumeStore) -> dict[str, Any]:
    check_source(mount)
    return _point(mount, mount.source, is_directory=os.path.isdir(mount.source))


def _volume(mount: Mount, volumes: VolumeStore) -> dict[str, Any]:
    if mount.source:
        volume = volumes.create(mount.source, labels=mount.labels or None)
    else:
        volume = volumes.create(None, labels={ANONYMOUS_LABEL: "", **mount.labels})
    point = _point(mount, volume.mountpoint, is_directory=True)
    point["Name"] = volume.name
    point["Driver"] = "local"
    point["Anonymous"] = not mount.source
    point["NoCopy"] = mount.nocopy
    return point


def _tmpfs(mount: Mount, volumes: VolumeStore) -> dict[str, Any]:
    return _point(mount, "", is_directory=True)


_RESOLVERS = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs}


def _point(mount: Mount, source: str, *, is_directory: bool) -> dict[str, Any]:
    return {
        "Type": mount.kind,
        "Source": source,
        "Destination": mount.target,
        "Mode": mount.mode,
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if mount.kind == "bind" else ""),
        "IsDirectory": is_directory,
        "Recursive": mount.recursive,
        "Options": mount.options,
    }


def shown(point: Mapping[str, Any]) -> dict[str, Any]:
    """The point as `docker inspect` shows it."""
    keys = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")
    return {key: point[key] for key in keys if key in point}


def is_empty_directory(path: str) -> bool:
    """Whether nothing is in `path`; False when it cannot be read."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return False
