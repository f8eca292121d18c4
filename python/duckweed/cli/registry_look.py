"""`search` and `manifest inspect`: looking at registries without taking anything."""

from __future__ import annotations

import json
import sys

from duckweed.cli import render
from duckweed.cli.parse import BOOL, FILTER, INT, STRING, BadUsage, Call, Flag, filters_of, verb
from duckweed.cli.registry_pull import TLS_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_COLUMNS = ("Name", "Description", "StarCount", "IsOfficial")
_DESCRIPTION_WIDTH = 45
_MOST = 100
_FILTERS = frozenset(("is-official", "is-automated", "stars"))


@verb(
    "search",
    "[OPTIONS] TERM",
    flags=(
        Flag("filter", "f", FILTER, "Only images that match (is-official=true, stars=N)"),
        Flag("format", "", STRING, "json, or a Go template for each image"),
        Flag("limit", "", INT, "At most so many (default 25)"),
        Flag("no-trunc", "", BOOL, "Do not shorten descriptions"),
        TLS_FLAG,
    ),
    at_least=1,
    at_most=1,
)
def search(call: Call) -> int:
    """Search a registry for images

    Docker Hub, or the registry that TERM begins with; where a registry has no search, its catalogue is looked
    through.
    """
    from duckweed.registry.searching import search as find

    limit = call.get("limit", 25) or 25
    if not 1 <= limit <= _MOST:
        raise BadUsage(f"invalid limit {limit}: it must be between 1 and {_MOST}", exit_code=1)
    filters = filters_of(call)
    for name in filters:
        if name not in _FILTERS:
            raise BadUsage(f"invalid filter '{name}'", exit_code=1)
    found = find(call.arguments[0], limit=limit, tls_verify=call.get("tls_verify"))
    rows = [_row(one, call.get("no_trunc", False)) for one in found if _matches(one, filters)]
    template = call.get("format", "")
    if template in ("", "table"):
        cells = [[row[name] for name in _COLUMNS] for row in rows]
        sys.stdout.write(render.table([_HEADERS[name] for name in _COLUMNS], cells))
        return 0
    from duckweed.cli.format import Listing, show_rows

    show_rows(Listing(_HEADERS, _COLUMNS), rows, template)
    return 0


def _matches(one: dict[str, Any], filters: dict[str, Any]) -> bool:
    for name, member in (("is-official", "is_official"), ("is-automated", "is_automated")):
        for value in filters.get(name, ()):
            if bool(one[member]) != (value.lower() in ("1", "t", "true")):
                return False
    stars = [int(value) for value in filters.get("stars", ()) if value.isdigit()]
    return all(int(one["star_count"] or 0) >= least for least in stars)


def _row(one: dict[str, Any], is_whole: bool) -> dict[str, Any]:
    description = " ".join(str(one["description"] or "").split())
    if not is_whole and len(description) > _DESCRIPTION_WIDTH:
        description = description[: _DESCRIPTION_WIDTH - 1] + "…"
    return {
        "Name": str(one["name"]),
        "Description": description,
        "StarCount": str(one["star_count"] or 0),
        "IsOfficial": "[OK]" if one["is_official"] else "",
        "IsAutomated": "[OK]" if one["is_automated"] else "",
    }


@verb(
    "manifest inspect",
    "[OPTIONS] MANIFEST",
    flags=(
        Flag("insecure", "", BOOL, "Allow communication with an insecure registry"),
        Flag("verbose", "v", BOOL, "Show the descriptor, and for an index every manifest in it"),
        TLS_FLAG,
    ),
    at_least=1,
    at_most=1,
)
def manifest_inspect(call: Call) -> int:
    """Display an image manifest, or manifest list, as the registry has it"""
    from duckweed.registry.inspection import manifest_details, manifest_document

    verify = False if call.get("insecure") else call.get("tls_verify")
    name = call.arguments[0]
    if call.get("verbose"):
        details = manifest_details(name, tls_verify=verify)
        document: Any = details[0] if len(details) == 1 else details
    else:
        document = manifest_document(name, tls_verify=verify)
    sys.stdout.write(json.dumps(document, indent="\t", ensure_ascii=False) + "\n")
    return 0
