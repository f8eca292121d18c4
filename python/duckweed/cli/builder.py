"""`builder prune` and `builder du`: the build cache."""

from __future__ import annotations

import sys

from duckweed.cli import render
from duckweed.cli.parse import BOOL, FILTER, STRING, Call, Flag, filters_of, verb
from duckweed.cli.prompt import is_confirmed
from duckweed.cli.system_df import BUILD_CACHE_HEADERS, cache_cells
from duckweed.cli.units import human_size


@verb(
    "builder prune",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Forget the layers of images too"),
        Flag("filter", "", FILTER, "Only what matches (until=24h, type=NAME, id=ID)"),
        Flag("force", "f", BOOL, "Do not ask"),
        Flag("keep-storage", "", STRING, "How much to keep of what was used last"),
        Flag("max-used-space", "", STRING, "The same by its newer name", key="keep_storage"),
    ),
    at_most=0,
)
def prune(call: Call) -> int:
    """Remove build cache"""
    from duckweed.containers.quantities import parse_size

    what = "all build cache" if call.get("all") else "all dangling build cache"
    if not is_confirmed(call, f"This will remove {what}."):
        return 0
    report = call.engine.prune_builds(
        all=call.get("all", False),
        filters=filters_of(call) or None,
        keep_bytes=parse_size(call.get("keep_storage") or "0"),
    )
    if report["CachesDeleted"]:
        lines = "".join(f"{identity[:25]}\n" for identity in report["CachesDeleted"])
        sys.stdout.write(f"ID\n{lines}\n")
    sys.stdout.write(f"Total reclaimed space: {human_size(report['SpaceReclaimed'])}\n")
    return 0


@verb(
    "builder du",
    "[OPTIONS]",
    flags=(Flag("verbose", "v", BOOL, "Say what each entry is"),),
    at_most=0,
)
def du(call: Call) -> int:
    """Show what the build cache takes on the disk"""
    report = call.engine.df()
    rows = report["BuildCache"]
    if call.get("verbose"):
        for row in rows:
            sys.stdout.write("".join(f"{name + ':':<14}{row[name]}\n" for name in sorted(row)) + "\n")
    else:
        sys.stdout.write(render.table(BUILD_CACHE_HEADERS, [cache_cells(row) for row in rows]))
    total = sum(row["Size"] for row in rows)
    sys.stdout.write(f"Reclaimable:\t{human_size(report['BuilderSize'])}\nTotal:\t\t{human_size(total)}\n")
    return 0
