"""`logs`: what a container has written, each stream to its own."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, STRING, Call, Flag, verb


@verb(
    "logs",
    "[OPTIONS] CONTAINER",
    flags=(
        Flag("details", "", BOOL, "Show what log options added to each line"),
        Flag("follow", "f", BOOL, "Keep showing what is written until the container ends"),
        Flag(
            "since",
            "",
            STRING,
            "Only what was written after this time (2026-01-02T13:23:37Z, or 42m for 42 minutes ago)",
        ),
        Flag("tail", "n", STRING, "Only this many lines at the end (default all)"),
        Flag("timestamps", "t", BOOL, "Begin each line with its time"),
        Flag("until", "", STRING, "Only what was written before this time"),
    ),
    at_least=1,
    at_most=1,
    completes="container",
)
def logs(call: Call) -> int:
    """Show what a container has written"""
    container = call.engine.containers.get(call.arguments[0])
    out, err = sys.stdout.buffer, sys.stderr.buffer
    stamped = call.get("timestamps", False)
    follow = call.get("follow", False)
    pieces = container.logs(
        follow=follow,
        tail=call.get("tail", "all"),
        since=call.get("since"),
        until=call.get("until"),
        timestamps=stamped,
    )
    for stream, piece in pieces:
        if call.get("details"):
            piece = _with_details(piece, stamped)
        target = err if stream == "stderr" else out
        target.write(piece)
        if follow:
            target.flush()
    out.flush()
    err.flush()
    return 0


def _with_details(piece: bytes, stamped: bool) -> bytes:
    """Docker puts the attributes and a blank before the text; json-file lines of ours have no attributes."""
    if not stamped:
        return b" " + piece
    stamp, blank, rest = piece.partition(b" ")
    return stamp + blank + b" " + rest
