"""`system check` finds what is wrong, mends what can be mended, and calls nothing wrong that is not."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

import images as archives
from duckweed.errors import NoSuchImage
from duckweed.store import repair
from duckweed.store.checking import Problem, check
from duckweed.store.image import Image
from duckweed.store.images import ImageStore
from duckweed.store.layout import Layout

LAYERS = [
    archives.layer([(archives.member("a", tarfile.DIRTYPE), b""), (archives.member("a/b"), b"text")]),
    archives.layer([(archives.member("c"), b"more")]),
]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(Layout(str(tmp_path / "store"), ()))
    store.load(str(archives.docker_archive(tmp_path / "a.tar", ["app:1", "app:2"], LAYERS)))
    return store


def told(problems: list[Problem]) -> list[tuple[str, bool]]:
    return [(problem.kind, problem.repaired) for problem in problems]


def damage(path: str) -> None:
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def kept_blob(store: ImageStore, image: Image) -> str:
    record = store.layers.read(image.chain_ids[0], "single")
    assert record is not None
    return store.layout.blob(record["blob"])


def test_a_whole_store_has_no_problems(store: ImageStore) -> None:
    assert check(store) == check(store, quick=True) == []
    assert check(ImageStore(Layout(store.layout.root + "/none", ()))) == []


def test_a_damaged_blob_is_found_taken_away_and_loaded_anew(store: ImageStore, tmp_path: Path) -> None:
    image = store.get("app:1")
    damage(kept_blob(store, image))
    assert check(store, quick=True) == []
    assert told(check(store)) == [("blob", False)]
    assert os.path.exists(kept_blob(store, image))
    found = check(store, mend=True)
    # The tree is whole, so the image still runs; its blob is wanted for save and push.
    assert told(found) == [("blob", True), ("image", False)]
    assert "it can be run, not saved or pushed" in found[1].what
    store.load(str(tmp_path / "a.tar"))
    assert check(store) == []


@pytest.mark.parametrize("which", ["id", "manifest"])
def test_an_image_without_its_documents_is_forgotten_by_repair_only(
    store: ImageStore, tmp_path: Path, which: str
) -> None:
    damage(store.layout.blob(getattr(store.get("app:1"), which)))
    assert ("blob", False) in told(check(store))
    assert len(store.records.all_tags()) == 2
    assert told(check(store, mend=True))[:2] == [("blob", True), ("image", True)]
    assert store.records.all_tags() == []
    with pytest.raises(NoSuchImage):
        ImageStore(store.layout).get("app:1")
    store.load(str(tmp_path / "a.tar"))
    assert check(store) == []


def test_a_broken_layer_is_taken_away_and_made_again(store: ImageStore) -> None:
    image = store.get("app:1")
    shutil.rmtree(image.lower[0])
    assert told(check(store)) == [("layer", False)]
    assert told(check(store, mend=True)) == [("layer", True)]
    store.ensure_layers(image)
    assert Path(image.lower[0], "c").read_bytes() == b"more"
    assert check(store) == []


def test_a_tag_without_its_image_gets_its_record_back(store: ImageStore) -> None:
    image = store.get("app:1")
    store.records.remove_image(image.id)
    assert told(check(store, mend=True)) == [("image", True)]
    assert check(store) == []


def test_what_a_remover_holds_for_a_moment_is_not_missing(store: ImageStore) -> None:
    image = store.get("app:1")
    gone = Path(store.layout.tmp) / f"{repair.scratch.owner()}-gone-00"
    gone.mkdir()
    os.rename(store.layout.blob(image.id), gone / image.id[7:])
    assert all(problem.kind != "image" for problem in check(store, mend=True, quick=True))
    assert len(store.records.all_tags()) == 2


def test_a_sweep_gives_up_what_nobody_has_wanted_for_a_day(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = store.blobs.put(b"of a load that was killed")
    repair.sweep(store.layout)
    assert store.blobs.exists(orphan)
    monkeypatch.setattr(repair, "FORGOTTEN_S", -60.0)
    repair.sweep(store.layout)
    assert not store.blobs.exists(orphan)
    assert check(store) == []
