"""`images` and `history`: what images there are and what they are made of."""

from __future__ import annotations

import sys

from duckweed.cli import render
from duckweed.cli.parse import BOOL, FILTER, STRING, Call, Flag, filters_of, verb
from duckweed.cli.units import human_size, unix_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_NONE = "<none>"

IMAGE_HEADERS = {
    "Containers": "CONTAINERS",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "SharedSize": "SHARED SIZE",
    "Size": "SIZE",
    "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}
_IMAGE_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_DIGEST_COLUMNS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
_IMAGE_RAW = (
    ("repository", "Repository"),
    ("tag", "Tag"),
    ("image_id", "ID"),
    ("created_at", "CreatedAt"),
    ("virtual_size", "Size"),
)

HISTORY_HEADERS = {
    "Comment": "COMMENT",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "CreatedSince": "CREATED",
    "ID": "IMAGE",
    "Size": "SIZE",
}
_HISTORY_COLUMNS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
_HISTORY_EXACT_COLUMNS = ("ID", "CreatedAt", "CreatedBy", "Size", "Comment")
_CREATED_BY_WIDTH = 45


@verb(
    "images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    flags=(
        Flag("all", "a", BOOL, "Show intermediate images too"),
        Flag("digests", "", BOOL, "Show digests"),
        Flag(
            "filter",
            "f",
            FILTER,
            "Only images that match (dangling=, label=, before=, since=, reference= ...)",
        ),
        Flag("format", "", STRING, "table, table TEMPLATE, json, raw or a Go template"),
        Flag("no-trunc", "", BOOL, "Do not shorten ids"),
        Flag("quiet", "q", BOOL, "Show ids only"),
    ),
    at_most=1,
    completes="image",
)
def images(call: Call) -> int:
    """List images"""
    found = call.engine.images.list(
        all=call.get("all", False),
        filters=filters_of(call) or None,
        reference=call.arguments[0] if call.arguments else None,
    )
    patterns = [*call.arguments, *filters_of(call).get("reference", ())]
    full = call.get("no_trunc", False)
    template = call.get("format", "")
    digests = call.get("digests", False)
    # Ids are for `rmi $(duckweed images -q)`: the built-in image has none of its own.
    only_ids = call.get("quiet") and not template
    rows = [
        row
        for image in found
        if not (only_ids and image.is_host)
        for row in named_like(
            patterns, image_rows(image.attrs, full=full, digests=digests or ".Digest" in template)
        )
    ]
    if only_ids:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
        return 0
    columns = _DIGEST_COLUMNS if digests else _IMAGE_COLUMNS
    _show(IMAGE_HEADERS, columns, rows, template, _IMAGE_RAW)
    return 0


def _show(
    headers: dict[str, str],
    columns: tuple[str, ...],
    rows: list[dict[str, Any]],
    template: str,
    raw: tuple[tuple[str, str], ...] = (),
) -> None:
    if template in ("", "table"):
        sys.stdout.write(
            render.table(
                [headers[name] for name in columns], [[row[name] for name in columns] for row in rows]
            )
        )
        return
    from duckweed.cli.format import Listing, show_rows

    show_rows(Listing(headers, columns, raw), rows, template)


def named_like(patterns: list[str], rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of an image that was found by name, the names that match; all of them if none reads like the pattern.

    An image with two tags matches by one of them, and Docker then shows that one only.
    """
    every = list(rows)
    if not patterns:
        return every
    from fnmatch import fnmatchcase

    matching = [
        row
        for row in every
        for name in [row["Repository"]]
        if any(fnmatchcase(name, text) or fnmatchcase(f"{name}:{row['Tag']}", text) for text in patterns)
    ]
    return matching or every


def image_rows(
    attrs: dict[str, Any], *, full: bool = False, digests: bool = False
) -> Iterator[dict[str, Any]]:
    """One row for each tag of the image, or one of `<none>`."""
    created = attrs.get("Created") or ""
    # An image may have no date: year 1 in Go, and none of its business to be 2000 years old.
    dated = unix_time(created) > 0
    by_repository = {
        text.partition("@")[0]: text.partition("@")[2] for text in attrs.get("RepoDigests") or ()
    }
    tags = [_split_tag(text) for text in attrs.get("RepoTags") or ()]
    if not tags:
        tags = [(name, _NONE) for name in by_repository] or [(_NONE, _NONE)]
    for repository, tag in tags:
        yield {
            "Containers": "N/A",
            "CreatedAt": render.local_time(created) if dated else "N/A",
            "CreatedSince": render.ago(created) if dated else "N/A",
            "Digest": by_repository.get(repository, _NONE) if digests else _NONE,
            "ID": attrs["Id"] if full else render.short_id(attrs["Id"]),
            "Repository": repository,
            "SharedSize": "N/A",
            "Size": human_size(attrs["Size"], 3),
            "Tag": tag,
            "UniqueSize": "N/A",
            "VirtualSize": human_size(attrs["Size"]),
        }


def _split_tag(text: str) -> tuple[str, str]:
    repository, colon, tag = text.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (text, _NONE)


@verb(
    "history",
    "[OPTIONS] IMAGE",
    flags=(
        Flag("format", "", STRING, "table, table TEMPLATE, json or a Go template"),
        Flag("human", "H", BOOL, "Sizes and dates for people (default true)"),
        Flag("no-trunc", "", BOOL, "Do not shorten anything"),
        Flag("quiet", "q", BOOL, "Show ids only"),
    ),
    at_least=1,
    at_most=1,
    completes="image",
)
def history(call: Call) -> int:
    """Show the layers of an image and what made them"""
    human, full = call.get("human", True), call.get("no_trunc", False)
    rows = [
        history_row(entry, human=human, full=full)
        for entry in call.engine.images.get(call.arguments[0]).history()
    ]
    template = call.get("format", "")
    if call.get("quiet"):
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
        return 0
    _show(HISTORY_HEADERS, _HISTORY_COLUMNS if human else _HISTORY_EXACT_COLUMNS, rows, template)
    return 0


def history_row(entry: dict[str, Any], *, human: bool = True, full: bool = False) -> dict[str, Any]:
    """The fields of one step of an image's history."""
    made_by = entry["CreatedBy"].replace("\t", " ")
    return {
        "Comment": entry.get("Comment") or "",
        "CreatedAt": render.rfc3339_local(entry["Created"]),
        "CreatedBy": made_by if full else render.shorten(made_by, _CREATED_BY_WIDTH),
        "CreatedSince": render.ago(entry["Created"]) if human else render.rfc3339_local(entry["Created"]),
        "ID": entry["Id"] if full else _step_id(entry["Id"]),
        "Size": human_size(entry["Size"], 3) if human else str(entry["Size"]),
    }


def _step_id(identifier: str) -> str:
    return identifier if identifier.startswith("<") else render.short_id(identifier)
