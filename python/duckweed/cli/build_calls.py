"""The answers of `build --call` and `--check`: as text for people, or as BuildKit's JSON documents."""

from __future__ import annotations

import json

from duckweed.dockerfile.outline import location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from duckweed.dockerfile.lint import Report


def as_json(document: object) -> str:
    """A document, indented."""
    return json.dumps(document, indent=2) + "\n"


def findings_text(report: Report) -> str:
    """Every finding with its rule, its page and the lines."""
    if not report.findings:
        return "Check complete, no warnings found.\n"
    count = len(report.findings)
    lines = [f"Check complete, {count} warning{'s have' if count > 1 else ' has'} been found!"]
    for one in report.findings:
        lines += ["", f"WARNING: {one.rule} - {one.url}", one.message]
        lines.append(report.source.excerpt(one.first, one.last))
    return "\n".join(lines) + "\n"


def findings_json(report: Report) -> str:
    """The findings as a document; all locations are in source 0, the Dockerfile."""
    warnings = [
        {
            "ruleName": one.rule,
            "description": one.description,
            "url": one.url,
            "detail": one.message,
            "location": {"sourceIndex": 0, **location(one.first, one.last)},
        }
        for one in report.findings
    ]
    return as_json({"warnings": warnings, "sources": [{"filename": report.source.name}]})


def targets_text(document: dict[str, Any]) -> str:
    """The stages, a line each."""
    rows = [("TARGET", "DESCRIPTION")]
    for entry in document["targets"]:
        name = entry["name"] or "(default)"
        if entry.get("default") and entry["name"]:
            name += " (default)"
        rows.append((name, entry.get("description", "")))
    return _table(rows)


def outline_text(document: dict[str, Any]) -> str:
    """The target, and a table for each kind of thing that it takes."""
    parts = []
    head = [("TARGET:", document["name"] or "(default)")]
    if document.get("description"):
        head.append(("DESCRIPTION:", document["description"]))
    parts.append(_table(head))
    if document.get("args"):
        rows = [(one["name"], one.get("value", ""), one.get("description", "")) for one in document["args"]]
        parts.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *rows]))
    for name, title in (("secrets", "SECRET"), ("ssh", "SSH")):
        if document.get(name):
            wanted = [(one["name"], "true" if one.get("required") else "") for one in document[name]]
            parts.append(_table([(title, "REQUIRED"), *wanted]))
    if document.get("cache"):
        parts.append(_table([("CACHE MOUNT",), *((one["id"],) for one in document["cache"])]))
    return "\n".join(parts)


TEXTS: dict[str, Callable[[dict[str, Any]], str]] = {"targets": targets_text, "outline": outline_text}


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("   ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"
