"""`commit`, `cp`, `diff`, `export`: what a container's files have become."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, LIST, STRING, Call, Flag, Refused, verb
from duckweed.cli.units import human_size


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


@verb(
    "cp",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        duckweed cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    flags=(
        Flag("archive", "a", BOOL, "Keep the ids of owners"),
        Flag("follow-link", "L", BOOL, "Copy what a link at SRC_PATH names, not the link"),
        Flag("quiet", "q", BOOL, "Do not tell how much was copied"),
    ),
    at_least=2,
    at_most=2,
    completes="container",
)
def cp(call: Call) -> int:
    """Copy files between a container and this machine

    The container may be running or not. `-` is a tar on stdin or stdout.
    """
    source, target = call.arguments
    from_name, from_path = _split(source)
    to_name, to_path = _split(target)
    if from_name and to_name:
        raise Refused("copying between containers is not supported", "copy to this machine first")
    if not from_name and not to_name:
        raise Refused("must specify at least one container source", "write it as CONTAINER:PATH")
    manners = {"follow_link": call.get("follow_link", False)}
    container = call.engine.containers.get(from_name or to_name)
    if from_name:
        if target == "-" and sys.stdout.isatty():
            raise Refused("cowardly refusing to write a tar to a terminal", "name a file, or redirect")
        copied = container.copy_from(from_path, 1 if target == "-" else target, **manners)
    else:
        if source == "-" and sys.stdin.isatty():
            raise Refused("requested a tar from stdin, but stdin is a terminal", "redirect it from a file")
        manners["archive"] = call.get("archive", False)
        copied = container.copy_to(0 if source == "-" else source, to_path, **manners)
    for line in copied.skipped:
        sys.stderr.write(f"note: {line}\n")
    if "-" not in (source, target) and not call.get("quiet", not sys.stdout.isatty()):
        sys.stderr.write(f"Successfully copied {human_size(copied.size, 3)} to {target}\n")
    return 0


def _split(argument: str) -> tuple[str, str]:
    """`("web", "/etc")` for `web:/etc`; no name for a path of this machine (one that begins with `/` or
    `.`).
    """
    name, colon, path = argument.partition(":")
    if argument.startswith("/") or not colon or name.startswith("."):
        return "", argument
    return name, path
