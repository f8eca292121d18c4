"""Complaints: what a registry says when it says no, in one line.

`{"errors": [{"code": "DENIED", "message": "...", "detail": ...}]}` (distribution-spec, "Error Codes"); the
code in lower case and the message are what Docker shows. Token servers say `{"details": "..."}` and worse.
"""

from __future__ import annotations

import json

_LIMIT = 300


def codes_of(body: bytes) -> list[str]:
    """The codes of a registry's error document: `MANIFEST_UNKNOWN`."""
    return [str(one.get("code") or "") for one in _errors(body)]


def complaint_of(body: bytes) -> str:
    """What the body says, as Docker words it: `denied: requested access to the resource is denied`."""
    lines = []
    for one in _errors(body):
        code = str(one.get("code") or "unknown").replace("_", " ").lower()
        lines.append(f"{code}: {one.get('message') or code}")
    if not lines:
        lines = [_other(body)]
    return " ".join("; ".join(lines).split())[:_LIMIT]


def _errors(body: bytes) -> list[dict[str, object]]:
    document = _read(body)
    errors = document.get("errors") if isinstance(document, dict) else None
    return [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []


def _other(body: bytes) -> str:
    document = _read(body)
    if isinstance(document, dict):
        for name in ("details", "message", "error_description", "error"):
            if isinstance(document.get(name), str):
                return str(document[name])
    return ""


def _read(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
