"""Layers that a cache elsewhere knows: found by their keys at once, fetched when something needs their files.

So a step whose layer only later steps stand on, which are all known too, is never fetched at all.
"""

from __future__ import annotations

import os
import threading

from duckweed.build.cache_places import open_place
from duckweed.errors import BuildError, DuckweedError
from duckweed.oci.digest import next_chain_id
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckweed.build.cache import BuildCache
    from duckweed.build.cache_places import CacheSpec, Place, Record
    from duckweed.build.progress import Progress
    from duckweed.oci.platform import Platform
    from duckweed.registry.registries import Registries
    from duckweed.store.layout import Layout

_AT_ONCE = 3


class DistantLayers:
    """The records of all caches of `--cache-from`, the first to know a key before the others."""

    def __init__(self, layout: Layout, progress: Progress, registries: Registries) -> None:
        self._layout = layout
        self._progress = progress
        self._registries = registries
        self._by_key: dict[str, Record] = {}
        self._by_chain: dict[str, tuple[Record, Place]] = {}
        self._lock = threading.Lock()

    def add(self, spec: CacheSpec, platform: Platform) -> None:
        """Reads a cache; one that cannot be had is mentioned and done without, as there may be none yet."""
        vertex = self._progress.begin(f"importing cache manifest from {_name(spec)}")
        try:
            place = open_place(spec, self._registries, platform)
        except (DuckweedError, OSError) as error:
            vertex.fail(error.message if isinstance(error, DuckweedError) else str(error))
            return
        for record in place.records:
            # The layer's name must be what its parts give, or it would be another's.
            below = [record.parent] if record.parent else []
            if next_chain_id(below, record.diff_id) != record.chain_id:
                continue
            self._by_chain.setdefault(record.chain_id, (record, place))
            for key in record.keys:
                self._by_key.setdefault(key, record)
        vertex.done()

    def find(self, key: str) -> Record | None:
        """What a key led to."""
        return self._by_key.get(key)

    def knows(self, chain_id: str) -> bool:
        """Whether a layer can be fetched."""
        return chain_id in self._by_chain

    def record(self, chain_id: str) -> Record:
        """What is known of a layer that `knows` says is there."""
        return self._by_chain[chain_id][0]

    def fetch(self, chain_ids: Sequence[str]) -> dict[str, str]:
        """Files in tmp/ with the blobs of these layers, several fetched at once; the caller removes them.
        Raises BuildError.
        """
        paths = {chain_id: scratch.new_path(self._layout, "distant") for chain_id in chain_ids}
        waiting = list(chain_ids)
        failed: list[BaseException] = []

        def work() -> None:
            while not failed:
                with self._lock:
                    if not waiting:
                        return
                    chain_id = waiting.pop(0)
                try:
                    self._fetch_one(chain_id, paths[chain_id])
                except BaseException as error:
                    failed.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, len(waiting)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            for path in paths.values():
                scratch.discard_file(path)
            words = failed[0].message if isinstance(failed[0], DuckweedError) else str(failed[0])
            raise BuildError(f"cannot fetch a cached layer: {words}", "build without that `--cache-from`")
        return paths

    def _fetch_one(self, chain_id: str, path: str) -> None:
        record, place = self._by_chain[chain_id]
        assert record.blob is not None
        vertex = self._progress.begin(f"fetching cached layer {record.blob.digest[7:19]}", internal=True)
        try:
            place.fetch(record.blob, path)
        except (DuckweedError, OSError) as error:
            vertex.fail(error.message if isinstance(error, DuckweedError) else str(error))
            raise
        vertex.status(f"{record.description[:60]}: {os.path.getsize(path)}B done")
        vertex.done()

    def arrived(self, chain_id: str, cache: BuildCache) -> None:
        """A layer is in the store now: its keys lead there."""
        record, _ = self._by_chain[chain_id]
        for key in record.keys:
            cache.put(key, record)


def _name(spec: CacheSpec) -> str:
    return spec.options.get("ref") or f"{spec.options.get('src', '')}"
