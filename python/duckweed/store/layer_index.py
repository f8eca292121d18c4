"""A layer's index.json from Python: the facts that its tree on disk cannot hold (docs/contracts.md §2).

`rust/layer` writes it at extraction; here it is read and amended for layers that are shared.
"""

from __future__ import annotations

import json

from duckweed.errors import StoreError
from duckweed.store.layout import cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(directory: str) -> dict[str, dict[str, Any]]:
    """The records of a layer's directory by their keys. Raises StoreError."""
    path = directory + "/index.json"
    try:
        with open(path, "rb") as file:
            entries = json.loads(file.read())["entries"]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise cannot("read", path, error) from None
    except (ValueError, KeyError, TypeError):
        entries = None
    if not isinstance(entries, dict):
        raise StoreError(f"cannot read `{path}`: it is damaged")
    return entries


def write(directory: str, entries: dict[str, dict[str, Any]]) -> None:
    """Replaces the index of a layer that nobody uses yet. Raises StoreError."""
    try:
        with open(directory + "/index.json", "w", encoding="utf-8") as file:
            json.dump({"version": 1, "entries": entries}, file, separators=(",", ":"), ensure_ascii=False)
    except OSError as error:
        raise cannot("write", directory + "/index.json", error) from None


def record(mode: int, mtime_ns: int, kind: str, uid: int = 0, gid: int = 0) -> dict[str, Any]:
    """A record as the index writes it."""
    mtime = [mtime_ns // 1_000_000_000, mtime_ns % 1_000_000_000]
    return {"uid": uid, "gid": gid, "mode": mode, "mtime": mtime, "type": kind}


def key(path: bytes) -> str:
    """The key of a path beneath `fs/` ("" is the root): itself but for `%` and bytes that are not UTF-8."""
    text = path.decode("utf-8", "surrogateescape").replace("%", "%25")
    if not text.isascii():
        text = "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)
    return text or "."
