"""`commit`, `diff`, `export`: what a container's files have become."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, LIST, STRING, Call, Flag, Refused, verb


@verb(
    "commit",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    flags=(
        Flag("author", "a", STRING, 'Author (such as "Jane Doe <jane@example.com>")'),
        Flag("change", "c", LIST, "Apply a Dockerfile instruction to the image"),
        Flag("message", "m", STRING, "Comment in the image's history"),
        Flag("pause", "p", BOOL, "Let the container stand still meanwhile (true unless told otherwise)"),
    ),
    at_least=1,
    at_most=2,
    completes="container",
)
def commit(call: Call) -> int:
    """Make an image of a container's changes"""
    name, *repository = call.arguments
    image = call.engine.containers.get(name).commit(
        repository[0] if repository else None,
        author=call.get("author", ""),
        message=call.get("message", ""),
        changes=call.get("change", ()),
        pause=call.get("pause", True),
    )
    sys.stdout.write(f"{image.id}\n")
    return 0


@verb("diff", "CONTAINER", at_least=1, at_most=1, completes="container")
def diff(call: Call) -> int:
    """Show what a container has added (A), changed (C) and deleted (D) in its image"""
    from duckweed.containers.changes import LETTERS

    rows = call.engine.containers.get(call.arguments[0]).diff()
    lines = "".join(f"{LETTERS[row['Kind']]} {row['Path']}\n" for row in rows)
    sys.stdout.flush()
    sys.stdout.buffer.write(lines.encode("utf-8", "surrogateescape"))
    return 0


@verb(
    "export",
    "[OPTIONS] CONTAINER",
    flags=(Flag("output", "o", STRING, "Write to a file, instead of STDOUT", completes="file"),),
    at_least=1,
    at_most=1,
    completes="container",
)
def export(call: Call) -> int:
    """Write all files of a container as a tar, its mounts left out"""
    target = call.get("output", "-")
    if target == "-" and sys.stdout.isatty():
        raise Refused("cowardly refusing to save to a terminal", "use the -o flag or redirect")
    call.engine.containers.get(call.arguments[0]).export(target)
    return 0
