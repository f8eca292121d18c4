"""Running images of a store that belongs to somebody else (DUCKWEED_READ_STORES).

Somebody else is played by a subordinate id: the shared store is given to it, and the reader pretends to
have no such ids, so that the owner is nobody to its containers.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run, runner

PLACES = {"overlay": "no-subid", "copy": "no-subid,no-overlay"}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, archives: Path) -> Iterator[Path]:
    """A shared store with busybox in it that belongs to another id."""
    top = tmp_path_factory.mktemp("foreign")
    keeper = runner(top / "keeper")
    if keeper("info", "--format", "{{.IdMap}}").stdout.strip() != "full":
        pytest.skip("this account has no subordinate id that could own a store")
    keeper("load", "-i", str(archives / "busybox.tar"), check=True)
    keeper("system", "share", str(top / "srv"), "busybox", check=True)

    def give(owner: str) -> None:
        keeper("run", "--rm", "-v", f"{top}/srv:/srv", "busybox", "chown", "-R", owner, "/srv", check=True)

    give("7:7")
    yield top / "srv"
    give("0:0")


@pytest.fixture(params=list(PLACES))
def reader(request: pytest.FixtureRequest, tmp_path: Path, foreign: Path) -> Iterator[Run]:
    """A user of that store, where containers are overlays and where they are copies."""
    extra = {"DUCKWEED_READ_STORES": str(foreign), "DUCKWEED_PRETEND": PLACES[request.param]}
    run = runner(tmp_path / "store", extra)
    run.root = tmp_path / "store"  # type: ignore[attr-defined]
    run.name = request.param  # type: ignore[attr-defined]
    yield run
    ids = run("ps", "-aq").stdout.split()
    if ids:
        run("rm", "-f", *ids)


def sh(run: Run, script: str, *options: str) -> str:
    return run("run", "--rm", *options, "busybox", "sh", "-c", script, check=True).stdout


def test_an_image_of_a_foreign_store_runs(reader: Run) -> None:
    assert sh(reader, "id -u; cat /home/owned") == "0\nmine\n"
    assert reader("images", "-q", "busybox").stdout.count("\n") == 1


def test_its_directories_can_be_filled_and_its_files_replaced(reader: Run) -> None:
    script = """
        echo new > /usr/bin/new && echo x >> /etc/passwd && tail -n 1 /etc/passwd
        mkdir /usr/bin/dir && rm /bin/yes && ! test -e /bin/yes && cp /bin/busybox /b && mv /b /bin/busybox
        stat -c %a /tmp /root; touch /root/file && echo done
    """
    assert sh(reader, script) == "x\n1777\n755\ndone\n"


def test_changing_a_file_in_place_is_the_limit_of_overlay(reader: Run) -> None:
    done = reader("run", "--rm", "busybox", "sh", "-c", "touch /bin/busybox")
    assert (done.returncode == 0) == (reader.name == "copy")  # type: ignore[attr-defined]


def test_a_copy_of_ones_own_has_no_such_limit(reader: Run, archives: Path) -> None:
    reader("load", "-i", str(archives / "busybox.tar"), check=True)
    (image,) = json.loads(reader("image", "inspect", "busybox").stdout)
    assert image["Duckweed"]["ReadOnly"] is False
    assert sh(reader, "touch /bin/busybox; echo $?") == "0\n"


def test_what_was_changed_over_a_foreign_image_is_committed_and_runs(reader: Run, tmp_path: Path) -> None:
    script = "echo new > /usr/bin/new; rm /home/owned; echo more >> /etc/passwd"
    reader("run", "--name", "box", "busybox", "sh", "-c", script, check=True)
    changes = reader("diff", "box", check=True).stdout.splitlines()
    assert {"A /usr/bin/new", "D /home/owned", "C /etc/passwd"} <= set(changes)
    assert not [line for line in changes if line.startswith("C /bin/")]
    reader("commit", "box", "mine:1", check=True)
    look = "tail -n 1 /etc/passwd; cat /usr/bin/new; ls /home"
    assert sh(reader, look) != "more\nnew\n"
    assert reader("run", "--rm", "mine:1", "sh", "-c", look, check=True).stdout == "more\nnew\n"
    reader("export", "-o", str(tmp_path / "box.tar"), "box", check=True)
    with tarfile.open(tmp_path / "box.tar") as tar:
        facts = {member.name.lstrip("./").rstrip("/"): member for member in tar}
    assert (facts["tmp"].mode, facts["bin/busybox"].uid, facts["etc/group"].uid) == (0o1777, 0, 0)
    reader("rm", "box", check=True)
    reader("rmi", "mine:1", check=True)


def test_the_foreign_store_is_named(reader: Run, foreign: Path) -> None:
    (image,) = json.loads(reader("image", "inspect", "busybox").stdout)
    assert image["Duckweed"] == {"Store": str(foreign), "ReadOnly": True}
    assert f"Read-only store: {foreign}" in reader("info").stdout
    done = reader("rmi", "-f", "busybox")
    assert done.returncode == 1 and f"read-only store `{foreign}`" in done.stderr


def test_the_cover_is_made_once_and_goes_with_prune(reader: Run) -> None:
    if reader.name == "copy":  # type: ignore[attr-defined]
        pytest.skip("one place is enough")
    layers: Path = reader.root / "layers"  # type: ignore[attr-defined]
    reader("run", "--name", "kept", "busybox", "true", check=True)
    (name,) = [path.name for path in layers.iterdir()]
    made = (layers / name).stat().st_ino
    reader("system", "prune", "-af", "--filter", "until=1h", check=True)
    reader("image", "prune", "-af", check=True)
    assert sh(reader, "echo again") == "again\n"
    assert (layers / name).stat().st_ino == made
    reader("rm", "kept", check=True)
    reader("image", "prune", "-af", check=True)
    assert list(layers.iterdir()) == []
    assert sh(reader, "echo anew") == "anew\n"


def test_many_read_one_store_at_once(foreign: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    extra = {"DUCKWEED_READ_STORES": str(foreign), "DUCKWEED_PRETEND": "no-subid"}
    runs = [runner(tmp_path / str(number), extra) for number in range(2)]
    with ThreadPoolExecutor(8) as pool:
        words = list(pool.map(lambda n: sh(runs[n % 2], f"echo {n} > /etc/{n}; cat /etc/{n}"), range(8)))
    assert words == [f"{n}\n" for n in range(8)]


def test_a_container_whose_foreign_layer_went_away_says_so(
    reader: Run, foreign: Path, tmp_path: Path
) -> None:
    if reader.name == "copy":  # type: ignore[attr-defined]
        pytest.skip("one place is enough")
    moved = tmp_path / "link"
    moved.symlink_to(foreign)
    env = {"DUCKWEED_READ_STORES": str(moved)}
    reader("create", "--name", "lost", "busybox", "true", env=env, check=True)
    moved.unlink()
    done = reader("start", "lost")
    assert done.returncode == 1 and "a layer of its image, is gone" in done.stderr
