"""`commit` and `diff`: a container's changes as an image, the same in every place."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
from pathlib import Path

import pytest

from conftest import PLACES, Run, runner

CHANGES = """
echo new > /etc/new; rm /bin/ls; mkdir -p /a/b; echo x > /a/b/c; ln /a/b/c /a/hard; ln -s b /a/soft; mkfifo /a/fifo
rm -rf /home; mkdir /home; echo y >> /etc/passwd; chmod 4711 /a/b/c; rm -r /mnt; echo z > /mnt
for f in /a/soft /a/b/c /a/b /a/fifo /a /etc/new /etc/passwd /etc /home /bin /mnt; do touch -h -d @1600000000 $f; done
"""
EXPECTED = """A /a\nA /a/b\nA /a/b/c\nA /a/fifo\nA /a/hard\nA /a/soft\nC /bin\nD /bin/ls
C /etc\nA /etc/new\nC /etc/passwd\nC /home\nD /home/owned\nC /mnt\n"""


@pytest.fixture(scope="module")
def image(place: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of a container in which everything that can change has changed."""
    name = f"changed-{place.name}"  # type: ignore[attr-defined]
    place("run", "--name", name, "busybox", "sh", "-c", CHANGES, check=True)
    try:
        assert place("diff", name).stdout == EXPECTED
        words = ("-a", "Me", "-m", "a message", "-c", 'CMD ["cat", "/etc/new"]', "-c", "ENV A=1", name, name)
        made = place("commit", *words, check=True, env={"SOURCE_DATE_EPOCH": "1700000000"})
        assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", made.stdout)
    finally:
        place("rm", "-f", name)
    return name


def test_a_committed_image_runs_and_has_the_changes(place: Run, image: str) -> None:
    assert place("run", "--rm", image).stdout == "new\n"
    look = "ls -d /bin/ls /home/owned; ls /home; cat /a/hard /mnt; stat -c '%h %a' /a/b/c; readlink /a/soft; test -p /a/fifo"
    done = place("run", "--rm", image, "sh", "-c", look)
    assert (done.stdout, done.returncode) == ("x\nz\n2 4711\nb\n", 0)


def test_history_and_config_tell_of_the_commit(place: Run, image: str) -> None:
    view = json.loads(place("image", "inspect", image, check=True).stdout)[0]
    assert (view["Author"], view["Comment"], view["Created"]) == (
        "Me",
        "a message",
        "2023-11-14T22:13:20.000000000Z",
    )
    assert view["Config"]["Cmd"] == ["cat", "/etc/new"] and "A=1" in view["Config"]["Env"]
    assert len(view["RootFS"]["Layers"]) == 2
    top, below = place("history", "--no-trunc", "--format", "{{json .}}", image).stdout.splitlines()
    assert json.loads(top)["Comment"] == "a message"
    assert json.loads(top)["CreatedBy"].startswith("sh -c \necho new > /etc/new;")
    assert json.loads(below)["CreatedBy"] == "layer 0"


def test_one_id_and_a_range_give_the_same_layer(root: Path, archives: Path) -> None:
    layers = {}
    for name in ("full", "single-uid"):
        run = runner(root, {"DUCKWEED_PRETEND": PLACES[name], "SOURCE_DATE_EPOCH": "1650000000"})
        if name == "full" and run("info", "--format", "{{.IdMap}}").stdout.strip() != "full":
            pytest.skip("this account has no subordinate ids")
        run("load", "-q", "-i", str(archives / "busybox.tar"), check=True)
        run("run", "--name", f"same-{name}", "busybox", "sh", "-c", CHANGES, check=True)
        image = run("commit", f"same-{name}", check=True).stdout.strip()
        layers[name] = json.loads(run("image", "inspect", image).stdout)[0]["RootFS"]["Layers"]
        run("rm", f"same-{name}")
        run("rmi", image)
    assert layers["full"] == layers["single-uid"]


