"""`system prune`: everything that nothing uses, in one go."""

from __future__ import annotations

import sys

from duckweed.cli.image import deleted_images
from duckweed.cli.parse import BOOL, FILTER, Call, Flag, Refused, filters_of, verb
from duckweed.cli.prompt import is_confirmed
from duckweed.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


@verb(
    "system prune",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Remove all images that no container uses, not only untagged ones"),
        Flag("filter", "", FILTER, "Only what matches (until=TIME, label=NAME[=VALUE])"),
        Flag("force", "f", BOOL, "Do not ask"),
        Flag("volumes", "", BOOL, "Remove unused anonymous volumes too"),
    ),
    at_most=0,
)
def system_prune(call: Call) -> int:
    """Remove stopped containers and unused images"""
    every, volumes = call.get("all", False), call.get("volumes", False)
    filters = filters_of(call) or None
    if volumes and "until" in (filters or {}):
        # Docker's words, and before anything is removed: volumes have no such time.
        raise Refused('ERROR: The "until" filter is not supported with "--volumes"')
    images = (
        "all images without at least one container associated to them" if every else "all dangling images"
    )
    going = ["all stopped containers", images, "unused build cache"]
    if volumes:
        going.append("all anonymous volumes not used by at least one container")
    warning = "This will remove:\n" + "".join(f"  - {what}\n" for what in going)
    if filters:
        shown = sorted(f"{name}={value}" for name in filters for value in filters[name])
        warning += "\n  Items to be pruned will be filtered with:\n"
        warning += "".join(f"  - {text}\n" for text in shown)
    if not is_confirmed(call, warning):
        return 0
    report = call.engine.containers.prune(filters)
    freed = report["SpaceReclaimed"]
    _tell("Deleted Containers", report["ContainersDeleted"])
    if volumes:
        report = call.engine.volumes.prune(filters=filters)
        freed += report["SpaceReclaimed"]
        _tell("Deleted Volumes", report["VolumesDeleted"])
    report = call.engine.images.prune(all=every, filters=filters)
    freed += report["SpaceReclaimed"]
    _tell("Deleted Images", deleted_images(report))
    if "label" not in (filters or {}) and "label!" not in (filters or {}):
        report = call.engine.prune_builds(all=every, filters=_of_builds(filters))
        freed += report["SpaceReclaimed"]
        _tell("Deleted build cache objects", report["CachesDeleted"])
    sys.stdout.write(f"Total reclaimed space: {human_size(freed)}\n")
    return 0


def _of_builds(filters: dict[str, list[str]] | None) -> dict[str, list[str]]:
    """`until` of a duration says the same of the build cache; a date says nothing of it."""
    texts = [text for text in (filters or {}).get("until", ()) if text[-1:] in "smh"]
    return {"until": texts} if texts else {}


def _tell(title: str, names: Iterable[str]) -> None:
    lines = "".join(f"{name}\n" for name in names or ())
    if lines:
        sys.stdout.write(f"{title}:\n{lines}\n")
