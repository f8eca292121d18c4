"""`inspect` and its four particular forms: all that is known of a container, an image, a volume or a network,
as JSON.

Docker prints what it found as one JSON array even when some names were not found; those are told on stderr
and the exit code is 1.
"""

from __future__ import annotations

import sys

from duckweed.cli import format
from duckweed.cli.failure import say
from duckweed.cli.parse import BOOL, STRING, Call, Flag, Refused, verb
from duckweed.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_TYPES = ("container", "image", "volume", "network")
_FORMAT = Flag("format", "f", STRING, "json or a Go template")
_SIZE = Flag("size", "s", BOOL, "Show sizes too, if it is a container")


@verb(
    "inspect",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    flags=(
        _FORMAT,
        _SIZE,
        Flag("type", "", STRING, "Only objects of this type (container|image|volume|network)"),
    ),
    at_least=1,
    completes="container image volume",
)
def inspect(call: Call) -> int:
    """Show all that is known of containers, images, volumes and networks"""
    kind = call.get("type", "")
    if kind and kind not in _TYPES:
        raise Refused(
            f'unknown type: "{kind}": must be one of ' + ", ".join(f'"{name}"' for name in _TYPES),
        )
    return _inspect(call, (kind,) if kind else _TYPES)


@verb(
    "container inspect",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(_FORMAT, _SIZE),
    at_least=1,
    completes="container",
)
def container_inspect(call: Call) -> int:
    """Show all that is known of containers"""
    return _inspect(call, ("container",))


@verb("image inspect", "[OPTIONS] IMAGE [IMAGE...]", flags=(_FORMAT,), at_least=1, completes="image")
def image_inspect(call: Call) -> int:
    """Show all that is known of images"""
    return _inspect(call, ("image",))


@verb("volume inspect", "[OPTIONS] VOLUME [VOLUME...]", flags=(_FORMAT,), at_least=1, completes="volume")
def volume_inspect(call: Call) -> int:
    """Show all that is known of volumes"""
    return _inspect(call, ("volume",))


@verb("network inspect", "[OPTIONS] NETWORK [NETWORK...]", flags=(_FORMAT,), at_least=1, completes="network")
def network_inspect(call: Call) -> int:
    """Show all that is known of networks"""
    return _inspect(call, ("network",))


def _inspect(call: Call, kinds: Sequence[str]) -> int:
    template = call.get("format", "")
    found: list[dict[str, Any]] = []
    missing: list[str] = []
    for name in call.arguments:
        try:
            found.append(_attrs(call, name, kinds))
        except NotFound as error:
            missing.append(error.message)
    if template == "json":
        sys.stdout.write(format.compact(found) + "\n")
    elif template:
        for attrs in found:
            sys.stdout.write(format.document(template, attrs) + "\n")
    else:
        sys.stdout.write(format.pretty(found) + "\n")
    for message in missing:
        say(f"Error: {message}")
    return 1 if missing else 0


def _attrs(call: Call, name: str, kinds: Sequence[str]) -> dict[str, Any]:
    for kind in kinds:
        try:
            return _one(call, name, kind)
        except NotFound:
            if len(kinds) == 1:
                raise
    raise NotFound(f"No such object: {name}")


def _one(call: Call, name: str, kind: str) -> dict[str, Any]:
    if kind == "image":
        return call.engine.images.get(name).attrs
    if kind == "volume":
        return call.engine.volumes.get(name).attrs
    if kind == "network":
        return call.engine.networks.inspect(name)
    container = call.engine.containers.get(name)
    return {**container.attrs, **container.size()} if call.get("size") else container.attrs
