"""The build cache as `system df` shows it and `builder prune` empties it."""

from __future__ import annotations

import os
import time

from duckweed.errors import UsageError
from duckweed.oci import timestamp
from duckweed.store import build_records, references, scratch
from duckweed.store.tree import discard_tree
from duckweed.store.usage import tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.engine import Engine

_FILTERS = ("until", "unused-for", "type", "id", "inuse", "shared", "private", "description")


class CacheEntry:
    """A layer of the cache with all its keys, or a cache directory; `used` is seconds since 1970."""

    __slots__ = ("created", "description", "id", "is_shared", "keys", "kind", "path", "size", "used")

    def __init__(self, id: str, kind: str, description: str, size: int, created: str, used: float) -> None:
        self.id = id
        self.kind = kind
        self.description = description
        self.size = size
        self.created = created
        self.used = used
        self.keys: list[str] = []
        self.path = ""
        self.is_shared = False

    def row(self) -> dict[str, Any]:
        """Docker's build cache dict."""
        return {
            "ID": self.id[:25],
            "Parents": None,
            "Type": self.kind,
            "Description": self.description,
            "InUse": False,
            "Shared": self.is_shared,
            "Size": self.size,
            "CreatedAt": self.created,
            "LastUsedAt": timestamp.from_unix_ns(int(self.used * 10**9)),
            "UsageCount": len(self.keys) or 1,
        }


def entries(engine: Engine) -> list[CacheEntry]:
    """What is in the cache, what was used last first."""
    layout = engine.layout
    found: dict[str, CacheEntry] = {}
    in_images = references.walk(layout, with_builds=False).chains
    for key, record, used in build_records.records(layout):
        chain = record["chain"]
        entry = found.get(chain)
        if entry is None:
            size = record.get("size")
            entry = found[chain] = CacheEntry(
                chain[7:],
                str(record.get("kind") or "regular"),
                str(record.get("description") or ""),
                size if isinstance(size, int) else 0,
                str(record.get("created") or ""),
                used,
            )
            entry.is_shared = chain[7:] in in_images
        entry.keys.append(key)
        entry.used = max(entry.used, used)
    return sorted([*found.values(), *_mounts(engine)], key=lambda entry: -entry.used)


def _mounts(engine: Engine) -> list[CacheEntry]:
    layout = engine.layout
    directory = layout.build + "/mounts"
    found = []
    for name in scratch.list_directory(directory):
        path = f"{directory}/{name}"
        try:
            facts = os.stat(path)
        except OSError:
            continue
        identity = str((scratch.read_json(path + "/mount.json") or {}).get("id") or name)
        size = tree_bytes(path + "/fs", lambda: engine.place().layers)
        created = timestamp.from_unix_ns(int(facts.st_mtime * 10**9))
        entry = CacheEntry(
            name.partition(".")[0],
            "exec.cachemount",
            f"cache mount {identity}",
            size,
            created,
            facts.st_mtime,
        )
        entry.path = path
        found.append(entry)
    return found


def usage(engine: Engine) -> dict[str, Any]:
    """`BuildCache` rows and `BuilderSize`, the bytes that no image has: for docker's /system/df."""
    found = entries(engine)
    return {
        "BuildCache": [entry.row() for entry in found],
        "BuilderSize": sum(entry.size for entry in found if not entry.is_shared),
    }


def prune(
    engine: Engine, *, all: bool, filters: Mapping[str, Sequence[str]], keep_bytes: int
) -> dict[str, Any]:
    """Removes what is not in use: docker's `{"CachesDeleted", "SpaceReclaimed"}`.

    Without `all` what an image still has stays in the cache, for it costs nothing. `keep_bytes` of what was
    used last stay in any case. Raises UsageError.
    """
    doomed = [entry for entry in entries(engine) if _matches(entry, filters)]
    if not all:
        doomed = [entry for entry in doomed if not entry.is_shared]
    kept = 0
    for entry in list(doomed):  # what was used last first
        if kept + entry.size <= keep_bytes:
            kept += entry.size
            doomed.remove(entry)
    return _remove(engine, doomed)


def _remove(engine: Engine, doomed: list[CacheEntry]) -> dict[str, Any]:
    layout = engine.layout
    names: list[str] = []
    deleted, freed = [], 0
    by_chain: dict[str, list[str]] = {}
    for name in scratch.list_directory(layout.layers):
        by_chain.setdefault(name.partition(".")[0], []).append(name)
    for entry in doomed:
        if entry.path:
            if _is_claimed(entry.path):
                continue
            if discard_tree(layout, entry.path, engine.place().layers):
                freed += entry.size
                deleted.append(entry.id)
            continue
        for key in entry.keys:
            scratch.discard_file(f"{layout.build}/keys/{key}.json")
        deleted.append(entry.id)
        for name in by_chain.get(entry.id, ()):
            names.append(name)
            blob = (scratch.read_json(f"{layout.layers}/{name}/layer.json") or {}).get("blob")
            if isinstance(blob, str):
                names.append(blob[7:])
    freed += references.collect(layout, dict.fromkeys(names))[1]
    return {"CachesDeleted": deleted, "SpaceReclaimed": freed}


def _is_claimed(path: str) -> bool:
    return any(
        entry.startswith("claim.") and not scratch.is_stale(entry[6:].rpartition(".")[0] + "-")
        for entry in scratch.list_directory(path)
    )


def _matches(entry: CacheEntry, filters: Mapping[str, Sequence[str]]) -> bool:
    for name, values in filters.items():
        if name not in _FILTERS:
            raise UsageError(f"invalid filter `{name}`", f"filters are {', '.join(_FILTERS)}", exit_code=1)
        if not any(_fits(entry, name, value) for value in values):
            return False
    return True


def _fits(entry: CacheEntry, name: str, value: str) -> bool:
    if name in ("until", "unused-for"):
        from duckweed.dockerfile.health import parse_duration

        try:
            age_s = parse_duration(value) / 10**9
        except ValueError as error:
            raise UsageError(f"invalid filter `{name}={value}`: {error}", "write it as `24h`") from None
        return time.time() - entry.used > age_s
    if name == "type":
        return entry.kind == value
    if name == "id":
        return entry.id.startswith(value)
    if name == "description":
        return value in entry.description
    wanted = value.lower() in ("", "true", "1")
    actual = {"inuse": False, "shared": entry.is_shared, "private": not entry.is_shared}[name]
    return actual == wanted
