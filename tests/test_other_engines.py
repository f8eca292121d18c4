"""What we write, the other engines read, and what they write of it, we read: the same layers all round."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from conftest import Run, runner

CHANGES = """
mkdir -p /a/b; echo x > /a/b/c; ln /a/b/c /a/hard; ln -s b /a/soft; mkfifo /a/fifo; chmod 2750 /a/b; chmod 4711 /a/b/c
rm /bin/ls; rm -rf /home; mkdir /home; echo kept > /home/kept; touch -d @1600000000 /a/b/c
touch /a/a-name-that-is-far-too-long-for-the-header-of-a-tar-which-has-a-hundred-bytes-for-it-and-no-more-than-that-it-is
"""


def tool(name: str) -> str:
    """The path of another engine's tool, or a skip."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def quiet(*argv: str | Path) -> str:
    """Runs a tool that must succeed; its stdout."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def image(duckweed: Run, busybox: str) -> str:
    """A committed image: one layer that came, and one that we have written."""
    duckweed("run", "--name", "for-others", busybox, "sh", "-c", CHANGES, check=True)
    duckweed("commit", "-m", "for others", "for-others", "for-others:1", check=True)
    duckweed("rm", "for-others", check=True)
    return "for-others:1"


@pytest.fixture(scope="module")
def saved(duckweed: Run, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the image in both formats: docker.tar, oci.tar."""
    place = tmp_path_factory.mktemp("saved")
    duckweed("save", "-o", str(place / "docker.tar"), image, check=True)
    duckweed("save", "--format", "oci-archive", "-o", str(place / "oci.tar"), image, check=True)
    return place


def layers(run: Run, image: str) -> list[str]:
    view: list[str] = json.loads(run("image", "inspect", image, check=True).stdout)[0]["RootFS"]["Layers"]
    return view


def test_the_same_image_is_the_same_bytes(duckweed: Run, image: str, saved: Path, tmp_path: Path) -> None:
    duckweed("save", "-o", str(tmp_path / "again.tar"), image, check=True)
    assert (tmp_path / "again.tar").read_bytes() == (saved / "docker.tar").read_bytes()


@pytest.mark.parametrize("archive", ["docker.tar", "oci.tar"])
def test_our_own_archive_comes_back_as_the_same_image(
    duckweed: Run, image: str, saved: Path, archive: str, fresh: Run
) -> None:
    assert fresh("load", "-i", str(saved / archive), check=True).stdout == "Loaded image: for-others:1\n"
    assert layers(fresh, image) == layers(duckweed, image)
    wanted = duckweed("images", "-q", "--no-trunc", image).stdout
    assert fresh("images", "-q", "--no-trunc", image).stdout == wanted
    # A second save of what was loaded is the first again, manifest and all.
    fresh("save", "--format", "oci-archive", "-o", str(saved / "second.tar"), image, check=True)
    fresh("save", "--format", "oci-archive", "-o", str(saved / "third.tar"), image, check=True)
    assert (saved / "second.tar").read_bytes() == (saved / "third.tar").read_bytes()
    if archive == "oci.tar":
        assert (saved / "second.tar").read_bytes() == (saved / "oci.tar").read_bytes()


def test_every_blob_of_an_archive_has_the_digest_it_is_named_for(saved: Path) -> None:
    for archive in ("docker.tar", "oci.tar"):
        with tarfile.open(saved / archive) as tar:
            for member in tar.getmembers():
                if member.isfile() and member.name.startswith("blobs/sha256/"):
                    body = tar.extractfile(member)
                    assert (
                        body
                        and hashlib.sha256(body.read()).hexdigest() == member.name[len("blobs/sha256/") :]
                    )


