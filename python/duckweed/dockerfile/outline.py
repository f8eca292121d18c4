"""`build --call outline` and `--call targets`: what a Dockerfile can be told, read off without building.

A comment right above FROM or ARG that begins with the name it stands above describes it. The documents are
those that BuildKit's frontend gives for the same calls.
"""

from __future__ import annotations

from duckweed.dockerfile.mount import parse_mount
from duckweed.dockerfile.scope import expand_in
from duckweed.errors import DuckweedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.dockerfile.instruction import Instruction
    from duckweed.dockerfile.stages import Dockerfile, Stage


def targets(dockerfile: Dockerfile) -> dict[str, Any]:
    """Every stage that has a name, and the last one."""
    last = dockerfile.stages[-1]
    found = []
    for stage in dockerfile.stages:
        if not stage.name and stage is not last:
            continue
        entry: dict[str, Any] = {"name": stage.name, "base": stage.base, "location": _location(stage.opening)}
        if stage is last:
            entry["default"] = True
        if stage.platform:
            entry["platform"] = stage.platform
        description = _description(stage.opening, stage.typed_name)
        found.append({**entry, "description": description} if description else entry)
    return {"targets": found}


def outline(
    dockerfile: Dockerfile,
    target: Stage,
    stages: Sequence[Stage],
    scope: Mapping[str, str],
    given: Mapping[str, str],
) -> dict[str, Any]:
    """What a target that needs these stages takes: arguments with values, secrets, agents, caches."""
    found = _Finder(scope, given)
    for one in dockerfile.global_args:
        found.take_arguments(one, from_scope=True)
    for stage in stages:
        for one in stage.instructions:
            found.take(one)
    document: dict[str, Any] = {"name": target.name}
    description = _description(target.opening, target.typed_name)
    if description:
        document["description"] = description
    for name, entries in (
        ("args", found.args),
        ("secrets", found.secrets),
        ("ssh", found.agents),
        ("cache", found.caches),
    ):
        if entries:
            document[name] = list(entries.values())
    return document


class _Finder:
    """Walks instructions and notes what they take, each name once."""

    def __init__(self, scope: Mapping[str, str], given: Mapping[str, str]) -> None:
        self._scope = scope
        self._given = given
        self._values: dict[str, str] = dict(scope)
        self.args: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.agents: dict[str, dict[str, Any]] = {}
        self.caches: dict[str, dict[str, Any]] = {}

    def take(self, one: Instruction) -> None:
        if one.keyword == "ARG":
            self.take_arguments(one)
        for text in one.every("mount"):
            self._take_mount(one, text)

    def take_arguments(self, one: Instruction, *, from_scope: bool = False) -> None:
        for pair in one.pairs:
            value = self._given.get(pair.name)
            if value is None and pair.value is None:
                value = self._scope.get(pair.name)
            elif value is None:
                value = self._scope.get(pair.name) if from_scope else self._expanded(one, pair.value or "")
            known = self.args.setdefault(pair.name, {"name": pair.name, "location": _location(one)})
            if value is not None:
                self._values[pair.name] = value
                known["value"] = value
            description = _description(one, pair.name)
            if description:
                known["description"] = description

    def _expanded(self, one: Instruction, word: str) -> str:
        try:
            return expand_in(one, word, self._values)
        except DuckweedError:
            return word

    def _take_mount(self, one: Instruction, text: str) -> None:
        try:
            mount = parse_mount(text, lambda word: self._expanded(one, word))
        except ValueError:
            return  # the build says it
        if mount.kind == "secret":
            name = mount.id or mount.source or mount.target.rpartition("/")[2]
            self._require(self.secrets, name, mount.required, one)
        elif mount.kind == "ssh":
            self._require(self.agents, mount.id or "default", mount.required, one)
        elif mount.kind == "cache":
            name = mount.id or mount.target
            self.caches.setdefault(name, {"id": name, "location": _location(one)})

    def _require(self, to: dict[str, dict[str, Any]], name: str, required: bool, one: Instruction) -> None:
        entry = to.setdefault(name, {"name": name, "location": _location(one)})
        if required:
            entry["required"] = True


def _description(one: Instruction, name: str) -> str:
    """The comment above that begins with the name."""
    for comment in one.line.comments:
        first, _, rest = comment.partition(" ")
        if name and first.rstrip(":") == name:
            return rest.strip()
    return ""


def _location(one: Instruction) -> dict[str, Any]:
    return location(one.line.first, one.line.last)


def location(first: int, last: int) -> dict[str, Any]:
    """Lines of the Dockerfile as BuildKit's documents name them."""
    return {"ranges": [{"start": {"line": first}, "end": {"line": last}}]}
