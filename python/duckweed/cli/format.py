"""`--format`: Go templates over rows (ps, images, volume ls, history) and over documents (inspect, info).

Rows are rendered one at a time, `table TEMPLATE` renders a row of headers first and lines the cells up,
`json` is one object a line. Docker tells a template that cannot be read from one that cannot be executed, and
exits 64 for the former where it shows one document; so do we.
"""

from __future__ import annotations

import json
import re
import sys

from duckweed.cli import render
from duckweed.errors import DuckweedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_PARSE_PREFIX = "template parsing error: "
_ACTION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_LABEL = re.compile(r'\.Label\s+"((?:[^"\\]|\\.)*)"')
_VALUE_FUNCTION = re.compile(r"(?<![.\w\"$])(?:json|title|lower|upper)(?=\s)")


class TemplateProblem(DuckweedError):
    """A `--format` that cannot be read or does not fit the data."""

    code = "template"


class Listing:
    """A kind of row: the header of each field, the columns shown by default, and the lines of `raw`."""

    __slots__ = ("columns", "headers", "raw")

    def __init__(
        self, headers: Mapping[str, str], columns: Sequence[str], raw: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.headers = headers
        self.columns = columns
        self.raw = raw


def show_rows(
    listing: Listing, rows: Sequence[dict[str, Any]], template: str, *, columns: Sequence[str] = ()
) -> None:
    """Prints rows (field -> text; `LabelMap` holds the labels) as `--format` asks; "" is the usual table."""
    columns = columns or listing.columns
    if template in ("", "table"):
        cells = [[row[name] for name in columns] for row in rows]
        out = render.table([listing.headers[name] for name in columns], cells)
    elif template == "json":
        out = "".join(f"{compact(_without_labels(row))}\n" for row in rows)
    elif template == "raw" and listing.raw:
        out = "".join(
            "".join(f"{label}: {row[name]}".rstrip() + "\n" for label, name in listing.raw) + "\n"
            for row in rows
        )
    else:
        out = _templated(listing, rows, template)
    sys.stdout.write(out)


def _templated(listing: Listing, rows: Sequence[dict[str, Any]], template: str) -> str:
    is_table = template.startswith("table")
    if is_table:
        template = template[len("table") :].strip(" ")
    # Shells pass `\t` as two characters, and Docker takes them for a tab.
    template = template.replace("\\t", "\t").replace("\\n", "\n")
    labelled = ".Label " in template
    texts = []
    if is_table:
        texts.append(_render_row(_header_template(template), _header_row(listing, template)))
    texts += [_render_row(template, row if labelled else _without_labels(row)) for row in rows]
    if not is_table:
        return "".join(f"{text}\n" for text in texts)
    return render.align([line.split("\t") for text in texts for line in text.split("\n")])


def _without_labels(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in sorted(row) if name != "LabelMap"}


def _header_row(listing: Listing, template: str) -> dict[str, Any]:
    """A row that holds its own headers; a label's header is the last part of its name."""
    names = {name: re.sub(r"[-_]", " ", name.rsplit(".", 1)[-1]) for name in _LABEL.findall(template)}
    return {**listing.headers, "LabelMap": names} if names else dict(listing.headers)


def _header_template(template: str) -> str:
    """The template with the functions that change a value taken out: `{{json .ID}}` heads `CONTAINER ID`."""
    return _ACTION.sub(lambda action: _VALUE_FUNCTION.sub("print", action[0]), template)


def _render_row(template: str, row: Mapping[str, Any]) -> str:
    try:
        return render_template(template, compact(row))
    except ValueError as error:
        text = str(error)
        if text.startswith(_PARSE_PREFIX):
            raise TemplateProblem(f"failed to parse template: {text[len(_PARSE_PREFIX) :]}") from None
        raise TemplateProblem(f"failed to execute template: {text}") from None


def document(template: str, data: Any) -> str:
    """One document as `--format` asks, without a line end: `json` or a template."""
    if template == "json":
        return compact(data)
    try:
        return render_template(template, compact(data))
    except ValueError as error:
        text = str(error)
        if text.startswith(_PARSE_PREFIX):
            raise TemplateProblem(text, exit_code=64) from None
        raise TemplateProblem(_PARSE_PREFIX + text) from None


def render_template(template: str, data_json: str) -> str:
    """`_core.render_template`, imported when there is a template to render."""
    from duckweed import _core

    try:
        return _core.render_template(template, data_json)
    except UnicodeEncodeError:
        # A name on disk may be no text at all; Go shows such bytes as U+FFFD.
        return _core.render_template(_as_text(template), _as_text(data_json))


def _as_text(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def compact(data: Any) -> str:
    """JSON on one line."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def pretty(data: Any) -> str:
    """JSON as inspect prints it: four blanks a level."""
    return json.dumps(data, indent=4, ensure_ascii=False)
