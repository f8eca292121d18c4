"""`RUN --mount=type=cache`: directories that stay from one build to the next, in no layer.

One is found by its id, and by the flavour of the files in it (whose ids own them). `shared`: any number of
steps use it at once. `locked`: one at a time, the others wait. `private`: whoever finds it in use gets
another. A use is a file `claim.<owner>.<random>` beside the data, so a killed build holds nothing.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time

from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

_PAUSE_S = 0.05
_lock = threading.Lock()


class CacheDirectory:
    """A cache directory in use; `data` is what is mounted."""

    def __init__(self, path: str, claim: str) -> None:
        self.path = path
        self.data = path + "/fs"
        self._claim = claim

    def release(self) -> None:
        """The step is over."""
        scratch.discard_file(self._claim)


class CacheMounts:
    """The cache directories below one root, for files of one flavour."""

    def __init__(self, layout: Layout, flavour: Flavour) -> None:
        self._layout = layout
        self._flavour = flavour.name
        self.path = layout.build + "/mounts"

    def open(self, identity: str, sharing: str, is_cancelled: Callable[[], bool]) -> CacheDirectory:
        """The directory of an id, made when there is none. Waits for a locked one (InterruptedError)."""
        word = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        number = 0
        while True:
            name = f"{word}.{self._flavour}" if number == 0 else f"{word}-{number}.{self._flavour}"
            path = f"{self.path}/{name}"
            with _lock:
                self._make(path, identity)
                claim = self._claim(path, sharing)
            if claim is not None:
                return CacheDirectory(path, claim)
            if sharing == "private":
                number += 1
                continue
            if is_cancelled():
                raise InterruptedError
            time.sleep(_PAUSE_S)

    def _make(self, path: str, identity: str) -> None:
        if os.path.isdir(path + "/fs"):
            return
        os.makedirs(path, mode=0o700, exist_ok=True)
        scratch.write_json(
            self._layout, path + "/mount.json", {"id": identity.encode("utf-8", "replace").decode()}
        )
        os.makedirs(path + "/fs", exist_ok=True)
        os.chmod(path + "/fs", 0o755)

    def _claim(self, path: str, sharing: str) -> str | None:
        """Our claim, or None when another's is in the way. Both claim first and look then: one gives way."""
        mine = f"claim.{scratch.owner()}.{os.urandom(4).hex()}"
        with open(f"{path}/{mine}", "wb") as file:
            file.write(sharing.encode())
        for entry in scratch.list_directory(path):
            if not entry.startswith("claim.") or entry == mine:
                continue
            if scratch.is_stale(entry[len("claim.") :].rpartition(".")[0] + "-"):
                scratch.discard_file(f"{path}/{entry}")
                continue
            if sharing == "shared":
                continue
            scratch.discard_file(f"{path}/{mine}")
            return None
        try:
            os.utime(path)
        except OSError:
            pass
        return f"{path}/{mine}"
