"""Stores on file systems that images cannot be run from: images stay there, running copies go elsewhere.

Real ones where an ordinary user can make them (a noexec tmpfs and a ramfs without extended attributes, mounted
in a user namespace), pretended ones for the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run, runner

PRETENDED = {
    "noexec-store": "is mounted noexec",
    "no-xattr": "has no extended attributes",
    "no-hardlink": "has no hard links",
    "no-whiteout": "cannot hold whiteouts",
    "nfs-store": "is on nfs",
}


def place_of(run: Run) -> str:
    return str(json.loads(run("info", "--format", "{{json .}}", check=True).stdout)["Scratch"])


def poor(tmp_path: Path, words: str) -> Run:
    """A store that is poorer by these words; its scratch directory is in `tmp_path`/scratch."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    run = runner(tmp_path / "store", {"DUCKWEED_PRETEND": words, "TMPDIR": str(scratch)})
    run.root, run.scratch = tmp_path / "store", scratch  # type: ignore[attr-defined]
    return run


@pytest.fixture
def noexec(tmp_path: Path, archives: Path) -> Iterator[Run]:
    """Such a store with busybox in it."""
    run = poor(tmp_path, "noexec-store")
    run.loaded = run("load", "-i", str(archives / "busybox.tar"), check=True)  # type: ignore[attr-defined]
    yield run
    ids = run("ps", "-aq").stdout.split()
    if ids:
        run("rm", "-f", *ids)


@pytest.mark.parametrize("word", PRETENDED)
def test_each_lack_is_named_and_run_around(tmp_path: Path, archives: Path, word: str) -> None:
    run = poor(tmp_path, word)
    loaded = run("load", "-i", str(archives / "busybox.tar"), check=True)
    assert f"note: the store {PRETENDED[word]}" in loaded.stderr
    assert f"running copies are in `{tmp_path}/scratch/" in loaded.stderr
    assert run("run", "--rm", "busybox", "cat", "/home/owned", check=True).stdout == "mine\n"
    assert os.listdir(tmp_path / "store/layers") == []
    assert place_of(run) in run("doctor").stdout


def test_it_is_said_once_and_shown_always(noexec: Run) -> None:
    assert "note: the store is mounted noexec" in noexec.loaded.stderr  # type: ignore[attr-defined]
    done = noexec("run", "--name", "box", "busybox", "true", check=True)
    assert done.stderr == ""
    (facts,) = json.loads(noexec("inspect", "box").stdout)
    assert facts["Duckweed"]["Scratch"].startswith(place_of(noexec))
    assert facts["GraphDriver"]["Data"]["UpperDir"] == facts["Duckweed"]["Scratch"] + "/upper"
    assert any("mounted noexec" in note for note in facts["Duckweed"]["Notes"])
    assert f" Scratch: {place_of(noexec)}\n" in noexec("info").stdout
    assert "STORE-NOEXEC" in noexec("doctor").stdout and noexec("doctor").returncode == 1


def test_what_a_container_wrote_stays_with_it_and_goes_with_it(noexec: Run) -> None:
    noexec("run", "--name", "box", "busybox", "sh", "-c", "echo kept > /file", check=True)
    written = Path(json.loads(noexec("inspect", "box").stdout)[0]["Duckweed"]["Scratch"])
    assert (written / "upper/file").read_text() == "kept\n"
    assert noexec("ps", "-as", "--format", "{{.Size}}").stdout.startswith("5B")
    noexec("rm", "box", check=True)
    noexec("run", "--rm", "busybox", "sh", "-c", "echo > /file", check=True)
    assert list(written.parent.iterdir()) == []


def test_what_was_written_is_found_by_diff_export_and_commit(noexec: Run, tmp_path: Path) -> None:
    noexec("run", "--name", "box", "busybox", "sh", "-c", "echo kept > /file", check=True)
    assert noexec("diff", "box", check=True).stdout == "A /file\n"
    noexec("export", "-o", str(tmp_path / "box.tar"), "box", check=True)
    with tarfile.open(tmp_path / "box.tar") as tar:
        assert {"file", "bin/busybox"} <= {name.lstrip("./") for name in tar.getnames()}
    noexec("commit", "box", "changed:1", check=True)
    assert noexec("run", "--rm", "changed:1", "cat", "/file", check=True).stdout == "kept\n"


