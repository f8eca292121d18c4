"""`volume create`, `ls`, `rm` and `prune` (`volume inspect` is with the other inspects)."""

from __future__ import annotations

import sys

from duckweed.cli import render
from duckweed.cli.failure import each
from duckweed.cli.parse import BOOL, FILTER, LIST, MAP, STRING, Call, Flag, Refused, filters_of, verb
from duckweed.cli.prompt import is_confirmed
from duckweed.cli.rows import pairs, show
from duckweed.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADERS = {
    "Availability": "AVAILABILITY",
    "Driver": "DRIVER",
    "Group": "GROUP",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Size": "SIZE",
    "Status": "STATUS",
}
_COLUMNS = ("Driver", "Name")
_RAW = (("name", "Name"), ("driver", "Driver"))


@verb(
    "volume create",
    "[OPTIONS] [VOLUME]",
    flags=(
        Flag("driver", "d", STRING, "Volume driver (default local, the only one)"),
        Flag("label", "", LIST, "Set a label (NAME=VALUE)"),
        Flag("name", "", STRING, "Name of the volume", hidden=True),
        Flag("opt", "o", MAP, "Option of the driver (NAME=VALUE)"),
    ),
    at_most=1,
)
def create(call: Call) -> int:
    """Make a volume

    Without a name it gets a random one, which is printed.
    """
    name = call.get("name")
    if call.arguments:
        if name:
            raise Refused(
                "conflicting options: the volume is named by --name and by an argument",
            )
        name = call.arguments[0]
    volume = call.engine.volumes.create(
        name or None,
        driver=call.get("driver", "local"),
        labels=pairs(call.get("label", ())),
        opts=pairs(call.get("opt", ())),
    )
    sys.stdout.write(f"{volume.name}\n")
    return 0


@verb(
    "volume ls",
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", FILTER, "Only volumes that match (dangling=, driver=, label=, name=)"),
        Flag("format", "", STRING, "table, table TEMPLATE, json, raw or a Go template"),
        Flag("quiet", "q", BOOL, "Show names only"),
    ),
    at_most=0,
)
def ls(call: Call) -> int:
    """List volumes"""
    volumes = call.engine.volumes.list(filters_of(call) or None)
    template = call.get("format", "")
    if call.get("quiet") and not template:
        sys.stdout.write("".join(f"{volume.name}\n" for volume in volumes))
        return 0
    rows = [row(volume.attrs) for volume in volumes]
    show(rows, template, HEADERS, _COLUMNS, _RAW)
    return 0


def row(attrs: dict[str, Any]) -> dict[str, Any]:
    """The fields of one volume as `--format` knows them."""
    labels = attrs.get("Labels") or {}
    return {
        "Availability": "N/A",
        "Driver": attrs["Driver"],
        "Group": "N/A",
        "LabelMap": labels,
        "Labels": render.labels_text(labels),
        "Links": "N/A",
        "Mountpoint": attrs["Mountpoint"],
        "Name": attrs["Name"],
        "Scope": attrs["Scope"],
        "Size": "N/A",
        "Status": "N/A",
    }


@verb(
    "volume rm",
    "[OPTIONS] VOLUME [VOLUME...]",
    flags=(Flag("force", "f", BOOL, "Forgive missing volumes"),),
    at_least=1,
    completes="volume",
)
def rm(call: Call) -> int:
    """Remove volumes that no container uses"""

    def remove_one(name: str) -> str:
        call.engine.volumes.remove(name, force=call.get("force", False))
        return name

    return each(call.arguments, remove_one)


@verb(
    "volume prune",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Remove all unused volumes, not only anonymous ones"),
        Flag("filter", "", FILTER, "Only volumes that match (label=NAME[=VALUE])"),
        Flag("force", "f", BOOL, "Do not ask"),
    ),
    at_most=0,
)
def prune(call: Call) -> int:
    """Remove unused volumes"""
    every = call.get("all", False)
    what = "all local volumes" if every else "anonymous local volumes"
    if not is_confirmed(call, f"This will remove {what} not used by at least one container."):
        return 0
    report = call.engine.volumes.prune(all=every, filters=filters_of(call) or None)
    if report["VolumesDeleted"]:
        sys.stdout.write(
            "Deleted Volumes:\n" + "".join(f"{name}\n" for name in report["VolumesDeleted"]) + "\n"
        )
    sys.stdout.write(f"Total reclaimed space: {human_size(report['SpaceReclaimed'])}\n")
    return 0
