"""Repair: what a killed process left is put right by whoever comes next.

Every step here may itself be killed and is then done again by the next. `sweep_quick` looks at tmp/ alone
and is cheap enough for any command; when it finds something, somebody died, and the engine goes on to
`sweep`, which also looks for containers whose supervisor died, for names that point nowhere, for what
containers wrote into a scratch directory before they vanished, and for blobs and layers of loads that never
ended. Prunes and `system df` sweep in any case.
"""

from __future__ import annotations

import os
import time

from duckweed.errors import DuckweedError
from duckweed.store import references, scratch
from duckweed.store.containers import EXITED, RUNNING, ContainerStore
from duckweed.store.layers import flavour_on_disk
from duckweed.store.tree import discard_tree, remove_tree
from duckweed.store.volumes import VolumeStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

FORGOTTEN_S = 86400.0
"""How long a pull may be interrupted before what it had brought is given up, in seconds."""


def sweep_quick(layout: Layout, flavour: Callable[[], Flavour | None] = lambda: None) -> int:
    """Removes what dead processes left in tmp/; returns how much there was. Never raises.

    `flavour` finds out whose ids may own files in what is removed; it is asked only when plain removal was
    not enough.
    """
    swept = 0
    for top in {layout.tmp, layout.tree_tmp}:
        try:
            entries = scratch.list_directory(top)
        except DuckweedError:
            continue
        for entry in entries:
            if scratch.is_abandoned(entry, f"{top}/{entry}"):
                swept += 1
                try:
                    _sweep_entry(layout, top, entry, flavour)
                except DuckweedError:
                    continue  # the next command tries again
    return swept


def _sweep_entry(layout: Layout, top: str, entry: str, flavour: Callable[[], Flavour | None]) -> None:
    path = f"{top}/{entry}"
    what = entry.split("-")[1] if entry.count("-") >= 2 else ""
    if what in ("gone", "goneVolume"):
        # Taken by a living process first, lest two of us finish the same removal at once.
        mine = scratch.new_path(layout, what, top)
        try:
            os.rename(path, mine)
        except OSError:
            return
        if what == "gone":
            references.finish(layout, mine)
        else:
            VolumeStore(layout, flavour).finish(mine)
        return
    if not remove_tree(path):
        remove_tree(path, flavour())


def sweep(
    layout: Layout, flavour: Callable[[], Flavour | None] = lambda: None, running: str = ""
) -> dict[str, list[str]]:
    """Puts everything right that can be told to be wrong: `{"lost", "removed", "names"}` (container ids,
    names).

    `lost` are containers whose supervisor died: now `exited` with code 137, and removed when they were to
    be. `running` is the scratch directory of containers.
    """
    sweep_quick(layout, flavour)
    store = ContainerStore(layout)
    report: dict[str, list[str]] = {"lost": [], "removed": [], "names": []}
    for container_id, record in store.records():
        try:
            _repair_container(layout, store, container_id, record, flavour, report)
        except DuckweedError:
            continue
    for name in scratch.list_directory(layout.names):
        holder = store.holder(name)
        if holder and store.release_if_stale(name, holder):
            report["names"].append(name)
    for top in {running, layout.trees} - {"", layout.root}:
        _sweep_written(layout, store, top, flavour)
    if layout.trees != layout.root:
        _sweep_trees(layout)
    references.collect(layout, _forgotten(layout))
    return report


def _sweep_written(
    layout: Layout, store: ContainerStore, top: str, flavour: Callable[[], Flavour | None]
) -> None:
    """Removes what containers wrote in a scratch directory that are no more; one that is being made has a
    draft.
    """
    for container_id in scratch.list_directory(top + "/containers"):
        path = f"{top}/containers/{container_id}"
        if not store.is_coming_or_there(container_id) and not remove_tree(path):
            remove_tree(path, flavour())


def _sweep_trees(layout: Layout) -> None:
    """Removes layers from a store that has them in a scratch directory by now, unless a container needs
    them.
    """
    live = references.walk(layout, lambda config: False)
    for name in scratch.list_directory(layout.root + "/layers"):
        if name not in live.layers:
            path = f"{layout.root}/layers/{name}"
            discard_tree(layout, path, flavour_on_disk(path))


def _forgotten(layout: Layout) -> list[str]:
    """Blobs and layers that have been there for a day: those of them that nobody refers to are of a load or
    pull that nobody will end.
    """
    limit = time.time() - FORGOTTEN_S
    old = []
    for name in references.everything(layout):
        try:
            if os.stat(references.final(layout, name)).st_ctime < limit:
                old.append(name)
        except OSError:
            continue  # removed meanwhile
    return old


def _repair_container(
    layout: Layout,
    store: ContainerStore,
    container_id: str,
    record: dict[str, Any],
    flavour: Callable[[], Flavour | None],
    report: dict[str, list[str]],
) -> None:
    before = (store.state(container_id) or {}).get("status")
    status, state = store.status(container_id)
    if before == RUNNING and status == EXITED:
        report["lost"].append(container_id)
    maker = record.get("ephemeral")
    if maker:
        # Made by `engine.run` for one call: without caller and supervisor nobody else removes it.
        doomed = status != RUNNING and scratch.is_abandoned(str(maker) + "-", store.path(container_id))
    else:
        doomed = status == EXITED and bool((state or {}).get("auto_remove"))
    if doomed:
        store.remove(container_id, flavour())
        report["removed"].append(container_id)
        _remove_anonymous(layout, record, flavour)


def _remove_anonymous(layout: Layout, record: dict[str, Any], flavour: Callable[[], Flavour | None]) -> None:
    volumes = VolumeStore(layout, flavour)
    for mount in record.get("Mounts") or ():
        if isinstance(mount, dict) and mount.get("Type") == "volume" and mount.get("Anonymous"):
            try:
                volumes.remove(str(mount.get("Name")), force=True)
            except DuckweedError:
                continue
