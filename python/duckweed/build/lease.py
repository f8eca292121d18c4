"""A lease: the layers that a running build stands on, written down so that no remover takes them away."""

from __future__ import annotations

import os
import threading

from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckweed.store.layout import Layout


class Lease:
    """The lease of one build; nothing is written before there is something to keep."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._chains: set[str] = set()
        self._lock = threading.Lock()
        self._path = f"{layout.build}/leases/{scratch.owner()}-build-{os.urandom(8).hex()}.json"

    def keep(self, chain_ids: Iterable[str]) -> None:
        """Adds layers by their chain ids, before the caller looks whether they are there."""
        with self._lock:
            new = set(chain_ids) - self._chains
            if not new:
                return
            self._chains |= new
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            scratch.write_json(self._layout, self._path, {"chains": sorted(self._chains)})

    def end(self) -> None:
        """Lets go of everything."""
        scratch.discard_file(self._path)
