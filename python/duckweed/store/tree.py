"""Removing trees that images and containers filled.

Nothing in such a tree is trusted: directories may be unreadable, links point anywhere, names are any bytes,
and files may belong to subordinate ids. So everything goes through directory descriptors and never through
a path a second time, and what plain removal must leave is removed inside the user namespace that owns it.
"""

from __future__ import annotations

import os
import stat

from duckweed.errors import DuckweedError
from duckweed.store import scratch, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str, flavour: Flavour | None = None) -> bool:
    """Removes `path` and all below it; true when nothing is left. Never raises: what stays is swept another
    day.

    `flavour` says whose ids own the files, when others than ours do.
    """
    head, tail = os.path.split(path)
    try:
        parent = os.open(head, _DIRECTORY)
    except OSError:
        return not os.path.lexists(path)
    try:
        gone = _remove_entry(parent, tail)
    finally:
        os.close(parent)
    if gone or flavour is None or not flavour.uid_map:
        return gone
    try:
        within.run(flavour.uid_map, flavour.gid_map, "remove", path)
    except DuckweedError:
        return False
    return not os.path.lexists(path)


def discard_tree(layout: Layout, path: str, flavour: Flavour | None = None) -> bool:
    """Takes a tree away from its final path, in one rename, then removes it. False when it was not there."""
    gone = scratch.new_path(layout, "remove", scratch.beside(layout, path))
    try:
        os.rename(path, gone)
    except OSError:
        return False
    remove_tree(gone, flavour)
    return True


def _remove_entry(parent: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=parent)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        pass  # EISDIR, or EPERM: it is a directory, or cannot be removed at all
    return _remove_directories(parent, name)


def _remove_directories(parent: int, name: str) -> bool:
    """Empties and removes one directory; a stack in place of recursion, for an image may nest a thousand
    deep.

    The stack holds names and devices only: a descriptor a level would run into RLIMIT_NOFILE, so going up
    is `..`, checked against the directory we came from.
    """
    try:
        here = _enter(parent, name)
    except OSError:
        return False
    stack = [(name, _identity(here))]
    blocked: list[set[str]] = [set()]
    try:
        while True:
            below = _empty(here, blocked[-1])
            if below is not None:
                try:
                    inner = _enter(here, below)
                except OSError:
                    blocked[-1].add(below)
                    continue
                os.close(here)
                here = inner
                stack.append((below, _identity(here)))
                blocked.append(set())
                continue
            done, _ = stack.pop()
            blocked.pop()
            if not stack:
                break
            up = os.open("..", _DIRECTORY, dir_fd=here)
            os.close(here)
            here = up
            if _identity(here) != stack[-1][1]:  # moved under our feet: stop rather than follow
                return False
            try:
                os.rmdir(done, dir_fd=here)
            except OSError:
                blocked[-1].add(done)
    except OSError:
        return False
    finally:
        os.close(here)
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    return True


def _identity(fd: int) -> tuple[int, int]:
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino


def _enter(parent: int, name: str) -> int:
    """Opens a directory, making it ours to read and write first when its mode forbids."""
    facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(name)
    if facts.st_mode & 0o700 != 0o700 and facts.st_uid == os.geteuid():
        # chmod has no O_NOFOLLOW on old kernels; the entry was a directory a line ago and tmp/ is ours alone.
        os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _empty(fd: int, blocked: set[str]) -> str | None:
    """Unlinks all but directories; the name of one directory that is left and not known to be blocked."""
    found = None
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in blocked and found is None:
                    found = entry.name
                continue
            try:
                os.unlink(entry.name, dir_fd=fd)
            except OSError:
                blocked.add(entry.name)
    return found
