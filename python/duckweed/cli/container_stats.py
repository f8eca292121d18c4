"""`stats`: what containers use, once or again and again."""

from __future__ import annotations

import sys
import time

from duckweed.cli import render
from duckweed.cli.parse import BOOL, STRING, Call, Flag, verb
from duckweed.cli.units import human_size, human_size_binary
from duckweed.errors import NoSuchContainer, WrongState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.containers.container import Container

HEADERS = {
    "BlockIO": "BLOCK I/O",
    "CPUPerc": "CPU %",
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "MemPerc": "MEM %",
    "MemUsage": "MEM USAGE / LIMIT",
    "Name": "NAME",
    "NetIO": "NET I/O",
    "PIDs": "PIDS",
}
_COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
# How long processor time is watched for one figure.
_SPAN_S = 0.5


@verb(
    "stats",
    "[OPTIONS] [CONTAINER...]",
    flags=(
        Flag("all", "a", BOOL, "Show all containers, not only running ones"),
        Flag("format", "", STRING, "table, table TEMPLATE, json or a Go template"),
        Flag("no-stream", "", BOOL, "Show one result and end"),
        Flag("no-trunc", "", BOOL, "Do not shorten anything"),
    ),
    completes="running",
)
def stats(call: Call) -> int:
    """Show what containers use: processor, memory, network

    Memory is the processes' own; network is the container's way out. Without `--no-stream` it goes on until
    it is interrupted.
    """
    containers = call.engine.containers
    named = [containers.get(name) for name in call.arguments]
    is_once = call.get("no_stream", False)
    while True:
        shown = named or containers.list(all=call.get("all", False))
        text = [_row(container, before, call) for container, before in _watched(shown)]
        if not is_once and sys.stdout.isatty():
            sys.stdout.write("\033[H\033[J")
        _show(text, call.get("format", ""))
        if is_once:
            return 0
        sys.stdout.flush()
        time.sleep(_SPAN_S)


def _watched(containers: list[Container]) -> list[tuple[Container, dict[str, Any] | None]]:
    first = [(container, _sample(container)) for container in containers]
    time.sleep(_SPAN_S)
    return first


def _sample(container: Container) -> dict[str, Any] | None:
    try:
        return container.sample()
    except (NoSuchContainer, WrongState):
        return None


def _row(container: Container, before: dict[str, Any] | None, call: Call) -> dict[str, Any]:
    from duckweed.containers.statistics import cpu_percent

    row = {
        "Container": container.id[:12],
        "ID": container.id if call.get("no_trunc") else container.id[:12],
        "Name": container.name,
    }
    after = _sample(container) if before is not None else None
    if before is None or after is None:
        return {**dict.fromkeys(HEADERS, "--"), **row}
    network, blocks = after["network"], after["blocks"]
    usage, limit = after["memory_usage"], after["memory_limit"]
    return {
        **row,
        "CPUPerc": f"{cpu_percent(before, after):.2f}%",
        "MemUsage": f"{human_size_binary(usage)} / {human_size_binary(limit)}",
        "MemPerc": f"{100 * usage / limit:.2f}%",
        "NetIO": f"{human_size(network['rx_bytes'], 3)} / {human_size(network['tx_bytes'], 3)}",
        "BlockIO": f"{human_size(blocks['read'], 3)} / {human_size(blocks['write'], 3)}",
        "PIDs": str(after["pids"]),
    }


def _show(rows: list[dict[str, Any]], template: str) -> None:
    if template in ("", "table"):
        cells = [[row[name] for name in _COLUMNS] for row in rows]
        sys.stdout.write(render.table([HEADERS[name] for name in _COLUMNS], cells))
        return
    from duckweed.cli.format import Listing, show_rows

    show_rows(Listing(HEADERS, _COLUMNS, ()), rows, template)
