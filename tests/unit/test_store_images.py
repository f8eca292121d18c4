"""Images in the store: loading, naming, showing, removing."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

import images as archives
from duckweed.errors import BadImage, Conflict, InUse, NoSuchImage, StoreError, UsageError
from duckweed.store.image import Image
from duckweed.store.images import ImageStore
from duckweed.store.layout import Layout

BASE = archives.layer(
    [(archives.member("etc", tarfile.DIRTYPE), b""), (archives.member("etc/motd"), b"hello\n")]
)
TOP = archives.layer([(archives.member("etc/.wh.motd"), b""), (archives.member("top"), b"t")])
OTHER = archives.layer([(archives.member("other"), b"o")])


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Layout(str(tmp_path / "store")))


def load(store: ImageStore, tmp_path: Path, tags: list[str], layers: list[bytes], **config: Any) -> Image:
    return store.load(str(archives.docker_archive(tmp_path / "a.tar", tags, layers, config or None)))[0]


def objects(store: ImageStore) -> list[str]:
    """All that a load may leave: blobs, layers, records, scratch."""
    top = store.layout
    return sorted(
        f"{os.path.basename(path)}/{name}"
        for path in (top.blobs, top.layers, top.images, top.tmp)
        for name in os.listdir(path)
    )


def add_container(store: ImageStore, image: Image, running: bool = False) -> str:
    container_id = os.urandom(32).hex()
    path = Path(store.layout.container(container_id))
    path.mkdir()
    (path / "container.json").write_text(
        json.dumps({"Id": container_id, "ImageID": image.id, "layers": image.layers})
    )
    if running:
        from duckweed import _core

        state = {
            "status": "running",
            "supervisor_pid": os.getpid(),
            "supervisor_start": _core.process_start(os.getpid()),
            "boot_id": _core.boot_id(),
            "host": os.uname().nodename,
        }
        (path / "state.json").write_text(json.dumps(state))
    return container_id


def test_loaded_image_has_its_name_config_and_layers(store: ImageStore, tmp_path: Path) -> None:
    loaded = load(store, tmp_path, ["app:1"], [BASE, TOP], Labels={"a": "b"})
    image = store.get("app:1")
    assert (image.id, image.tags) == (loaded.id, ["app:1"])
    assert image.run_config["Labels"] == {"a": "b"}
    assert [os.path.isdir(path) for path in image.lower] == [True, True]
    assert Path(image.lower[1], "etc/motd").read_bytes() == b"hello\n"
    assert Path(image.lower[0], "top").read_bytes() == b"t"
    assert os.listdir(store.layout.tmp) == []


def test_the_store_keeps_documents_byte_for_byte(store: ImageStore, tmp_path: Path) -> None:
    archive = archives.oci_archive(tmp_path / "a.tar", "example/app:1", [BASE])
    image = store.load(str(archive))[0]
    with tarfile.open(archive) as tar:
        for digest in (image.id, image.manifest):
            member = tar.extractfile("blobs/sha256/" + digest[7:])
            assert member is not None and member.read() == store.blobs.read(digest)


def pack_gzip(path: Path) -> Any:
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return str(packed)


def as_pipe(path: Path) -> Any:
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        with os.fdopen(write, "wb") as out:
            out.write(path.read_bytes())
        os._exit(0)
    os.close(write)
    return read


def as_moved_file(path: Path) -> Any:
    file = io.BytesIO(b"skip" + path.read_bytes())
    file.seek(4)
    return file


def as_layout(path: Path) -> Any:
    target = path.with_suffix(".d")
    with tarfile.open(path) as tar:
        tar.extractall(target)
    return str(target)


@pytest.mark.parametrize(
    "source", [str, pack_gzip, as_pipe, as_moved_file, as_layout, lambda path: open(path, "rb")]
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_every_kind_of_source_gives_the_same_image(store: ImageStore, tmp_path: Path, source: Any) -> None:
    archive = archives.oci_archive(tmp_path / "a.tar", "example/app:1", [BASE, TOP])
    image = store.load(source(archive))[0]
    assert image.tags == ["example/app:1"]
    assert [os.path.isdir(path) for path in image.lower] == [True, True]
    assert os.listdir(store.layout.tmp) == []


def test_docker_and_oci_archives_of_one_image_share_layers(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path, ["a:1"], [BASE, TOP])
    before = sorted(os.listdir(store.layout.layers))
    inode = os.stat(store.get("a:1").lower[0]).st_ino
    store.load(str(archives.oci_archive(tmp_path / "o.tar", "example/o:1", [BASE, TOP])))
    assert sorted(os.listdir(store.layout.layers)) == before
    assert os.stat(store.get("example/o:1").lower[0]).st_ino == inode


def test_layer_members_may_be_links_among_members(store: ImageStore, tmp_path: Path) -> None:
    archive = archives.docker_archive(tmp_path / "a.tar", ["a:1"], [BASE])
    linked = tmp_path / "linked.tar"
    with tarfile.open(archive) as old, tarfile.open(linked, "w") as new:
        for member in old:
            body = old.extractfile(member)
            if member.name == "0/layer.tar":
                member.name = "real.tar"
                link = archives.member("0/layer.tar", tarfile.SYMTYPE, linkname="../real.tar")
                new.addfile(link)
            new.addfile(member, body)
    assert store.load(str(linked))[0].tags == ["a:1"]


@pytest.mark.parametrize(
    ("asked", "tags"),
    [
        ("a:1", ["a:1"]),
        ("docker.io/library/a:1", ["a:1"]),
        ("b", ["b:latest"]),
        ("c", ["localhost/c:latest"]),
        ("localhost/c", ["localhost/c:latest"]),
    ],
)
def test_image_is_found_by_any_spelling_of_its_name(
    store: ImageStore, tmp_path: Path, asked: str, tags: list[str]
) -> None:
    load(store, tmp_path, tags, [BASE])
    assert store.get(asked).tags == tags


def test_a_name_of_its_own_wins_over_localhost(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path, ["localhost/c"], [BASE])
    mine = load(store, tmp_path, ["c"], [OTHER])
    assert store.get("c").id == mine.id


def test_image_is_found_by_id_prefix_and_digest(store: ImageStore, tmp_path: Path) -> None:
    image = store.load(str(archives.oci_archive(tmp_path / "a.tar", "example/app:1", [BASE])))[0]
    for asked in (
        image.id,
        image.id[7:],
        image.short_id,
        image.id[:12],
        f"example/app@{image.manifest}",
        f"example/app@{image.id}",
    ):
        assert store.get(asked).id == image.id
    with pytest.raises(NoSuchImage):
        store.get(f"example/other@{image.manifest}")
    with pytest.raises(NoSuchImage):
        store.get("sha256:" + "0" * 63 + "1")


def test_ambiguous_prefix_is_an_error(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path, ["a"], [BASE])
    record = store.records.image(store.get("a").id)
    assert record is not None
    twin = store.get("a").id[:12] + "0" * 59
    Path(store.layout.image(twin)).write_text(json.dumps(record))
    with pytest.raises(Conflict, match="multiple IDs found"):
        store.get(twin[7:12])


def test_missing_image_is_told_in_dockers_words(store: ImageStore) -> None:
    with pytest.raises(NoSuchImage) as caught:
        store.get("nope")
    assert caught.value.message == "No such image: nope:latest"
    with pytest.raises(UsageError):
        store.get("NOPE")


def test_retagged_image_becomes_dangling(store: ImageStore, tmp_path: Path) -> None:
    first = load(store, tmp_path, ["a:1"], [BASE])
    second = load(store, tmp_path, ["a:1"], [OTHER])
    assert store.get("a:1").id == second.id
    assert [image.id for image in store.list(filters={"dangling": "true"})] == [first.id]
    report = store.prune()
    assert {"Deleted": first.id} in report["ImagesDeleted"]
    assert [image.id for image in store.list(filters={"dangling": "false"})] == [second.id]
    assert [os.path.isdir(path) for path in second.lower] == [True]


def test_removing_the_last_tag_removes_all_but_what_others_use(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path, ["one"], [BASE, TOP])
    before = objects(store)
    two = load(store, tmp_path, ["two"], [BASE, OTHER])
    answer = store.remove("two")
    assert answer[:2] == [{"Untagged": "two:latest"}, {"Deleted": two.id}]
    assert answer[2:] == [{"Deleted": two.chain_ids[1]}]
    assert objects(store) == before
    store.remove("one")
    assert objects(store) == []


def test_removing_one_of_two_tags_only_untags(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path, ["one", "two"], [BASE])
    assert store.remove("one") == [{"Untagged": "one:latest"}]
    assert store.get("two").tags == ["two:latest"]


def test_removing_by_id_with_several_names_needs_force(store: ImageStore, tmp_path: Path) -> None:
    image = load(store, tmp_path, ["one", "two"], [BASE])
    with pytest.raises(InUse) as caught:
        store.remove(image.short_id)
    words = f"conflict: unable to delete {image.short_id} (must be forced)"
    words += " - image is referenced in multiple repositories"
    assert caught.value.message == words
    store.remove(image.short_id, force=True)
    assert objects(store) == []


def test_image_of_a_stopped_container_needs_force_and_its_layers_stay(
    store: ImageStore, tmp_path: Path
) -> None:
    image = load(store, tmp_path, ["one"], [BASE])
    container_id = add_container(store, image)
    with pytest.raises(InUse, match=f"must be forced.*stopped container {container_id[:12]}"):
        store.remove("one")
    store.remove("one", force=True)
    assert os.listdir(store.layout.layers) == image.layers


def test_image_of_a_running_container_cannot_be_removed(store: ImageStore, tmp_path: Path) -> None:
    container_id = add_container(store, load(store, tmp_path, ["one"], [BASE]), running=True)
    with pytest.raises(InUse, match=f"cannot be forced.*running container {container_id[:12]}"):
        store.remove("one", force=True)


def test_missing_layer_is_made_again_from_its_blob(store: ImageStore, tmp_path: Path) -> None:
    image = load(store, tmp_path, ["one"], [BASE, TOP])
    store.layers.remove(image.layers[1])
    assert not os.path.isdir(image.lower[1])
    store.ensure_layers(image)
    assert Path(image.lower[1], "etc/motd").read_bytes() == b"hello\n"


def test_tag_and_history_and_inspect_agree(store: ImageStore, tmp_path: Path) -> None:
    image = load(store, tmp_path, ["one"], [BASE, TOP])
    store.tag("one", "example.org/two:2")
    assert store.get("example.org/two:2").id == image.id
    view = image.attrs
    assert view["RepoTags"] == ["example.org/two:2", "one:latest"]
    assert view["RootFS"] == {"Type": "layers", "Layers": image.diff_ids}
    assert view["Size"] == len(BASE) + len(TOP)
    rows = image.history()
    assert [row["Size"] for row in rows] == [len(TOP), len(BASE)]
    assert [row["Id"] for row in rows] == [image.id, "<missing>"]
    assert [row["CreatedBy"] for row in rows] == ["layer 1", "layer 0"]


@pytest.mark.parametrize(
    ("filters", "pattern", "expected"),
    [
        ({"label": "k=v"}, None, ["a:1"]),
        ({"label": "k"}, None, ["a:1"]),
        ({"label": ["k", "x"]}, None, []),
        ({"reference": "*/b*"}, None, ["team/b:2"]),
        ({"reference": "*"}, None, ["a:1"]),
        ({}, "team/b", ["team/b:2"]),
        ({}, "a:2", []),
        ({"until": "2020-01-01"}, None, []),
        ({"dangling": True}, None, []),
    ],
)
def test_filters_choose(
    store: ImageStore, tmp_path: Path, filters: dict[str, Any], pattern: str | None, expected: list[str]
) -> None:
    load(store, tmp_path, ["a:1"], [BASE], Labels={"k": "v"})
    load(store, tmp_path, ["team/b:2"], [OTHER])
    found = store.list(filters=filters, reference=pattern)
    assert sorted(tag for image in found for tag in image.tags) == expected


def test_unknown_filter_is_refused(store: ImageStore) -> None:
    with pytest.raises(UsageError, match="invalid filter 'color'"):
        store.list(filters={"color": "red"})


def test_host_is_always_there_and_cannot_be_removed(store: ImageStore, tmp_path: Path) -> None:
    assert store.get("host").is_host
    assert store.list()[-1].tags == ["host:latest"]
    with pytest.raises(Conflict):
        store.remove("host")
    real = load(store, tmp_path, ["host"], [BASE])
    assert store.get("host").id == real.id
    assert [image.is_host for image in store.list()] == [False]


def test_import_makes_an_image_of_one_layer(store: ImageStore) -> None:
    image = store.import_(
        io.BytesIO(gzip.compress(BASE)), "mine:1", changes=['CMD ["x"]'], message="from a test"
    )
    assert image.run_config == {"Cmd": ["x"]}
    assert Path(store.get("mine:1").lower[0], "etc/motd").read_bytes() == b"hello\n"
    assert image.history()[0]["Comment"] == "from a test"


def test_bad_import_leaves_nothing(store: ImageStore) -> None:
    with pytest.raises(BadImage, match="cannot import"):
        store.import_(io.BytesIO(b"no tar at all" * 100), "mine")
    assert objects(store) == []


def test_second_bad_image_of_an_archive_leaves_nothing_of_the_first(
    store: ImageStore, tmp_path: Path
) -> None:
    good = archives.docker_archive(tmp_path / "a.tar", ["a:1"], [BASE])
    with tarfile.open(good) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    entries = json.loads(members["manifest.json"])
    config = json.loads(members[entries[0]["Config"]])
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    members["bad.json"] = json.dumps(config).encode()
    entries.append({"Config": "bad.json", "RepoTags": ["b:1"], "Layers": entries[0]["Layers"]})
    members["manifest.json"] = json.dumps(entries).encode()
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, body in members.items():
            info = archives.member(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    with pytest.raises(BadImage, match="layer 1 of 1"):
        store.load(str(tmp_path / "bad.tar"))
    assert objects(store) == []


def test_failed_load_keeps_what_another_image_uses(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path, ["a:1"], [BASE])
    before = objects(store)
    broken = archives.docker_archive(tmp_path / "b.tar", ["b:1"], [BASE, TOP])
    broken.write_bytes(broken.read_bytes()[:-10240])
    with pytest.raises(BadImage):
        store.load(str(broken))
    assert objects(store) == before


@pytest.mark.parametrize("then", ["put back", "removed for good", "nothing"])
def test_config_in_a_removers_hands_is_looked_for_again(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    image = load(store, tmp_path, ["a:1"], [BASE])
    blob, away = store.layout.blob(image.id), str(tmp_path / "away")
    os.rename(blob, away)

    def meanwhile(_: float) -> None:
        if then == "put back" and os.path.exists(away):
            os.rename(away, blob)
        elif then == "removed for good":
            store.records.remove_tag("docker.io/library/a:1")

    monkeypatch.setattr("time.sleep", meanwhile)
    reader = ImageStore(store.layout)  # one that has read no config yet
    if then == "put back":
        assert reader.get("a:1").id == image.id
    else:
        with pytest.raises(NoSuchImage if then == "removed for good" else StoreError):
            reader.get("a:1")