def test_owners_survive_a_copy_up_and_a_chown_everywhere(place: Run, tmp_path: Path) -> None:
    name = f"owners-{place.name}"  # type: ignore[attr-defined]
    script = "chmod 600 /home/owned; echo mine > /root/mine; chown 5:6 /root/mine; chown 7:8 /etc/group"
    script += "; rm /etc/passwd; echo new > /etc/passwd; cp /home/owned /home/copy"
    place("run", "--name", name, "busybox", "sh", "-c", script, check=True)
    image = place("commit", name, check=True).stdout.strip()
    place("save", "--format", "oci-archive", "-o", str(tmp_path / "image.tar"), image, check=True)
    place("rm", name)
    place("rmi", "-f", image)
    with tarfile.open(tmp_path / "image.tar") as outer:
        index = json.load(outer.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = _blob(outer, index["manifests"][0]["digest"])
        top = json.loads(manifest)["layers"][-1]["digest"]
        with tarfile.open(fileobj=io.BytesIO(_blob(outer, top))) as layer:
            owners = {member.name: (member.uid, member.gid) for member in layer if member.isfile()}
    assert owners == {
        "etc/group": (7, 8),
        "etc/passwd": (0, 0),
        "home/copy": (0, 0),
        "home/owned": (1000, 1000),
        "root/mine": (5, 6),
    }


def _blob(archive: tarfile.TarFile, digest: str) -> bytes:
    body = archive.extractfile("blobs/sha256/" + digest[7:])
    assert body is not None
    return body.read()


def test_nothing_changed_is_no_layer(duckweed: Run, name: str, busybox: str) -> None:
    duckweed("create", "--name", name, busybox, check=True)
    assert duckweed("diff", name).stdout == ""
    image = duckweed("commit", name, check=True).stdout.strip()
    view = json.loads(duckweed("image", "inspect", image).stdout)[0]
    assert len(view["RootFS"]["Layers"]) == 1
    assert duckweed("history", "-q", image).stdout.count("\n") == 2
    duckweed("rmi", "-f", image)


def test_a_running_container_stands_still_and_goes_on(duckweed: Run, start: object) -> None:
    writer = start("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n > /next; mv /next /count; done")  # type: ignore[operator]
    deadline = time.monotonic() + 20
    while duckweed("exec", writer, "test", "-s", "/count").returncode != 0:
        assert time.monotonic() < deadline
    image = duckweed("commit", writer, check=True).stdout.strip()
    before = duckweed("exec", writer, "cat", "/count").stdout
    while duckweed("exec", writer, "cat", "/count").stdout == before:
        assert time.monotonic() < deadline, "it did not go on"
    assert duckweed("commit", "--pause=false", writer).returncode == 0
    assert duckweed("run", "--rm", image, "cat", "/count").stdout.strip().isdigit()
    duckweed("rmi", "-f", image)


def test_diff_of_the_machine_itself_shows_changes_only(duckweed: Run, name: str) -> None:
    duckweed(
        "run",
        "--name",
        name,
        "host",
        "sh",
        "-c",
        "echo x > /etc/made-here 2>/dev/null || echo x > /var/tmp/made-here",
    )
    shown = duckweed("diff", name, check=True).stdout.splitlines()
    assert any(line.startswith("A /") and line.endswith("/made-here") for line in shown)
    assert "C /usr" not in shown
    done = duckweed("commit", name)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "duckweed: cannot commit a container of `host`: its image is this machine",
    )


@pytest.mark.parametrize(
    ("words", "code", "first"),
    [
        (("commit", "no-such"), 1, "duckweed: No such container: no-such"),
        (("diff", "no-such"), 1, "duckweed: No such container: no-such"),
        (("commit",), 1, "duckweed: 'duckweed commit' requires at least 1 argument"),
        (("diff", "a", "b"), 1, "duckweed: 'duckweed diff' requires 1 argument"),
    ],
)
def test_mistakes_are_one_line(duckweed: Run, words: tuple[str, ...], code: int, first: str) -> None:
    done = duckweed(*words)
    assert (done.returncode, done.stderr.splitlines()[0]) == (code, first)


def test_a_bad_instruction_leaves_nothing(duckweed: Run, name: str, busybox: str, root: Path) -> None:
    duckweed("create", "--name", name, busybox, check=True)
    before = sorted(os.listdir(root / "blobs/sha256"))
    done = duckweed("commit", "-c", "RUN ls", name)
    assert done.returncode != 0 and done.stderr.count("\n") <= 2
    assert sorted(os.listdir(root / "blobs/sha256")) == before
