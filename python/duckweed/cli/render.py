"""Tables as Docker lays them out, and the trimming of what goes into them.

Docker's tables are Go's tabwriter with a least width of 10 and 3 blanks between columns. A column's width is
that of its widest cell among neighbouring lines; the last cell of a line is never padded.
"""

from __future__ import annotations

import time

from duckweed.cli.units import human_duration, unix_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LEAST_WIDTH = 10
_PADDING = 3


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, least_width: int = _LEAST_WIDTH) -> str:
    """A header and rows as text, every line ended."""
    return align([list(header), *(list(row) for row in rows)], least_width=least_width)


def align(lines: list[list[str]], *, least_width: int = _LEAST_WIDTH) -> str:
    """Lays out lines as tabwriter does: a cell is in a column when another cell follows it on its line."""
    widths = [[0] * max(len(cells) - 1, 0) for cells in lines]
    column = 0
    while any(len(width) > column for width in widths):
        start = 0
        while start < len(lines):
            end = start
            while end < len(lines) and len(widths[end]) > column:
                end += 1
            block = range(start, end)
            width = max([least_width, *(len(lines[i][column]) + _PADDING for i in block)])
            for i in block:
                widths[i][column] = width
            start = end + 1
        column += 1
    text = []
    for cells, line_widths in zip(lines, widths):
        padded = [cell.ljust(line_widths[i]) for i, cell in enumerate(cells[:-1])]
        text.append("".join(padded) + (cells[-1] if cells else "") + "\n")
    return "".join(text)


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters, the last an ellipsis if some were cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(identifier: str) -> str:
    """The 12 digits that people use: `sha256:abc...` -> `abc...`."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]


def ago(moment: str | float) -> str:
    """How long ago that was: `2 minutes ago`."""
    return human_duration(time.time() - unix_time(moment)) + " ago"


def local_time(moment: str | float) -> str:
    """Docker's CreatedAt: `2026-01-02 03:04:05 +0100 CET`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(unix_time(moment)))


def rfc3339_local(moment: str | float) -> str:
    """`2026-01-02T03:04:05+01:00`, with `Z` for UTC."""
    local = time.localtime(unix_time(moment))
    zone = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


_QUOTED = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}


def quoted(text: str) -> str:
    """`text` as a Go string literal, for ps's COMMAND."""
    return '"' + "".join(_QUOTED.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    number = ord(character)
    return (
        f"\\x{number:02x}"
        if number < 0x80
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def labels_text(labels: dict[str, str] | None) -> str:
    """`a=1,b=2`, sorted."""
    return ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items()))
