"""What nouns that are listed and labelled share: NAME=VALUE options, and rows as a table or by a template."""

from __future__ import annotations

import sys

from duckweed.cli import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def pairs(texts: list[str]) -> dict[str, str]:
    """`NAME=VALUE` options as a mapping; without `=` the value is empty."""
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def show(
    rows: list[dict[str, Any]],
    template: str,
    headers: dict[str, str],
    columns: tuple[str, ...],
    raw: Sequence[tuple[str, str]],
) -> None:
    """Writes rows to stdout: as a table of these columns, or as `--format` says. Templates are loaded only
    when one is used.
    """
    if template in ("", "table"):
        cells = [[row[name] for name in columns] for row in rows]
        sys.stdout.write(render.table([headers[name] for name in columns], cells))
        return
    from duckweed.cli.format import Listing, show_rows

    show_rows(Listing(headers, columns, raw), rows, template)