def test_skopeo_reads_both_formats_and_what_it_writes_is_the_same(
    duckweed: Run, image: str, saved: Path, tmp_path: Path, fresh: Run
) -> None:
    skopeo = tool("skopeo")
    sources = {
        "docker": f"docker-archive:{saved}/docker.tar:docker.io/library/for-others:1",
        "oci": f"oci-archive:{saved}/oci.tar:1",
    }
    for name, source in sources.items():
        quiet(skopeo, "copy", "--insecure-policy", source, f"oci-archive:{tmp_path}/{name}.tar:back:{name}")
        fresh("load", "-i", str(tmp_path / f"{name}.tar"), check=True)
        assert layers(fresh, f"back:{name}") == layers(duckweed, image)
    digest = quiet(skopeo, "inspect", "--raw", sources["oci"])
    (manifest,) = [
        entry["digest"] for entry in json.loads(_member(saved / "oci.tar", "index.json"))["manifests"]
    ]
    assert "sha256:" + hashlib.sha256(digest.encode()).hexdigest() == manifest


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        body = tar.extractfile(name)
        assert body is not None
        return body.read()


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    """Path -> type and mode, size, target, time in seconds, first name of the inode."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for at, directories, files in os.walk(top):
        for name in sorted([*directories, *files]):
            path = os.path.join(at, name)
            stat, relative = os.lstat(path), os.path.relpath(path, top)
            is_link, is_directory = os.path.islink(path), name in directories and not os.path.islink(path)
            first = relative if is_directory else inodes.setdefault(stat.st_ino, relative)
            link = os.readlink(path) if is_link else ""
            size = 0 if is_directory else stat.st_size
            found[relative] = (
                oct(stat.st_mode),
                size,
                link,
                int(stat.st_mtime) if not is_directory else 0,
                first,
            )
    return found


def test_umoci_unpacks_the_tree_that_we_have(duckweed: Run, image: str, saved: Path, tmp_path: Path) -> None:
    umoci = tool("umoci")
    with tarfile.open(saved / "oci.tar") as tar:
        tar.extractall(tmp_path / "layout")
    quiet(umoci, "unpack", "--rootless", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    ours = tmp_path / "ours"
    ours.mkdir()
    duckweed("create", "--name", "exported", image, check=True)
    duckweed("export", "-o", str(tmp_path / "export.tar"), "exported", check=True)
    duckweed("rm", "exported")
    quiet("tar", "-C", ours, "--same-permissions", "-xf", tmp_path / "export.tar")
    theirs = tree(tmp_path / "bundle/rootfs")
    mine = {
        path: facts
        for path, facts in tree(ours).items()
        if path in theirs or path.startswith(("a", "bin", "home"))
    }
    assert mine == theirs


def test_podman_loads_runs_through_and_saves_the_same_layers(
    duckweed: Run, image: str, saved: Path, tmp_path: Path, fresh: Run
) -> None:
    podman = tool("podman")
    (tmp_path / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    short = tempfile.mkdtemp(prefix="pm", dir="/tmp")  # podman wants a runroot of at most 50 characters
    place = [podman, "--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
    place += ["--cgroup-manager", "cgroupfs"]
    probe = subprocess.run([*place, "images"], capture_output=True, text=True, timeout=60)
    if probe.returncode != 0:
        pytest.skip(f"podman does not work for this account here: {probe.stderr.strip().splitlines()[-1:]}")
    try:
        for archive in ("docker.tar", "oci.tar"):
            quiet(*place, "load", "--signature-policy", tmp_path / "policy.json", "-i", saved / archive)
            name = quiet(*place, "images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()[0]
            for kind in ("docker-archive", "oci-archive"):
                quiet(*place, "save", "--format", kind, "-o", tmp_path / f"{kind}.tar", name)
                run = runner(tmp_path / f"store-{kind}")
                loaded = run("load", "-i", str(tmp_path / f"{kind}.tar"), check=True).stdout.split()[-1]
                assert layers(run, loaded) == layers(duckweed, image)
                (tmp_path / f"{kind}.tar").unlink()
            quiet(*place, "rmi", "-f", name)
    finally:
        subprocess.run([podman, "unshare", "rm", "-rf", short], timeout=60)


def test_several_images_and_all_tags_of_a_repository(
    duckweed: Run, image: str, tmp_path: Path, fresh: Run
) -> None:
    duckweed("tag", image, "for-others:2", check=True)
    duckweed("save", "-o", str(tmp_path / "all.tar"), "for-others", "busybox:latest", check=True)
    said = fresh("load", "-i", str(tmp_path / "all.tar"), check=True).stdout
    assert sorted(said.splitlines()) == [
        "Loaded image: busybox:latest",
        "Loaded image: for-others:1",
        "Loaded image: for-others:2",
    ]
    by_id = duckweed("images", "-q", image).stdout.split()[0]
    duckweed("save", "-o", str(tmp_path / "id.tar"), by_id, check=True)
    assert json.loads(_member(tmp_path / "id.tar", "manifest.json"))[0]["RepoTags"] is None
    duckweed("rmi", "for-others:2")


def test_mistakes_leave_no_file(duckweed: Run, busybox: str, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    for words, code in (
        (("save", "-o", str(target), "no-such"), 1),
        (("save", "-o", str(target), "host"), 1),
        (("save", "--format", "zip", "-o", str(target), busybox), 1),
        (("save", "-o", str(tmp_path / "no/such/dir"), busybox), 1),
        (("export", "-o", str(target), "no-such"), 1),
        (("save", "-o", str(tmp_path), busybox), 1),
    ):
        done = duckweed(*words)
        assert done.returncode == code and done.stderr.count("\n") <= 2, (words, done.stderr)
    assert list(tmp_path.iterdir()) == []
    if os.path.exists("/dev/full"):
        done = duckweed("save", "-o", "/dev/full", busybox)
        assert done.returncode == 1 and "ENOSPC" in done.stderr
