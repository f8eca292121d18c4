"""Reading one JSON document of an image: bounded, an object, UTF-8."""

from __future__ import annotations

import json

from duckweed.errors import BadImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT_BYTES = 4 << 20
"""Registries refuse manifests over 4 MiB (distribution-spec, "Pushing Manifests"); configs are far smaller.
"""
_DEPTH_WORDS = "nested too deeply"


def read_json(content: bytes, what: str) -> Any:
    """The JSON value in `content`; BadImage naming `what` unless it is one."""
    if len(content) > LIMIT_BYTES:
        raise BadImage(f"{what}: larger than {LIMIT_BYTES >> 20} MiB")
    try:
        return json.loads(content)
    except RecursionError:
        raise BadImage(f"{what}: {_DEPTH_WORDS}") from None
    except ValueError:  # JSONDecodeError and UnicodeDecodeError
        raise BadImage(f"{what}: not JSON") from None


def read_object(content: bytes, what: str) -> dict[str, Any]:
    """As `read_json`, for a document that must be an object."""
    value = read_json(content, what)
    if not isinstance(value, dict):
        raise BadImage(f"{what}: not a JSON object")
    return value


def object_field(document: dict[str, Any], name: str, what: str) -> dict[str, Any]:
    """A member that is an object; absent and null are the empty one."""
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadImage(f"{what}: `{name}` is not an object")
    return value


def list_field(document: dict[str, Any], name: str, what: str) -> list[Any]:
    """A member that is a list; absent and null are the empty one."""
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadImage(f"{what}: `{name}` is not a list")
    return value
