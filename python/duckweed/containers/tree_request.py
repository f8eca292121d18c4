"""What a container's files are made of, as a request to the layer code (docs/contracts.md §8).

An overlay's upperdir is the changes by itself; a whole copy is compared with the layers it was made of; the
`host` image has one upperdir for each directory at the top of the machine.
"""

from __future__ import annotations

import json
import os

from duckweed.errors import NoSuchContainer
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.containers.container import Container


def of_changes(container: Container) -> dict[str, Any]:
    """What the container has changed."""
    document = container.document
    if document["rootfs"] == "copy":
        return {"kind": "copy", "tree": f"{container.written}/rootfs", **_common(container)}
    request = {"kind": "upper", "tree": f"{container.written}/upper", **_common(container)}
    return {**request, "lower": ["/"]} if document["rootfs"] == "host" else request


def of_everything(container: Container) -> dict[str, Any]:
    """All files of the container, its mounts left out."""
    common = _common(container)
    if container.document["rootfs"] == "copy":
        return {"kind": "whole", "tree": f"{container.written}/rootfs", **common}
    lower = common.pop("lower")
    return {"kind": "merged", "trees": [f"{container.written}/upper", *lower], **common}


def _common(container: Container) -> dict[str, Any]:
    document = container.document
    return {
        # Where root is emulated, there is a memory of owners.
        "memory": container.directory if _is_emulated(_spec(container)) else None,
        # The directories that images lack (proc, dev ...) are no change of the container.
        "lower": [*(document.get("lower") or ()), container.engine.layout.mountpoints],
        "owners": "disk" if document.get("idmap") == "full" else "root",
    }


def maps_of(container: Container) -> tuple[str, str]:
    """The id maps that own the container's files, as the runtime takes them. Raises NoSuchContainer."""
    spec = _spec(container)

    def text(lines: list[dict[str, int]]) -> str:
        return ",".join(f"{line['containerID']}:{line['hostID']}:{line['size']}" for line in lines)

    return text(spec["linux"]["uidMappings"]), text(spec["linux"]["gidMappings"])


def _spec(container: Container) -> dict[str, Any]:
    spec = scratch.read_json(f"{container.directory}/config.json")
    if spec is None:
        raise NoSuchContainer(f"No such container: {container.short_id}")
    return spec


def _is_emulated(spec: dict[str, Any]) -> bool:
    annotation = json.loads((spec.get("annotations") or {}).get("io.duckweed.container") or "{}")
    return bool(annotation.get("root_emulation", "off") != "off")


def is_filled(container: Container) -> bool:
    """Whether there are files yet: a whole copy is made at the first start."""
    return container.document["rootfs"] != "copy" or os.path.exists(f"{container.written}/rootfs.ready")
