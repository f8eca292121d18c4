"""Processes killed at any moment, and many at once: what is at a final path is whole, and the next command
goes on.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import images as archives
from duckweed.errors import DuckweedError
from duckweed.store import references, repair, scratch
from duckweed.store.images import ImageStore
from duckweed.store.layout import Layout

LOAD = """
import sys
from duckweed.store.images import ImageStore
from duckweed.store.layout import Layout
store = ImageStore(Layout(sys.argv[1]))
print("ready", flush=True)
for _ in range(1000):
    store.load(sys.argv[2])
    store.remove("a:1", force=True)
"""

HAMMER = """
import random, sys
from duckweed.errors import NoSuchImage, BadImage
from duckweed.store.images import ImageStore
from duckweed.store.layout import Layout
store, dice = ImageStore(Layout(sys.argv[1])), random.Random(int(sys.argv[3]))
for turn in range(int(sys.argv[4])):
    name = dice.choice(["a", "b"])
    store.load(f"{sys.argv[2]}/{name}.tar")
    try:
        store.tag(f"{name}:1", f"t{dice.randrange(3)}")
        store.remove(dice.choice(["a:1", "b:1", "t0", "t1", "t2"]), force=True)
    except NoSuchImage:
        pass
    if dice.random() < 0.2:
        store.prune()
"""


def layers(count: int, seed: int) -> list[bytes]:
    noise = random.Random(seed)
    return [
        archives.layer(
            [(archives.member(f"d{n}", tarfile.DIRTYPE), b"")]
            + [(archives.member(f"d{n}/f{i}"), noise.randbytes(500)) for i in range(20)]
        )
        for n in range(count)
    ]


def check_whole(store: ImageStore) -> None:
    """Every image that is recorded has its blobs, with their digests, and its layers."""
    from duckweed.oci.digest import digest_of
    from duckweed.oci.manifest import Manifest

    for record in store.records.all_tags():
        assert store.records.image(record["config"]), "a tag without its image"
    for image in store.all():
        manifest = Manifest.read(store.blobs.read(image.manifest), "manifest")
        for digest in (image.id, image.manifest, *(layer.digest for layer in manifest.layers)):
            assert digest_of(store.blobs.read(digest)) == digest
        for tree in image.lower:
            assert os.path.isdir(tree), tree
            assert os.path.isfile(os.path.dirname(tree) + "/layer.json")


@pytest.mark.slow
def test_load_killed_anywhere_leaves_a_store_that_works(tmp_path: Path) -> None:
    archive = archives.docker_archive(tmp_path / "a.tar", ["a:1"], layers(4, 1))
    root = str(tmp_path / "store")
    dice = random.Random(7)
    for _ in range(15):
        with subprocess.Popen(
            [sys.executable, "-c", LOAD, root, str(archive)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout and process.stdout.readline() == b"ready\n"
            time.sleep(dice.random() * 0.15)  # the moment of death, not a synchronisation
            process.send_signal(signal.SIGKILL)
        store = ImageStore(Layout(root))
        store.layout.ensure()
        repair.sweep(store.layout)
        assert os.listdir(store.layout.tmp) == []
        for image in store.all():
            # Killed between a remover's two looks, a layer may be gone that its blob makes again.
            store.ensure_layers(image)
        check_whole(store)
        store.load(str(archive))
        check_whole(store)
        store.remove("a:1", force=True)
        store.prune(all=True)
        assert (
            os.listdir(store.layout.layers)
            == os.listdir(store.layout.blobs)
            == os.listdir(store.layout.images)
            == []
        )


@pytest.mark.slow
def test_sixteen_processes_load_tag_and_remove_at_once(tmp_path: Path) -> None:
    shared = layers(2, 1)
    archives.docker_archive(tmp_path / "a.tar", ["a:1"], shared)
    archives.docker_archive(tmp_path / "b.tar", ["b:1"], shared + layers(1, 3))
    root = str(tmp_path / "store")
    argv = [sys.executable, "-c", HAMMER, root, str(tmp_path)]
    running = [subprocess.Popen([*argv, str(n), "8"], stderr=subprocess.PIPE, text=True) for n in range(16)]
    words = [process.communicate(timeout=100)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 16, "".join(words)
    store = ImageStore(Layout(root))
    for image in store.all():
        store.ensure_layers(image)
    check_whole(store)
    assert os.listdir(store.layout.tmp) == []
    store.load(str(tmp_path / "a.tar"))
    check_whole(store)


def test_living_makers_scratch_is_left_alone_and_a_dead_ones_is_swept(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    layout.ensure()
    mine = scratch.new_directory(layout, "layer")
    os.makedirs(f"{layout.tmp}/{scratch.boot_id()[:8]}.4194305.1-layer-00/deep/er")
    # Of another boot: of this machine before it started anew, or of another one that shares the store.
    old, new = f"{layout.tmp}/ffffffff.1.1-blob-00", f"{layout.tmp}/ffffffff.1.1-blob-01"
    for path in (old, new):
        os.makedirs(path)
    os.utime(old, (1, 1))
    assert repair.sweep_quick(layout) == 2
    assert sorted(os.listdir(layout.tmp)) == sorted(map(os.path.basename, (mine, new)))


def test_removal_that_died_half_way_is_finished_or_undone(tmp_path: Path) -> None:
    store = ImageStore(Layout(str(tmp_path / "store")))
    image = store.load(str(archives.docker_archive(tmp_path / "a.tar", ["a:1"], layers(1, 1))))[0]
    gone = Path(store.layout.tmp) / "ffffffff.1.1-gone-00"
    gone.mkdir()
    unused = store.blobs.put(b"nobody's")
    for path in (
        store.layout.blob(image.id),
        store.layout.blob(unused),
        f"{store.layout.layers}/{image.layers[0]}",
    ):
        os.rename(path, gone / os.path.basename(path))
    repair.sweep_quick(store.layout)
    assert os.listdir(store.layout.tmp) == []
    check_whole(ImageStore(store.layout))
    assert not store.blobs.exists(unused)


def test_collect_spares_what_is_referred_to(tmp_path: Path) -> None:
    store = ImageStore(Layout(str(tmp_path / "store")))
    store.load(str(archives.docker_archive(tmp_path / "a.tar", ["a:1"], layers(2, 1))))
    orphan = store.blobs.put(b"orphan")
    removed, reclaimed = references.collect(store.layout, references.everything(store.layout))
    assert (removed, reclaimed) == ([orphan[7:]], 6)
    check_whole(store)


def test_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    store = ImageStore(Layout(str(tmp_path / "store")))
    store.layout.ensure()
    archive = archives.docker_archive(tmp_path / "a.tar", ["a:1"], layers(1, 1))
    os.chmod(store.layout.tmp, 0o500)
    try:
        with pytest.raises(DuckweedError) as caught:
            store.load(str(archive))
    finally:
        os.chmod(store.layout.tmp, 0o700)
    assert "\n" not in caught.value.message and "EACCES" in caught.value.message
