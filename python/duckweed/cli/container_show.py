"""`ps`, `top` and `port`: what containers are doing."""

from __future__ import annotations

import sys

from duckweed.cli import render
from duckweed.cli.parse import BOOL, FILTER, INT, STRING, Call, Flag, filters_of, verb
from duckweed.cli.units import human_size
from duckweed.errors import DuckweedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from duckweed.containers.container import Container

HEADERS = {
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Names": "NAMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
    "Ports": "PORTS",
    "RunningFor": "CREATED",
    "Size": "SIZE",
    "State": "STATE",
    "Status": "STATUS",
}
_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_RAW = (
    ("container_id", "ID"),
    ("image", "Image"),
    ("command", "Command"),
    ("created_at", "CreatedAt"),
    ("state", "State"),
    ("status", "Status"),
    ("names", "Names"),
    ("labels", "Labels"),
    ("ports", "Ports"),
)
# What Docker cuts these at unless `--no-trunc` is given.
_COMMAND_WIDTH = 20
_MOUNT_WIDTH = 15


@verb(
    "ps",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Show all containers, not only running ones"),
        Flag(
            "filter",
            "f",
            FILTER,
            "Only containers that match (name=, status=, label=, ancestor=, exited= ...)",
        ),
        Flag("format", "", STRING, "table, table TEMPLATE, json, raw or a Go template"),
        Flag("last", "n", INT, "Show the n containers created last, in any state"),
        Flag("latest", "l", BOOL, "Show the container created last, in any state"),
        Flag("no-trunc", "", BOOL, "Do not shorten anything"),
        Flag("quiet", "q", BOOL, "Show ids only"),
        Flag("size", "s", BOOL, "Show the size of what the container wrote"),
    ),
    at_most=0,
)
def ps(call: Call) -> int:
    """List containers"""
    limit = 1 if call.get("latest") else call.get("last", -1)
    containers = call.engine.containers.list(
        all=call.get("all", False) or limit > 0,
        filters=filters_of(call) or None,
        limit=limit if limit > 0 else None,
    )
    full = call.get("no_trunc", False)
    template = call.get("format", "")
    if call.get("quiet"):
        if template:
            sys.stderr.write("WARNING: Ignoring custom format, because both --format and --quiet are set.\n")
        sys.stdout.write("".join(f"{c.id if full else c.id[:12]}\n" for c in containers))
        return 0
    sized = call.get("size", False) or ".Size" in template
    rows = [row(summary, full=full) for summary in _summaries(containers, sized)]
    columns = (*_COLUMNS, "Size") if call.get("size") else _COLUMNS
    if template in ("", "table"):
        cells = [[line[name] for name in columns] for line in rows]
        sys.stdout.write(render.table([HEADERS[name] for name in columns], cells))
        return 0
    from duckweed.cli.format import Listing, show_rows

    raw = (*_RAW, ("size", "Size")) if call.get("size") else _RAW
    show_rows(Listing(HEADERS, columns, raw), rows, template)
    return 0


def _summaries(containers: Iterable[Container], sized: bool) -> Iterable[dict[str, Any]]:
    """The summaries of those containers that are still there when their turn comes."""
    from duckweed.errors import NoSuchContainer

    for container in containers:
        try:
            summary = container.summary
            if sized:
                summary = {**summary, **container.size()}
        except NoSuchContainer:
            continue
        yield summary


def row(summary: dict[str, Any], *, full: bool = False) -> dict[str, Any]:
    """The fields of one container as `--format` knows them; `full` shortens nothing."""
    image, image_id = summary["Image"] or "<no image>", summary.get("ImageID", "")
    if not full and image.startswith("sha256:") and image == image_id:
        image = render.short_id(image)
    mounts = summary.get("Mounts") or ()
    names = [mount.get("Name") or mount.get("Source", "") for mount in mounts]
    labels = summary.get("Labels") or {}
    return {
        "Command": render.quoted(
            summary["Command"] if full else render.shorten(summary["Command"], _COMMAND_WIDTH)
        ),
        "CreatedAt": render.local_time(summary["Created"]),
        "ID": summary["Id"] if full else summary["Id"][:12],
        "Image": image,
        "LabelMap": labels,
        "Labels": render.labels_text(labels),
        "LocalVolumes": str(sum(1 for mount in mounts if mount.get("Type") == "volume")),
        "Mounts": ",".join(names if full else [render.shorten(name, _MOUNT_WIDTH) for name in names]),
        "Names": ",".join(name.lstrip("/") for name in summary["Names"]),
        "Networks": ",".join(sorted((summary.get("NetworkSettings") or {}).get("Networks") or {})),
        "Platform": None,
        "Ports": _ports(summary.get("Ports") or ()),
        "RunningFor": render.ago(summary["Created"]),
        "Size": _size(summary),
        "State": summary["State"],
        "Status": summary["Status"],
    }


def _ports(ports: Iterable[dict[str, Any]]) -> str:
    """Docker's PORTS: ports that keep their number, as ranges; then those with another one outside."""
    runs: dict[tuple[str, str], list[int]] = {}
    moved = []
    for port in sorted(ports, key=lambda port: (port["PrivatePort"], port.get("IP") or "", port["Type"])):
        private, public, kind, host = (
            port["PrivatePort"],
            port.get("PublicPort"),
            port["Type"],
            port.get("IP") or "",
        )
        if public and public != private:
            moved.append(f"{host}:{public}->{private}/{kind}")
        else:
            runs.setdefault((host if public else "", kind), []).append(private)
    texts = []
    for (host, kind), numbers in sorted(runs.items()):
        for first, last in _ranges(numbers):
            span = str(first) if first == last else f"{first}-{last}"
            texts.append(f"{host}:{span}->{span}/{kind}" if host else f"{span}/{kind}")
    return ", ".join(texts + moved)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted numbers as runs: 1 2 3 7 -> (1, 3) (7, 7)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] >= number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _size(summary: dict[str, Any]) -> str:
    text = human_size(summary.get("SizeRw") or 0, 3)
    total = summary.get("SizeRootFs") or 0
    return f"{text} (virtual {human_size(total, 3)})" if total > 0 else text


@verb("top", "CONTAINER [ps OPTIONS]", at_least=1, interspersed=False, completes="running")
def top(call: Call) -> int:
    """Show the processes of a container"""
    name, *ps_args = call.arguments
    found = call.engine.containers.get(name).top(" ".join(ps_args))
    sys.stdout.write(render.table(found["Titles"], found["Processes"], least_width=20))
    return 0


@verb("port", "CONTAINER [PRIVATE_PORT[/PROTO]]", at_least=1, at_most=2, completes="container")
def port(call: Call) -> int:
    """Show the published ports of a container"""
    name, *wanted = call.arguments
    published = call.engine.containers.get(name).port()
    if not wanted:
        lines = [
            f"{private} -> {_address(at)}\n"
            for private, places in sorted(published.items())
            for at in places or ()
        ]
        sys.stdout.write("".join(lines))
        return 0
    private = wanted[0] if "/" in wanted[0] else f"{wanted[0]}/tcp"
    places = published.get(private)
    if not places:
        raise DuckweedError(f"No public port '{private}' published for {name}")
    sys.stdout.write("".join(f"{_address(at)}\n" for at in places))
    return 0


def _address(at: dict[str, str]) -> str:
    host = at["HostIp"]
    return f"[{host}]:{at['HostPort']}" if ":" in host else f"{host}:{at['HostPort']}"
