"""Eight processes that load, run, tag, remove and prune one store, and processes killed at it: an image in use
is never lost, and the store is whole afterwards.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import duckweed
import images
from conftest import Run

# What may happen to somebody whose image is removed by others at that very moment.
WORK = """
import random, sys
import duckweed
from duckweed.errors import InUse, NoSuchImage, StoreError
engine, dice = duckweed.Engine(), random.Random(int(sys.argv[2]))
for turn in range(int(sys.argv[3])):
    name = dice.choice(["one", "two"])
    deed = dice.choice(["load", "load", "run", "run", "run", "remove", "prune", "tag", "df"])
    try:
        if deed == "load":
            engine.images.load(f"{sys.argv[1]}/{name}.tar")
        elif deed == "run":
            said = engine.run(f"{name}:1", ["cat", "/own"]).stdout
            assert said == name.encode(), said
        elif deed == "remove":
            engine.images.remove(f"{name}:1", force=dice.random() < 0.5)
        elif deed == "prune":
            engine.images.prune(all=dice.random() < 0.5)
        elif deed == "tag":
            engine.images.tag(f"{name}:1", f"other:{dice.randrange(3)}")
        else:
            engine.df()
    except (InUse, NoSuchImage):
        pass
    except StoreError as error:
        if "was removed while a container was made of it" not in error.message:
            raise
engine.close()
"""


@pytest.fixture
def store(fresh: Run, tmp_path: Path) -> Run:
    """A store with the images `one:1` and `two:1`, which share a layer; a container of `one` waits there."""
    base = images.busybox_layer()
    for name in ("one", "two"):
        top = images.layer([(images.member("own"), name.encode())])
        images.docker_archive(tmp_path / f"{name}.tar", [f"{name}:1"], [base, top])
        fresh("load", "-i", str(tmp_path / f"{name}.tar"), check=True)
    fresh("create", "--name", "anchor", "one:1", "cat", "/own", check=True)
    return fresh


def worker(store: Run, tmp_path: Path, seed: int, turns: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WORK, str(tmp_path), str(seed), str(turns)]
    env = {**os.environ, "DUCKWEED_ROOT": str(store.root)}  # type: ignore[attr-defined]
    return subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)


def check_store(store: Run, tmp_path: Path) -> None:
    """All is whole, the waiting container starts, and everything can be used and then removed."""
    root: Path = store.root  # type: ignore[attr-defined]
    assert store("start", "-a", "anchor", check=True).stdout == "one"
    done = store("system", "check")
    assert (done.returncode, done.stdout) == (0, "everything is whole\n")
    for name in ("one", "two"):
        store("load", "-i", str(tmp_path / f"{name}.tar"), check=True)
        assert store("run", "--rm", f"{name}:1", "cat", "/own", check=True).stdout == name
    store("rm", "anchor", check=True)
    store("system", "prune", "-af", check=True)
    left = {
        name: os.listdir(root / name) for name in ("blobs/sha256", "layers", "images", "containers", "tmp")
    }
    assert not any(left.values()), left


@pytest.mark.slow
def test_eight_processes_never_lose_an_image_in_use(store: Run, tmp_path: Path) -> None:
    workers = [worker(store, tmp_path, seed, 12) for seed in range(8)]
    for each in workers:
        _, words = each.communicate(timeout=100)
        assert each.returncode == 0, words
    check_store(store, tmp_path)


@pytest.mark.slow
def test_killed_processes_leave_nothing_that_the_next_command_does_not_mend(
    store: Run, tmp_path: Path
) -> None:
    dice = random.Random(11)
    for round_number in range(8):
        pair = [worker(store, tmp_path, 100 * round_number + n, 100) for n in range(2)]
        time.sleep(0.1 + dice.random() * 0.6)  # the moment of death, not a synchronisation
        for each in pair:
            each.send_signal(signal.SIGKILL)
            each.communicate()
    # What is left of their containers goes as soon as their supervisors have noticed.
    deadline = time.monotonic() + 20
    root: Path = store.root  # type: ignore[attr-defined]
    while time.monotonic() < deadline:
        store("system", "df", check=True)
        if len(os.listdir(root / "containers")) == 1 and not os.listdir(root / "tmp"):
            break
    assert (len(os.listdir(root / "containers")), os.listdir(root / "tmp")) == (1, [])
    with duckweed.Engine(root) as engine:
        assert [problem for problem in engine.check(repair=True) if not problem["Repaired"]] == []
    check_store(store, tmp_path)


def test_check_tells_and_repairs_through_the_command(store: Run) -> None:
    root: Path = store.root  # type: ignore[attr-defined]
    blob = max((root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    done = store("system", "check")
    assert done.returncode == 1
    assert f"problem: blob `sha256:{blob.name}`: it is damaged" in done.stdout
    assert store("system", "check", "--quick").stdout == "everything is whole\n"
    done = store("system", "check", "--repair")
    assert f"repaired: blob `sha256:{blob.name}`" in done.stdout
    assert "it can be run, not saved or pushed" in done.stdout and done.returncode == 1