def test_layers_that_were_cleaned_away_are_made_again(noexec: Run) -> None:
    noexec("create", "--name", "box", "busybox", "echo", "still", check=True)
    shutil.rmtree(Path(place_of(noexec)) / "layers")
    assert noexec("start", "-a", "box", check=True).stdout == "still\n"
    noexec.scratch.rename(noexec.scratch.with_name("away"))  # type: ignore[attr-defined]
    noexec.scratch.mkdir()  # type: ignore[attr-defined]
    assert noexec("run", "--rm", "busybox", "echo", "anew", check=True).stdout == "anew\n"
    done = noexec("start", "box")
    assert done.returncode == 1 and "its files were in" in done.stderr and "which is gone" in done.stderr
    noexec("rm", "box", check=True)


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path, archives: Path) -> None:
    run = poor(tmp_path, "noexec-store")
    top = tmp_path / f"scratch/duckweed-{os.geteuid()}"
    top.mkdir(mode=0o777)
    top.chmod(0o777)
    run("load", "-i", str(archives / "busybox.tar"), check=True)
    assert not place_of(run).startswith(str(tmp_path))
    assert list(top.iterdir()) == []


def test_a_scratch_directory_can_be_asked_for(duckweed: Run, busybox: str, tmp_path: Path) -> None:
    done = duckweed(
        "run", "--scratch", str(tmp_path), "--name", "scratchy", busybox, "touch", "/x", check=True
    )
    assert done.stderr == ""
    (facts,) = json.loads(duckweed("inspect", "scratchy").stdout)
    upper = facts["GraphDriver"]["Data"]["UpperDir"]
    assert upper.startswith(f"{tmp_path}/duckweed-") and os.path.exists(upper + "/x")
    # Layers stay in a store that is fit for them.
    assert str(tmp_path) not in facts["GraphDriver"]["Data"]["LowerDir"]
    duckweed("rm", "scratchy", check=True)
    assert not os.path.exists(upper)
    env = {"DUCKWEED_SCRATCH": str(tmp_path / "none")}
    done = duckweed("run", "--rm", busybox, "true", env=env)
    assert done.returncode == 125 and "cannot use the scratch directory" in done.stderr


def test_the_engine_runs_in_a_scratch_directory(noexec: Run) -> None:
    script = """
import duckweed
with duckweed.Engine() as engine:
    for _ in range(3):
        print(engine.run("busybox", ["sh", "-c", "echo a > /a; cat /a"]).stdout)
"""
    env = {
        **os.environ,
        "DUCKWEED_ROOT": str(noexec.root),  # type: ignore[attr-defined]
        "TMPDIR": str(noexec.scratch),  # type: ignore[attr-defined]
        "DUCKWEED_PRETEND": "noexec-store",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout == "b'a\\n'\n" * 3, done.stderr
    assert os.listdir(place_of(noexec) + "/containers") == []


REAL = """
set -e
mkdir store
mount -t {kind} {options} none store
export DUCKWEED_ROOT=$PWD/store/s TMPDIR=$PWD/scratch
mkdir -p scratch
duckweed() {{ {command} "$@"; }}
duckweed load -i {archive}
duckweed run --name box busybox sh -c 'rm -r /home && mkdir /home && ls /home && echo x > /bin/new && rm /bin/yes'
duckweed start box
duckweed wait box
duckweed rm box
duckweed rmi busybox
find store/s/blobs store/s/layers store/s/containers store/s/tmp scratch/*/*/layers scratch/*/*/containers -mindepth 1 ! -name sha256
"""


@pytest.mark.parametrize(("kind", "options", "why"), [
    ("tmpfs", "-o noexec", "is mounted noexec (EACCES)"),
    ("ramfs", "", "has no extended attributes (EOPNOTSUPP)"),
])  # fmt: skip
def test_real_poor_file_systems(tmp_path: Path, archives: Path, kind: str, options: str, why: str) -> None:
    from conftest import command

    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    trial = f"mount -t {kind} {options} none /mnt"
    if not shutil.which("unshare") or subprocess.run([*inside, trial], capture_output=True).returncode:
        pytest.skip(f"{kind} cannot be mounted in a user namespace here")
    script = REAL.format(
        kind=kind, options=options, command=" ".join(command()), archive=archives / "busybox.tar"
    )
    done = subprocess.run([*inside, script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"note: the store {why}" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Loaded image: busybox:latest"
    # Nothing of it is left, here or there; the second start failed for want of /bin/yes, as it should.
    assert lines[-1].startswith("Deleted: ")
