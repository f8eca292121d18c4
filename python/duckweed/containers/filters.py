"""`--filter` for containers: name, id, label, status, exited, ancestor, volume, network, before, since,
until.

Values of one key are alternatives, except labels, which must all be there; different keys must all hold.
Docker's rules.
"""

from __future__ import annotations

import re

from duckweed.containers.quantities import parse_moment, parse_rfc3339
from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from duckweed.containers.container import Container
    from duckweed.engine import Engine

_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_KEYS = (
    "name",
    "id",
    "label",
    "label!",
    "status",
    "exited",
    "ancestor",
    "volume",
    "network",
    "before",
    "since",
    "until",
    "is-task",
    "health",
    "publish",
    "expose",
)


def parse_filters(filters: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """`{key: [values]}` with known keys only. Raises UsageError in Docker's words."""
    parsed: dict[str, list[str]] = {}
    for key, value in (filters or {}).items():
        values = [value] if isinstance(value, (str, int, bool)) else list(value)
        parsed[key] = [
            ("true" if item else "false") if isinstance(item, bool) else str(item) for item in values
        ]
        if key not in _KEYS:
            raise UsageError(f"invalid filter '{key}'", f"known filters: {', '.join(_KEYS)}", exit_code=1)
    for status in parsed.get("status", ()):
        if status not in _STATUSES:
            raise UsageError(
                f"invalid filter 'status={status}'", f"one of {', '.join(_STATUSES)}", exit_code=1
            )
    for code in parsed.get("exited", ()):
        if not code.isdigit():
            raise UsageError(f"invalid filter 'exited={code}'", exit_code=1)
    return parsed


class Filter:
    """The predicate of a set of filters over containers."""

    def __init__(self, engine: Engine, filters: Mapping[str, Any] | None) -> None:
        self.filters = parse_filters(filters)
        self.wants_all = any(key in self.filters for key in ("status", "exited"))
        self._engine = engine
        # What `before`, `since` and `until` mean is looked up once: the created times to compare with.
        self._moments = {
            key: self._moment(key, self.filters[key][-1])
            for key in ("before", "since", "until")
            if self.filters.get(key)
        }
        self._ancestors = [self._ancestor(name) for name in self.filters.get("ancestor", ())]

    def _moment(self, key: str, value: str) -> int:
        if key == "until":
            return parse_moment(value)
        return parse_rfc3339(self._engine.containers.get(value).document["Created"]) or 0

    def _ancestor(self, name: str) -> tuple[str, str]:
        from duckweed.errors import NotFound

        try:
            return name, self._engine.images.get(name).id
        except NotFound:
            return name, ""

    def __call__(self, container: Container) -> bool:
        return all(
            _TESTS[key](self, container, values) for key, values in self.filters.items() if key in _TESTS
        )

    def _labels(self, container: Container, values: Iterable[str]) -> bool:
        return all(_has_label(container.labels, value) for value in values)

    def _not_labels(self, container: Container, values: Iterable[str]) -> bool:
        return not any(_has_label(container.labels, value) for value in values)

    def _names(self, container: Container, values: Iterable[str]) -> bool:
        return any(
            _matches(value, "/" + container.name) or _matches(value, container.name) for value in values
        )

    def _ids(self, container: Container, values: Iterable[str]) -> bool:
        return any(_matches("^" + value.lstrip("^"), container.id) for value in values)

    def _status(self, container: Container, values: Iterable[str]) -> bool:
        return container.status in values

    def _exited(self, container: Container, values: Iterable[str]) -> bool:
        state = container.state()
        return state.status == "exited" and str(state.exit_code) in values

    def _is_descendant(self, container: Container, values: Iterable[str]) -> bool:
        document = container.document
        return any(
            document["Image"] == name or (found and document["ImageID"] == found)
            for name, found in self._ancestors
        )

    def _volumes(self, container: Container, values: Iterable[str]) -> bool:
        points = container.document.get("Mounts") or ()
        held = {
            text for point in points for text in (point.get("Name"), point["Destination"], point["Source"])
        }
        return any(value in held for value in values)

    def _networks(self, container: Container, values: Iterable[str]) -> bool:
        return str((container.document.get("HostConfig") or {}).get("NetworkMode")) in values

    def _created(self, container: Container, before: bool, key: str) -> bool:
        created = parse_rfc3339(container.document["Created"]) or 0
        return created < self._moments[key] if before else created > self._moments[key]


_TESTS: dict[str, Callable[[Filter, Container, list[str]], bool]] = {
    "label": Filter._labels,
    "label!": Filter._not_labels,
    "name": Filter._names,
    "id": Filter._ids,
    "status": Filter._status,
    "exited": Filter._exited,
    "ancestor": Filter._is_descendant,
    "volume": Filter._volumes,
    "network": Filter._networks,
    "before": lambda self, container, _: self._created(container, True, "before"),
    "until": lambda self, container, _: self._created(container, True, "until"),
    "since": lambda self, container, _: self._created(container, False, "since"),
    "publish": lambda self, container, _: False,
    "expose": lambda self, container, _: False,
    "health": lambda self, container, values: "none" in values,
    "is-task": lambda self, container, values: "false" in values,
}


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern in text
