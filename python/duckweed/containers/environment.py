"""Environment variables and labels: `-e`, `--env-file`, `-l`, `--label-file`, in Docker's rules and words."""

from __future__ import annotations

import os

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def parse_environment(value: Iterable[str] | Mapping[str, object] | str) -> list[str]:
    """`K=V` lines; a bare `K` (or a `None` in a mapping) takes its value from our environment, or is left
    out.
    """
    if isinstance(value, str):
        value = [value]
    elif hasattr(value, "items"):
        value = [key if text is None else f"{key}={text}" for key, text in value.items()]
    result: list[str] = []
    for entry in value:
        name, equals, _ = entry.partition("=")
        if not name:
            raise UsageError(
                f"invalid environment variable: {entry}", "write `NAME=value`, or `NAME` to pass it on"
            )
        if "\0" in entry:
            raise UsageError(f"invalid environment variable: {name} contains a NUL")
        if equals:
            result.append(entry)
        elif name in os.environ:
            result.append(f"{name}={os.environ[name]}")
    return result


def read_file(path: str, *, inherit: bool) -> list[str]:
    """The `K=V` lines of an env or label file. With `inherit`, a bare `K` is taken from our environment."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"open {path}: {(error.strerror or '').lower()}") from None
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    result: list[str] = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError:
            raise UsageError(f"invalid utf8 bytes at line {number} of `{path}`") from None
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, text = line.partition("=")
        name = name.lstrip()
        if not name:
            raise UsageError(f"no variable name on line '{line}'")
        if any(character.isspace() for character in name):
            raise UsageError(f"poorly formatted environment: variable '{name}' contains whitespaces")
        if equals:
            result.append(f"{name}={text}")
        elif not inherit:
            result.append(f"{name}=")
        elif name in os.environ:
            result.append(f"{name}={os.environ[name]}")
    return result


def parse_labels(value: Iterable[str] | Mapping[str, object] | str) -> dict[str, str]:
    """Labels of `k=v`, `k` (empty value) or a mapping."""
    if isinstance(value, str):
        value = [value]
    elif hasattr(value, "items"):
        return {str(key): "" if text is None else str(text) for key, text in value.items()}
    labels: dict[str, str] = {}
    for entry in value:
        name, _, text = entry.partition("=")
        if not name:
            raise UsageError(f"invalid label '{entry}': empty name")
        labels[name] = text
    return labels


def merge(*lists: Iterable[str]) -> list[str]:
    """One value a name; a later list wins, the first list's order is kept."""
    merged: dict[str, str] = {}
    for entries in lists:
        for entry in entries:
            merged[entry.partition("=")[0]] = entry
    return list(merged.values())
