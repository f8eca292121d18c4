"""tmp/: where everything is made before it has a name, and where everything goes before it is deleted.

An entry is called `<owner>-<what>-<random>`, and the owner is `<boot id, 8 hex>.<pid>.<start ticks>`:
enough for anyone to tell, without a lock, whether its maker still lives. What a dead maker left may be
removed by whoever sees it.
"""

from __future__ import annotations

import json
import os
import time

from duckweed import _core
from duckweed.store.layout import cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.layout import Layout

_REMOVALS = frozenset(("gone", "goneVolume", "remove", "rm", "name", "claim"))
_ANOTHERS_S = 3600.0
_owner: tuple[int, str] | None = None
_boot = ""


def boot_id() -> str:
    """The kernel's id of this boot, read once a process."""
    global _boot
    if not _boot:
        _boot = _core.boot_id()
    return _boot


def owner() -> str:
    """This process as the first part of an entry's name; asked anew after a fork."""
    global _owner
    pid = os.getpid()
    if _owner is None or _owner[0] != pid:
        _owner = (pid, f"{boot_id().replace('-', '')[:8]}.{pid}.{_core.process_start(pid) or 0}")
    return _owner[1]


def is_stale(entry: str) -> bool:
    """Whether the maker of this entry of tmp/ is dead. Names that are not ours count as stale."""
    parts = entry.partition("-")[0].split(".")
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        # `version.<pid>` of a store being made is the one other name.
        word, _, pid = entry.partition(".")
        return not (word == "version" and pid.isdigit() and _core.process_start(int(pid)) is not None)
    if parts[0] != boot_id().replace("-", "")[:8]:
        return True
    return _core.process_start(int(parts[1])) != int(parts[2])


def is_abandoned(entry: str, path: str) -> bool:
    """Whether what stands at `path` was left by a dead maker, whose name `entry` begins with.

    A maker of another boot may as well live on another machine that shares the store, so what it has touched
    within an hour is not taken from it; but a removal may be finished by anybody.
    """
    if not is_stale(entry):
        return False
    boot, _, _ = entry.partition(".")
    is_removal = entry.partition("-")[2].partition("-")[0] in _REMOVALS
    if is_removal or boot == boot_id().replace("-", "")[:8] or "." not in entry.partition("-")[0]:
        return True
    try:
        return time.time() - os.lstat(path).st_mtime > _ANOTHERS_S
    except OSError:
        return False


def new_path(layout: Layout, what: str, top: str = "") -> str:
    """A fresh path in tmp/ (or in `top`); nothing is there yet. `what` has no dash."""
    return f"{top or layout.tmp}/{owner()}-{what}-{os.urandom(8).hex()}"


def new_directory(layout: Layout, what: str, top: str = "") -> str:
    """A fresh empty directory in tmp/ (or in `top`). Raises StoreError."""
    path = new_path(layout, what, top)
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise cannot("write in", top or layout.tmp, error) from None
    return path


def beside(layout: Layout, path: str) -> str:
    """The tmp/ from which a rename reaches `path`: the store's, or that of the scratch directory."""
    return layout.tree_tmp if path.startswith(layout.trees + "/") else layout.tmp


def write_file(layout: Layout, path: str, content: bytes, *, durable: bool = False) -> None:
    """Puts `content` at `path` whole: a reader sees the old file or the new one. `durable` fsyncs first.

    Raises StoreError.
    """
    half = new_path(layout, "file", beside(layout, path))
    try:
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(half, path)
    except OSError as error:
        discard_file(half)
        raise cannot("write", path, error) from None


def write_json(layout: Layout, path: str, document: dict[str, Any], *, durable: bool = False) -> None:
    """As `write_file`, for a JSON document."""
    write_file(layout, path, json.dumps(document, separators=(",", ":")).encode(), durable=durable)


def read_json(path: str) -> dict[str, Any] | None:
    """A JSON document of ours; None when there is none. Raises StoreError for one that cannot be read.

    A document that is no JSON object is as good as absent: only a broken disk makes one.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot("read", path, error) from None
    try:
        document = json.loads(content or b"null")
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def discard_file(path: str) -> bool:
    """Unlinks a file; false when it was not there."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def list_directory(path: str) -> list[str]:
    """The entries of a directory; none when it does not exist. Raises StoreError."""
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot("read", path, error) from None
