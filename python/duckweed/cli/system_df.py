"""`system df`: what takes room on the disk, and how much of it could be had back."""

from __future__ import annotations

import sys

from duckweed.cli import render
from duckweed.cli.parse import BOOL, STRING, Call, Flag, verb
from duckweed.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

HEADERS = {
    "Active": "ACTIVE",
    "Reclaimable": "RECLAIMABLE",
    "Size": "SIZE",
    "TotalCount": "TOTAL",
    "Type": "TYPE",
}
_COLUMNS = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
_RAW = (
    ("type", "Type"),
    ("total", "TotalCount"),
    ("active", "Active"),
    ("size", "Size"),
    ("reclaimable", "Reclaimable"),
)
_IMAGE_COLUMNS = (
    "Repository",
    "Tag",
    "ID",
    "CreatedSince",
    "Size",
    "SharedSize",
    "UniqueSize",
    "Containers",
)
_CONTAINER_COLUMNS = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
_VOLUME_COLUMNS = ("Name", "Links", "Size")
BUILD_CACHE_HEADERS = ("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED")
_ALIVE = ("running", "paused", "restarting")


@verb(
    "system df",
    "[OPTIONS]",
    flags=(
        Flag("format", "", STRING, "table, table TEMPLATE, json, raw or a Go template"),
        Flag("verbose", "v", BOOL, "Show every image, container and volume"),
    ),
    at_most=0,
)
def system_df(call: Call) -> int:
    """Show what images, containers and volumes take on the disk

    Of an image its trees count and, beside them, the compressed layers kept for save and push.
    """
    report = call.engine.df()
    template = call.get("format", "")
    if call.get("verbose"):
        _show_all(report, template)
        return 0
    rows = summary_rows(report)
    if template in ("", "table"):
        sys.stdout.write(_table([HEADERS[name] for name in _COLUMNS], _COLUMNS, rows))
        return 0
    from duckweed.cli.format import Listing, show_rows

    show_rows(Listing(HEADERS, _COLUMNS, _RAW), rows, template)
    return 0


def summary_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The four lines of `system df`."""
    images, containers, volumes = report["Images"], report["Containers"], report["Volumes"]
    dead = [row for row in containers if row["State"] not in _ALIVE]
    unused = [row for row in volumes if not row["UsageData"]["RefCount"]]
    return [
        _line(
            "Images",
            len(images),
            sum(1 for row in images if row["Containers"]),
            report["LayersSize"],
            report["ImagesReclaimable"],
        ),
        _line(
            "Containers",
            len(containers),
            len(containers) - len(dead),
            sum(row["SizeRw"] for row in containers),
            sum(row["SizeRw"] for row in dead),
        ),
        _line(
            "Local Volumes",
            len(volumes),
            len(volumes) - len(unused),
            sum(row["UsageData"]["Size"] for row in volumes),
            sum(row["UsageData"]["Size"] for row in unused),
        ),
        _line(
            "Build Cache",
            len(report["BuildCache"]),
            sum(row["Shared"] for row in report["BuildCache"]),
            report["BuilderSize"],
            report["BuilderSize"],
        ),
    ]


def _line(kind: str, count: int, active: int, size: int, reclaimable: int) -> dict[str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size > 0 and kind != "Build Cache" else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": human_size(reclaimable) + share,
    }


def _show_all(report: Mapping[str, Any], template: str) -> None:
    from duckweed.cli import container_show, image_show, volume

    containers = [container_show.row({**row, "SizeRootFs": 0}) for row in report["Containers"]]
    rows = {
        "Images": [_image_row(row) for row in report["Images"]],
        "Containers": containers,
        "Volumes": [_volume_row(row) for row in report["Volumes"]],
        "BuildCache": report["BuildCache"],
    }
    if template not in ("", "table"):
        from duckweed.cli import format

        plain = {kind: [_without_labels(row) for row in rows[kind]] for kind in rows}
        sys.stdout.write(format.document(template, plain) + "\n")
        return
    parts = (
        ("Images", image_show.IMAGE_HEADERS, _IMAGE_COLUMNS, rows["Images"]),
        ("Containers", container_show.HEADERS, _CONTAINER_COLUMNS, containers),
        ("Local Volumes", volume.HEADERS, _VOLUME_COLUMNS, rows["Volumes"]),
    )
    for title, headers, columns, lines in parts:
        table = _table([headers[name] for name in columns], columns, lines)
        sys.stdout.write(f"{title} space usage:\n\n{table}\n")
    sys.stdout.write(f"Build cache usage: {human_size(report['BuilderSize'])}\n\n")
    sys.stdout.write(render.table(BUILD_CACHE_HEADERS, [cache_cells(row) for row in report["BuildCache"]]))


def cache_cells(row: Mapping[str, Any]) -> list[str]:
    """One line about an entry of the build cache."""
    return [
        row["ID"][:12],
        row["Type"],
        human_size(row["Size"]),
        render.ago(row["CreatedAt"]),
        render.ago(row["LastUsedAt"]),
        str(row["UsageCount"]),
        str(row["Shared"]).lower(),
    ]


def _table(headers: Sequence[str], columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    return render.table(headers, [[row[name] for name in columns] for row in rows])


def _image_row(summary: Mapping[str, Any]) -> dict[str, Any]:
    """An image has one line here, under the first of its names."""
    from duckweed.cli.image_show import image_rows

    row = next(image_rows(dict(summary)))
    row.update(
        Containers=str(summary["Containers"]),
        SharedSize=human_size(summary["SharedSize"]),
        UniqueSize=human_size(summary["Size"] - summary["SharedSize"]),
    )
    return row


def _volume_row(attrs: Mapping[str, Any]) -> dict[str, Any]:
    from duckweed.cli.volume import row

    usage = attrs["UsageData"]
    return {**row(dict(attrs)), "Links": str(usage["RefCount"]), "Size": human_size(usage["Size"])}


def _without_labels(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in sorted(row) if name != "LabelMap"}
