"""Claims on blobs that are to come: of several processes that want one, one fetches it and the others wait.

A claim is a symlink `partial/<hex>.claim` that names its owner, as tmp/ does: symlink(2) is atomic
everywhere, and anyone can tell whether the owner still lives. A dead owner's claim is taken away by rename.
Should two processes ever hold one claim (a claim taken away while its blob was claimed anew), a blob is
fetched twice and nothing worse happens: each writes a part file of its own name, and blobs are put in place
by rename.
"""

from __future__ import annotations

import os
import time

from duckweed.store import scratch
from duckweed.store.layout import cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.store.layout import Layout

_CLAIM = ".claim"
_OLD_S = 14 * 86400


def take(layout: Layout, hex_digits: str) -> bool:
    """Claims a blob; false when somebody who lives has it. Raises StoreError."""
    path = f"{layout.partial}/{hex_digits}{_CLAIM}"
    for _ in range(3):
        try:
            os.symlink(scratch.owner(), path)
            return True
        except FileExistsError:
            pass
        except FileNotFoundError:
            _make(layout)
            continue
        except OSError as error:
            raise cannot("write in", layout.partial, error) from None
        holder = _read(path)
        if holder and not scratch.is_stale(holder + "-"):
            return False
        if holder:
            _break(layout, path, holder)
    return False


def release(layout: Layout, hex_digits: str) -> None:
    """Gives a claim of ours back."""
    path = f"{layout.partial}/{hex_digits}{_CLAIM}"
    if _read(path) == scratch.owner():
        scratch.discard_file(path)


def part_path(layout: Layout, hex_digits: str) -> str:
    """The part file of a blob that we have claimed: what a dead owner left of it is ours now."""
    own = f"{hex_digits}.{scratch.owner()}"
    mine = f"{layout.partial}/{own}"
    sizes: dict[str, int] = {}
    for entry in scratch.list_directory(layout.partial):
        digits, _, holder = entry.partition(".")
        is_part = digits == hex_digits and not entry.endswith(_CLAIM)
        if is_part and (entry == own or scratch.is_stale(holder + "-")):
            sizes[entry] = _size(f"{layout.partial}/{entry}")
    if sizes:
        best = max(sizes, key=lambda entry: (sizes[entry], entry == own))
        try:
            os.rename(f"{layout.partial}/{best}", mine)
        except OSError:
            pass  # it begins from nothing then
        for entry in sizes:
            if entry not in (best, own):
                scratch.discard_file(f"{layout.partial}/{entry}")
    return mine


def sweep(layout: Layout, older_than_s: float = _OLD_S) -> int:
    """Removes parts that nobody is fetching and that have not grown for so long, and dead claims; returns
    the bytes that became free.
    """
    freed = 0
    for entry in scratch.list_directory(layout.partial):
        path = f"{layout.partial}/{entry}"
        if entry.endswith(_CLAIM):
            holder = _read(path)
            if holder and scratch.is_stale(holder + "-"):
                _break(layout, path, holder)
            continue
        if not scratch.is_stale(entry.partition(".")[2] + "-"):
            continue
        try:
            facts = os.stat(path)
        except OSError:
            continue
        if time.time() - facts.st_mtime >= older_than_s and scratch.discard_file(path):
            freed += facts.st_size
    return freed


def _break(layout: Layout, path: str, dead: str) -> None:
    away = scratch.new_path(layout, "claim")
    try:
        os.rename(path, away)
    except OSError:
        return
    taken = _read(away)
    if taken and taken != dead:
        # Somebody had claimed it anew between our look and our rename: it is theirs.
        try:
            os.symlink(taken, path)
        except OSError:
            pass
    scratch.discard_file(away)


def _make(layout: Layout) -> None:
    try:
        os.mkdir(layout.partial, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise cannot("make", layout.partial, error) from None


def _read(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
