"""A disk that is full, out of inodes, read-only or limited while an image is loaded: one clear line, nothing left, and
the same command succeeds when there is room.

The disk is a tmpfs of each size from far too small to just enough, in a user namespace, so that writing fails at every
stage in turn.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path

import pytest

import images
from conftest import command, runner

INSIDE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]

#: Loads into a tmpfs that is too small, says what is left there, then makes it larger and loads again.
SCRIPT = """
set -u
mount -t tmpfs -o {options} none {disk} || exit 99
export DUCKWEED_ROOT={disk}/s DUCKWEED_PRETEND=no-subid
{command} load -q -i {archive}; echo "exit $?"
{look}
mount -t tmpfs -o remount,{more} none {disk} && {command} load -q -i {archive}; echo "exit $?"
{command} images -q | wc -l
"""
LOOK = "for d in layers tmp images blobs/sha256; do find {disk}/s/$d -mindepth 1 2>/dev/null | sed 's/^/left /'; done"


def on_disk(
    tmp_path: Path, archive: Path, options: str, more: str = "size=64m,nr_inodes=100k"
) -> subprocess.CompletedProcess[str]:
    """The script above, on a tmpfs with these options and then with `more`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    trial = subprocess.run([*INSIDE, f"mount -t tmpfs none {disk}"], capture_output=True)
    if trial.returncode:
        pytest.skip("a tmpfs cannot be mounted in a user namespace here")
    script = SCRIPT.format(
        disk=disk,
        options=options,
        more=more,
        archive=archive,
        command=" ".join(command()),
        look=LOOK.format(disk=disk),
    )
    return subprocess.run([*INSIDE, script], capture_output=True, text=True, timeout=120)


def check(done: subprocess.CompletedProcess[str], words: tuple[str, ...]) -> None:
    """One error line (and perhaps its hint), nothing left, and success afterwards."""
    lines = done.stdout.splitlines()
    assert lines[0] == "exit 1", (done.stdout, done.stderr)
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("hint:", "note:"))]
    assert len(errors) == 1 and any(word in errors[0] for word in words), done.stderr
    assert not [line for line in lines if line.startswith("left ")], done.stdout
    assert lines[-2:] == ["exit 0", "1"], (done.stdout, done.stderr)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A docker-archive of two layers with content that does not pack: about 3 MB, 300 files."""
    import random

    noise = random.Random(5)
    layers = []
    for letter in "ab":
        entries = [(images.member(f"{letter}{n:03}"), noise.randbytes(10_000)) for n in range(150)]
        layers.append(images.layer(entries))
    return images.docker_archive(tmp_path_factory.mktemp("full") / "noise.tar", ["noise:latest"], layers)


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path: Path, archive: Path) -> None:
    done = on_disk(tmp_path, archive, "size=1m")
    check(done, ("no room for the image: ",))
    assert "needed, " in done.stderr and " free in `" in done.stderr
    assert "hint: free some" in done.stderr


# 3.2 MB are asked for; the trees take 3.6 in whole pages, each blob 1.5.
@pytest.mark.parametrize("size_kb", [3300, 3700, 4200, 4800, 5300, 5900, 6400])
def test_disk_that_fills_up_on_the_way(tmp_path: Path, archive: Path, size_kb: int) -> None:
    check(on_disk(tmp_path, archive, f"size={size_kb}k"), ("no space left on device (ENOSPC)",))


@pytest.mark.parametrize("inodes", [8, 20, 100, 250])
def test_disk_that_runs_out_of_inodes(tmp_path: Path, archive: Path, inodes: int) -> None:
    done = on_disk(tmp_path, archive, f"size=64m,nr_inodes={inodes}")
    check(done, ("no space left on device (ENOSPC)", "files needed"))


def test_file_size_limit_is_the_disks_fault_not_the_images(tmp_path: Path, archive: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    root = tmp_path / "s"
    run = runner(root)
    argv = [*command(), "load", "-i", str(archive)]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env={"DUCKWEED_ROOT": str(root), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1 and "(EFBIG)" in done.stderr, done.stderr
    assert not list((root / "layers").iterdir()) and not list((root / "tmp").iterdir())
    run("load", "-i", str(archive), check=True)


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
def test_read_only_disk_says_so(tmp_path: Path, archive: Path) -> None:
    done = on_disk(tmp_path, archive, "size=64m,ro", more="rw")
    lines = done.stdout.splitlines()
    assert lines[0] == "exit 1" and "(EROFS)" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert lines[-2:] == ["exit 0", "1"], (done.stdout, done.stderr)
