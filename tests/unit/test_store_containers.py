"""Containers on disk: names won by one, ids found by their beginning, states believed as far as the kernel
confirms.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from duckweed import _core
from duckweed.errors import Conflict, DuckweedError, NameInUse, NoSuchContainer
from duckweed.store import repair
from duckweed.store.containers import ContainerStore
from duckweed.store.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / "store"))
    layout.ensure()
    return layout


@pytest.fixture
def store(layout: Layout) -> ContainerStore:
    return ContainerStore(layout)


def make(store: ContainerStore, name: str | None, **record: Any) -> str:
    draft = store.draft()
    store.commit(draft, name, {"Id": draft.id, "Name": f"/{name}" if name else "", **record})
    return draft.id


def running(**changes: Any) -> dict[str, Any]:
    me = os.getpid()
    state = {"status": "running", "supervisor_pid": me, "supervisor_start": _core.process_start(me)}
    return {**state, "boot_id": _core.boot_id(), "host": os.uname().nodename, "exit_code": None, **changes}


def set_state(store: ContainerStore, container_id: str, state: dict[str, Any]) -> None:
    Path(store.path(container_id), "state.json").write_text(json.dumps(state))


def test_container_is_found_by_id_name_and_beginning(store: ContainerStore) -> None:
    container_id = make(store, "web")
    for asked in (container_id, "web", "/web", container_id[:12], container_id[:3]):
        assert store.resolve(asked) == container_id
    for asked in ("", ".", "..", "nope", "../containers", "a/b", "0" * 64):
        with pytest.raises(NoSuchContainer):
            store.resolve(asked)


def test_beginning_of_two_ids_is_a_conflict(store: ContainerStore, layout: Layout) -> None:
    for last in "01":
        os.mkdir(layout.container("ab" + last * 62))
    with pytest.raises(Conflict, match="multiple IDs"):
        store.resolve("ab")


def test_of_many_claims_of_one_name_exactly_one_wins(store: ContainerStore) -> None:
    won: list[str] = []
    lost: list[str] = []

    def claim() -> None:
        try:
            won.append(make(store, "web"))
        except NameInUse as error:
            lost.append(error.message)

    threads = [threading.Thread(target=claim) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 15)
    assert store.resolve("web") == won[0]
    assert all(
        message.startswith('Conflict. The container name "/web" is already in use') for message in lost
    )


def test_name_of_a_vanished_container_is_free_again(store: ContainerStore, layout: Layout) -> None:
    os.symlink("f" * 64, layout.name("web"))
    assert store.resolve("web") if make(store, "web") else False


def test_name_of_a_living_draft_is_not_free(store: ContainerStore, layout: Layout) -> None:
    draft = store.draft()
    os.symlink(draft.id, layout.name("web"))
    with pytest.raises(NameInUse):
        make(store, "web")
    assert repair.sweep(layout)["names"] == []
    store.abandon(draft)
    assert repair.sweep(layout)["names"] == ["web"]


def test_renamed_container_gives_its_old_name_back(store: ContainerStore) -> None:
    container_id, other = make(store, "one"), make(store, "two")
    with pytest.raises(NameInUse):
        store.rename(container_id, "two")
    store.rename(container_id, "three")
    assert store.resolve("three") == container_id
    assert store.read(container_id)["Name"] == "/three"
    assert make(store, "one") not in (container_id, other)


def test_removed_container_leaves_neither_directory_nor_name(store: ContainerStore, layout: Layout) -> None:
    container_id = make(store, "web")
    locked = Path(store.path(container_id), "upper/locked")
    locked.mkdir(parents=True)
    (locked / "file").touch()
    locked.chmod(0)
    store.remove(container_id)
    assert [os.listdir(path) for path in (layout.containers, layout.names, layout.tmp)] == [[], [], []]
    with pytest.raises(NoSuchContainer):
        store.remove(container_id)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (None, "created"),
        (running(), "running"),
        (running(host="elsewhere", supervisor_pid=4194304), "running"),
        (running(supervisor_start=1), "exited"),
        (running(boot_id="another boot"), "exited"),
        (running(supervisor_pid=0), "exited"),
        (running(supervisor_pid="x"), "exited"),
        ({"status": "exited", "exit_code": 3}, "exited"),
    ],
)
def test_state_is_believed_as_far_as_the_kernel_confirms(
    store: ContainerStore, state: dict[str, Any] | None, status: str
) -> None:
    container_id = make(store, None)
    if state is not None:
        set_state(store, container_id, state)
    assert store.status(container_id)[0] == status


def test_lost_container_is_recorded_with_137(store: ContainerStore) -> None:
    container_id = make(store, None)
    set_state(store, container_id, running(supervisor_start=1))
    store.status(container_id)
    state = store.state(container_id)
    assert state is not None and (state["status"], state["exit_code"]) == ("exited", 137)
    assert state["finished_at"].endswith("Z")


def test_sweep_removes_lost_containers_that_were_to_be_removed(store: ContainerStore, layout: Layout) -> None:
    kept, doomed = make(store, "kept"), make(store, "doomed")
    set_state(store, kept, running(supervisor_start=1))
    set_state(store, doomed, running(supervisor_start=1, auto_remove=True))
    orphan, anothers = (make(store, None, ephemeral="ffffffff.1.1") for _ in range(2))
    os.utime(store.path(orphan), (1, 1))
    mine = make(store, None, ephemeral=repair.scratch.owner())
    report = repair.sweep(layout)
    assert sorted(report["lost"]) == sorted([kept, doomed])
    assert sorted(report["removed"]) == sorted([doomed, orphan])
    assert sorted(store.ids()) == sorted([kept, mine, anothers])
    assert os.listdir(layout.names) == ["kept"]


def test_damaged_records_break_no_listing(store: ContainerStore, layout: Layout) -> None:
    good, bad = make(store, "good"), make(store, "bad")
    Path(store.path(bad), "container.json").write_bytes(b"\0\0")
    Path(layout.containers, "junk").touch()
    assert [container_id for container_id, _ in store.records()] == [good]


def test_store_of_another_version_is_refused(tmp_path: Path) -> None:
    Layout(str(tmp_path)).ensure()
    (tmp_path / "version").write_text("7\n")
    with pytest.raises(DuckweedError, match="version '7'"):
        Layout(str(tmp_path)).ensure()
