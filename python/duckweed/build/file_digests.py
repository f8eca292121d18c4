"""Digests of a context's files, remembered: what has not changed since is not read again.

A file is known by inode, size, time of change and time of status change, so restoring an old mtime deceives
nobody. A file whose times are younger than the look at it could change again within one tick of the clock,
and is read again next time. The key of a step is made of digests alone: touching a file costs one reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.store.layout import Layout

_CHUNK = 1 << 20
_TICK_NS = 2_000_000_000


class FileDigests:
    """The memory of one context, kept at `path` between builds."""

    __slots__ = ("_changed", "_entries", "_layout", "_path", "_used")

    def __init__(self, layout: Layout, path: str) -> None:
        self._layout = layout
        self._path = path
        self._entries: dict[str, list[object]] | None = None
        self._used: dict[str, list[object]] = {}
        self._changed = False

    def digest(self, path: str, facts: os.stat_result) -> str:
        """The SHA-256 of a file's contents, in hex."""
        identity = [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
        if self._entries is None:
            self._entries = self._read()
        known = self._entries.get(path)
        if known is not None and known[:4] == identity:
            self._used[path] = known
            return str(known[4])
        before = time.time_ns()
        digest = file_digest(path)
        if max(facts.st_mtime_ns, facts.st_ctime_ns) < before - _TICK_NS:
            self._used[path] = [*identity, digest]
        self._changed = True
        return digest

    def _read(self) -> dict[str, list[object]]:
        document = scratch.read_json(self._path) or {}
        files = document.get("files")
        return files if isinstance(files, dict) else {}

    def keep(self) -> None:
        """Writes the memory down when there is something new in it."""
        if self._changed and self._used:
            merged = {**(self._entries or {}), **self._used}
            try:
                content = json.dumps({"files": merged}, separators=(",", ":")).encode()
            except UnicodeEncodeError:  # a name that is no text: not remembered
                return
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            scratch.write_file(self._layout, self._path, content)
            self._changed = False


def file_digest(path: str) -> str:
    """The SHA-256 of a file's contents, read without following a link."""
    state = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while True:
            chunk = os.read(fd, _CHUNK)
            if not chunk:
                return state.hexdigest()
            state.update(chunk)
    finally:
        os.close(fd)
