"""Shared stores: what is opened for others, what is found where, and that nothing is written there."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import images as archives
from duckweed.errors import Conflict, NoSuchImage
from duckweed.store import cover, layer_index, repair
from duckweed.store.image import Image
from duckweed.store.images import ImageStore
from duckweed.store.layers import SINGLE
from duckweed.store.layout import Layout

ODD = "a%b\u00e9\udcff"
LAYER = archives.layer(
    [
        (archives.member("etc", tarfile.DIRTYPE), b""),
        (archives.member("etc/shadow", mode=0o640, gid=42), b"secret\n"),
        (archives.member("usr", tarfile.DIRTYPE), b""),
        (archives.member("usr/su", mode=0o4755), b"#!"),
        (archives.member("usr/su2", tarfile.LNKTYPE, linkname="usr/su"), b""),
        (archives.member("usr/tool", mode=0o710), b"#!"),
        (archives.member("root", tarfile.DIRTYPE, mode=0o700), b""),
        (archives.member("root/closed", tarfile.DIRTYPE, mode=0o000), b""),
        (archives.member("root/.profile", mode=0o600), b"me\n"),
        (archives.member("usr/" + ODD, mode=0o600), b"odd"),
        (archives.member("usr/link", tarfile.SYMTYPE, linkname="/etc/shadow"), b""),
    ]
)
TOP = archives.layer(
    [
        (archives.member("root/.wh.closed"), b""),
        (archives.member("usr/.wh.tool"), b""),
        (archives.member("var", tarfile.DIRTYPE), b""),
        (archives.member("var/large"), bytes(cover.LARGEST_FILE + 1)),
    ]
)


@pytest.fixture
def keeper(tmp_path: Path) -> ImageStore:
    """A store with the image `app:1`, which is shared in `srv`."""
    store = ImageStore(Layout(str(tmp_path / "keeper"), ()))
    store.load(str(archives.docker_archive(tmp_path / "a.tar", ["app:1"], [LAYER, TOP])))
    store.share(str(tmp_path / "srv"), ["app:1"])
    return store


@pytest.fixture
def reader(keeper: ImageStore, tmp_path: Path) -> ImageStore:
    """The store of somebody who reads `srv`."""
    return ImageStore(Layout(str(tmp_path / "reader"), (str(tmp_path / "srv"),)))


def everything(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    for directory, names, files in os.walk(top):
        for name in names + files:
            path = os.path.join(directory, name)
            yield os.path.relpath(path, top), os.lstat(path)


def snapshot(top: Path) -> dict[str, tuple[int, int, int]]:
    return {name: (facts.st_mode, facts.st_mtime_ns, facts.st_size) for name, facts in everything(top)}


def test_all_can_read_what_is_shared_and_start_nothing_as_its_keeper(
    reader: ImageStore, tmp_path: Path
) -> None:
    for name, facts in everything(tmp_path / "srv"):
        if name.split("/")[0] in ("blobs", "images", "layers") and stat.S_IFMT(facts.st_mode) in (
            stat.S_IFREG,
            stat.S_IFDIR,
        ):
            assert facts.st_mode & 0o444 == 0o444, name
            assert not facts.st_mode & 0o6000, name
            assert not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o111 == 0o111, name
    for name in ("containers", "tmp", "volumes", "cache"):
        assert (tmp_path / "srv" / name).stat().st_mode & 0o077 == 0


def test_the_index_keeps_the_true_modes(reader: ImageStore) -> None:
    bottom = reader.get("app:1").directories[-1]
    entries = layer_index.read(bottom)
    for path, mode in (
        (b"etc/shadow", 0o640),
        (b"usr/su", 0o4755),
        (b"usr/su2", 0o4755),
        (b"usr/tool", 0o710),
        (b"root", 0o700),
        (b"root/closed", 0),
        (os.fsencode("usr/" + ODD), 0o600),
    ):
        assert entries[layer_index.key(path)]["mode"] == mode, path
    assert entries["etc/shadow"]["gid"] == 42
    assert os.stat(bottom + "/fs/usr/tool").st_mode & 0o7777 == 0o755


def test_a_reader_finds_and_reads_but_owns_nothing(reader: ImageStore, keeper: ImageStore) -> None:
    image = reader.get("app:1")
    assert (image.id, image.tags) == (keeper.get("app:1").id, ["app:1"])
    assert image.attrs["Duckweed"] == {"Store": reader.layout.read_stores[0], "ReadOnly": True}
    assert image.attrs["Size"] == keeper.get("app:1").attrs["Size"] > 0
    reader.ensure_layers(image)
    assert all(path.startswith(reader.layout.read_stores[0]) for path in image.lower)
    assert reader.own.all() == []
    assert [each.id for each in reader.list()[:1]] == [image.id]
    with pytest.raises(NoSuchImage):
        reader.own.get("app:1")


def test_removing_and_pruning_leave_a_shared_store_alone(reader: ImageStore, tmp_path: Path) -> None:
    before = snapshot(tmp_path / "srv")
    image = reader.get("app:1")
    for name in ("app:1", image.id):
        with pytest.raises(Conflict, match="read-only store `.*/srv`"):
            reader.remove(name, force=True)
    assert reader.prune(all=True)["ImagesDeleted"] == []
    reader.tag("app:1", "mine:1")
    assert reader.prune(all=True)["ImagesDeleted"][0] == {"Untagged": "mine:1"}
    repair.sweep(reader.layout)
    assert snapshot(tmp_path / "srv") == before
    assert reader.get("app:1").id == image.id


def test_a_tag_of_a_shared_image_is_ours_and_refers_to_it(reader: ImageStore) -> None:
    reader.tag("app:1", "mine:1")
    mine = reader.get("mine:1")
    assert mine.attrs["Duckweed"]["ReadOnly"] is False
    assert sorted(mine.tags) == ["app:1", "mine:1"]
    assert os.listdir(reader.layout.layers) == []
    reader.ensure_layers(mine)
    assert os.path.isdir(mine.lower[0])
    assert reader.remove("mine:1")[0] == {"Untagged": "mine:1"}
    assert reader.get("app:1").tags == ["app:1"]


def test_an_image_loaded_into_the_own_store_is_whole_there(reader: ImageStore, tmp_path: Path) -> None:
    mine = reader.load(str(tmp_path / "a.tar"))[0]
    assert all(path.startswith(reader.layout.root) for path in mine.lower)
    assert reader.get("app:1").attrs["Duckweed"]["ReadOnly"] is False
    os.rename(tmp_path / "srv", tmp_path / "away")
    assert all(map(os.path.isdir, reader.get("app:1").lower))


def test_a_missing_or_closed_store_is_as_good_as_none(tmp_path: Path, reader: ImageStore) -> None:
    os.chmod(tmp_path / "srv" / "images", 0)
    try:
        with pytest.raises(NoSuchImage):
            reader.get("app:1")
        assert [image.id for image in reader.list() if not image.is_host] == []
    finally:
        os.chmod(tmp_path / "srv" / "images", 0o755)


def test_layers_of_other_flavours_stay_closed_in_a_shared_store(tmp_path: Path, keeper: ImageStore) -> None:
    inside = ImageStore(Layout(str(tmp_path / "srv"), ()))
    inside.load(str(archives.docker_archive(tmp_path / "b.tar", ["own:1"], [LAYER, LAYER])))
    for name in os.listdir(inside.layout.layers):
        mode = os.stat(f"{inside.layout.layers}/{name}").st_mode & 0o777
        assert mode == (0o755 if name.endswith(".shared") else 0o700), name


def test_the_keeper_takes_an_image_out_again(tmp_path: Path, reader: ImageStore) -> None:
    ImageStore(Layout(str(tmp_path / "srv"), ())).remove("app:1")
    assert os.listdir(tmp_path / "srv/layers") == os.listdir(tmp_path / "srv/blobs/sha256") == []
    with pytest.raises(NoSuchImage):
        reader.get("app:1")


def test_the_cover_has_all_directories_and_the_files_that_are_changed_in_place(
    reader: ImageStore,
) -> None:
    image: Image = reader.get("app:1")
    reader.layout.ensure()
    name = cover.name_of(image.chain_ids[-1], "single")
    cover.make(reader.layout, name, image.directories, SINGLE)
    top = Path(reader.layout.layers, name, "fs")
    found = {str(path.relative_to(top)): path.lstat() for path in top.rglob("*")}
    assert set(found) == {"etc", "etc/shadow", "usr", "root", "root/.profile", "var"}
    modes = {name: stat.S_IMODE(facts.st_mode) for name, facts in found.items()}
    assert (modes["etc/shadow"], modes["root"], modes["root/.profile"]) == (0o640, 0o700, 0o600)
    assert (top / "etc/shadow").read_bytes() == b"secret\n"
    assert found["etc/shadow"].st_mtime == found["usr"].st_mtime == archives.EPOCH
    assert layer_index.read(str(top.parent))["etc/shadow"]["gid"] == 42
    assert os.listdir(reader.layout.tmp) == []
