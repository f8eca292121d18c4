"""`search`: by the registry's own search where it has one (API version 1, as Docker Hub's), else by the names
in its catalogue.
"""

from __future__ import annotations

import json

from duckweed.errors import RegistryError
from duckweed.oci.reference import DEFAULT_REGISTRY
from duckweed.registry.connection import refusal
from duckweed.registry.endpoint import HUB_KEY, Endpoint, endpoint_of
from duckweed.registry.registries import Registries
from duckweed.registry.repository import paged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HUB_SEARCH = "index.docker.io"
_OK = 200


def search(term: str, *, limit: int = 25, tls_verify: bool | None = None) -> list[dict[str, Any]]:
    """What a registry finds for `[REGISTRY/]TERM`: docker's dicts (name, description, star_count,
    is_official, is_automated). Raises AccessDenied, RegistryError.
    """
    registries = Registries(tls_verify)
    registry, words = _split(term)
    if registry == DEFAULT_REGISTRY:
        endpoint = Endpoint(_HUB_SEARCH, [f"https://{_HUB_SEARCH}"], HUB_KEY, verify=True)
    else:
        endpoint = endpoint_of(registry, registries.settings, tls_verify)
    connection = registries.connection(endpoint)
    from urllib.parse import urlencode

    query = urlencode({"q": words, "n": limit})
    reply = connection.send("GET", f"/v1/search?{query}", headers=[("Accept", "application/json")])
    found = _results(reply.body) if reply.status == _OK else None
    if found is not None:
        return found[:limit]
    if registry == DEFAULT_REGISTRY:
        raise refusal(reply.status, reply.body, "search of Docker Hub")
    scopes = ("registry:catalog:*",)
    names = paged(connection, "/v2/_catalog?n=1000", scopes, "repositories", f"registry `{registry}`")
    matching = [name for name in names if words.lower() in name.lower()]
    return [_result(f"{registry}/{name}") for name in matching[:limit]]


def _split(term: str) -> tuple[str, str]:
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DEFAULT_REGISTRY, term


def _results(body: bytes) -> list[dict[str, Any]] | None:
    """The results of a version 1 search; None when this is none."""
    try:
        results = json.loads(body)["results"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(results, list):
        raise RegistryError("the registry's search answers something that cannot be read")
    return [{**_result(""), **one} for one in results if isinstance(one, dict) and one.get("name")]


def _result(name: str) -> dict[str, Any]:
    return {"name": name, "description": "", "star_count": 0, "is_official": False, "is_automated": False}
