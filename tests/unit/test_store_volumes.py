"""Volumes: made once, kept while used, removed with what is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from duckweed.errors import InUse, NoSuchVolume, Unsupported, UsageError
from duckweed.store import repair
from duckweed.store.layout import Layout
from duckweed.store.volumes import VolumeStore


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "store"))


@pytest.fixture
def store(layout: Layout) -> VolumeStore:
    return VolumeStore(layout)


def use(layout: Layout, name: str) -> str:
    container_id = os.urandom(32).hex()
    path = Path(layout.container(container_id))
    path.mkdir()
    (path / "container.json").write_text(json.dumps({"Mounts": [{"Type": "volume", "Name": name}]}))
    return container_id


def test_volume_is_made_once_and_keeps_its_data(store: VolumeStore) -> None:
    first = store.create("data", labels={"a": "b"})
    Path(first.mountpoint, "file").write_text("kept")
    again = store.create("data", labels={"c": "d"})
    assert Path(again.mountpoint, "file").read_text() == "kept"
    assert again.attrs["Labels"] == {"a": "b"}
    assert set(again.attrs) == {"CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"}


def test_volume_without_a_name_gets_64_digits(store: VolumeStore) -> None:
    assert len(store.create().name) == 64


def test_volume_in_use_stays_and_says_by_whom(store: VolumeStore, layout: Layout) -> None:
    store.create("data")
    container_id = use(layout, "data")
    for force in (False, True):
        with pytest.raises(InUse) as caught:
            store.remove("data", force=force)
        assert caught.value.message == f"remove data: volume is in use - [{container_id}]"
    assert store.get("data")


def test_removed_volume_is_gone_with_its_data(store: VolumeStore, layout: Layout) -> None:
    volume = store.create("data")
    Path(volume.mountpoint, "deep/er").mkdir(parents=True)
    volume.remove()
    assert os.listdir(layout.volumes) == os.listdir(layout.tmp) == []
    with pytest.raises(NoSuchVolume, match="get data: no such volume"):
        store.remove("data")
    store.remove("data", force=True)


@pytest.mark.parametrize("name", ["a", "../x", "-x", ".hidden", "a/b", "a b", "a\n", "ä" * 3, "x" * 300])
def test_bad_volume_name_is_refused(store: VolumeStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.create(name)
    with pytest.raises(NoSuchVolume):
        store.get(name)


def test_bind_option_names_a_directory_and_its_removal_spares_it(store: VolumeStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    volume = store.create("data", opts={"type": "none", "o": "bind", "device": str(precious)})
    assert volume.mountpoint == str(precious)
    volume.remove()
    assert (precious / "file").exists()


def test_real_mounts_are_refused(store: VolumeStore, tmp_path: Path) -> None:
    for opts in ({"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}, {"type": "tmpfs", "device": "tmpfs"}):
        with pytest.raises(Unsupported):
            store.create("data", opts=opts)
    with pytest.raises(UsageError):
        store.create("data", opts={"type": "none", "o": "bind", "device": str(tmp_path / "missing")})
    with pytest.raises(Unsupported):
        store.create("data", driver="nfs")


def test_prune_takes_unused_anonymous_volumes_only_unless_told(store: VolumeStore, layout: Layout) -> None:
    anonymous, used = store.create().name, store.create().name
    store.create("named")
    Path(store.get(anonymous).mountpoint, "f").write_bytes(b"12345")
    use(layout, used)
    assert store.prune() == {"VolumesDeleted": [anonymous], "SpaceReclaimed": 5}
    assert store.prune(all=True)["VolumesDeleted"] == ["named"]
    assert [volume.name for volume in store.list()] == [used]


def test_filters_choose(store: VolumeStore, layout: Layout) -> None:
    store.create("data-1", labels={"k": "v"})
    store.create("data-2")
    use(layout, "data-2")
    names = lambda **filters: [volume.name for volume in store.list(filters)]  # noqa: E731
    assert names(name="data") == ["data-1", "data-2"]
    assert names(label="k=v") == ["data-1"]
    assert names(dangling="true") == ["data-1"]
    assert names(dangling=False) == ["data-2"]
    with pytest.raises(UsageError):
        names(color="red")


def test_removal_that_died_half_way_is_undone_for_a_volume_in_use(store: VolumeStore, layout: Layout) -> None:
    Path(store.create("data").mountpoint, "file").write_text("kept")
    gone = Path(layout.tmp) / "ffffffff.1.1-goneVolume-00"
    gone.mkdir()
    os.rename(layout.volume("data"), gone / "data")
    use(layout, "data")
    repair.sweep_quick(layout)
    assert Path(store.get("data").mountpoint, "file").read_text() == "kept"
    assert os.listdir(layout.tmp) == []
