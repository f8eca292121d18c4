"""`cp`: both ways, running and stopped, by Docker's rules, and never out of a container's root."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run, command

SCRIPT = """
mkdir -p /d/sub /empty; echo a > /d/a; echo b > /d/sub/b; ln /d/a /d/hard; ln -s a /d/soft; ln -s /d /link
chmod 750 /d/sub; chmod 4755 /d/sub/b; touch -d @1600000000 /d/a; echo f > /file; ln -s /etc/passwd /out
"""


@pytest.fixture(scope="module", params=["running", "stopped", "created"])
def box(request: pytest.FixtureRequest, place: Run) -> Iterator[str]:
    """A container with files, in each place and each state that cp knows."""
    name = f"cp-{request.param}-{place.name}"  # type: ignore[attr-defined]
    place("run", "--name", f"{name}-made", "busybox", "sh", "-c", SCRIPT, check=True)
    image = place("commit", f"{name}-made", f"{name}-image", check=True).stdout.strip()
    assert image
    place("rm", f"{name}-made", check=True)
    place(
        "create", "--name", name, "-v", f"{name}-volume:/volume", f"{name}-image", "sleep", "1000", check=True
    )
    if request.param != "created":
        place("start", name, check=True)
    if request.param == "stopped":
        place("stop", "-t", "0", name, check=True)
    yield name
    place("rm", "-f", "-v", name)
    place("volume", "rm", f"{name}-volume")
    place("rmi", "-f", f"{name}-image")


def look(place: Run, box: str, script: str) -> str:
    """What a script sees in the container's files, whatever state it is in."""
    status = place("inspect", "-f", "{{.State.Status}}", box).stdout.strip()
    if status == "running":
        return place("exec", box, "sh", "-c", script, check=True).stdout
    image = place("commit", box, check=True).stdout.strip()
    try:
        return place(
            "run", "--rm", "-v", f"{box}-volume:/volume", image, "sh", "-c", script, check=True
        ).stdout
    finally:
        place("rmi", "-f", image)


def test_a_directory_comes_out_with_all_that_is_in_it(place: Run, box: str, tmp_path: Path) -> None:
    place("cp", f"{box}:/d", str(tmp_path), check=True)
    place("cp", f"{box}:d/.", str(tmp_path / "contents"), check=True)
    for top in (tmp_path / "d", tmp_path / "contents"):
        assert (top / "a").read_text() == "a\n" and (top / "sub/b").read_text() == "b\n"
        assert os.readlink(top / "soft") == "a"
        assert (top / "hard").stat().st_ino == (top / "a").stat().st_ino
        assert (top / "a").stat().st_mtime == 1600000000
        assert (top / "sub").stat().st_mode & 0o7777 == 0o750 and (
            top / "sub/b"
        ).stat().st_mode & 0o7777 == 0o4755
        assert (top / "a").stat().st_uid == os.getuid()


def test_links_are_copied_or_followed_inside(place: Run, box: str, tmp_path: Path) -> None:
    place("cp", f"{box}:/out", str(tmp_path / "as-link"), check=True)
    assert os.readlink(tmp_path / "as-link") == "/etc/passwd"
    place("cp", "-L", f"{box}:/out", str(tmp_path / "followed"), check=True)
    assert "user:x:1000" in (tmp_path / "followed").read_text()  # the container's passwd, not the machine's
    place("cp", f"{box}:/link/", str(tmp_path / "through"), check=True)
    assert (tmp_path / "through/sub/b").exists()


def test_files_go_in_and_belong_to_root_or_to_whom_they_did(place: Run, box: str, tmp_path: Path) -> None:
    source = tmp_path / "new"
    source.write_text("new\n")
    os.chmod(source, 0o640)
    place("cp", str(source), f"{box}:/d/in", check=True)
    place("cp", str(source), f"{box}:/link/", check=True)
    place("cp", str(source), f"{box}:/volume/", check=True)
    seen = look(place, box, "stat -c '%n %u:%g %a' /d/in /d/new /volume/new; cat /d/in")
    assert seen == "/d/in 0:0 640\n/d/new 0:0 640\n/volume/new 0:0 640\nnew\n"


def test_a_tar_goes_through_stdin_and_stdout(place: Run, box: str, root: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("link/from-tar")
        info.size, info.mode = 4, 0o600
        tar.addfile(info, io.BytesIO(b"tar\n"))
    env = {**os.environ, "DUCKWEED_ROOT": str(root), "DUCKWEED_PRETEND": _pretend(place)}
    done = subprocess.run(
        [*command(), "cp", "-", f"{box}:/"], input=out.getvalue(), env=env, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run([*command(), "cp", f"{box}:/d", "-"], env=env, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = tar.getnames()
        assert {"d", "d/a", "d/from-tar", "d/sub/b"} <= set(names)
        member = tar.extractfile("d/from-tar")
        assert member is not None and member.read() == b"tar\n"


def _pretend(place: Run) -> str:
    from conftest import PLACES

    return PLACES[place.name]  # type: ignore[attr-defined]


def test_dockers_rules_and_words_for_what_is_in_the_way(place: Run, box: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("")
    table = [
        ((f"{box}:/no-such", str(tmp_path)), f"Could not find the file /no-such in container {box}"),
        ((f"{box}:/d", str(tmp_path / "file")), "cannot copy directory"),
        ((f"{box}:/file", str(tmp_path / "new/")), "no such directory"),
        (
            (f"{box}:/file", str(tmp_path / "no/new")),
            f'invalid output path: directory "{tmp_path}/no" does not exist',
        ),
        ((str(tmp_path / "dir"), f"{box}:/file"), "cannot copy directory"),
        ((str(tmp_path / "no"), f"{box}:/d"), f"lstat {tmp_path}/no: no such file or directory"),
        ((str(tmp_path / "file"), f"{box}:/no/x"), f"Could not find the file /no/x in container {box}"),
        ((str(tmp_path / "file"), f"{box}:/no/"), "no such directory"),
    ]
    for words, expected in table:
        # A path object drops what a final slash says.
        words = tuple(
            word + "/" if expected == "no such directory" and word.endswith("new") else word for word in words
        )
        done = place("cp", *words)
        assert done.returncode == 1 and done.stderr.startswith(f"duckweed: {expected}"), (words, done.stderr)
        assert done.stderr.count("\n") <= 2


def test_nothing_is_written_through_a_link_that_a_container_made(
    place: Run, box: str, tmp_path: Path
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "sub").symlink_to(outside)
    done = place("cp", f"{box}:/d/.", str(inside))
    assert done.returncode == 1 and "sub" in done.stderr
    assert list(outside.iterdir()) == []


def test_a_link_in_the_container_leads_to_no_file_of_the_machine(
    place: Run, box: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    source = tmp_path / "source"
    source.write_text("written")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/trap").symlink_to(secret)
    (tmp_path / "in/deep").symlink_to("../../../../../../../../" + str(tmp_path))
    place("cp", f"{tmp_path}/in", f"{box}:/", check=True)
    place("cp", "-L", f"{box}:/in/trap", str(tmp_path / "got"))
    place("cp", str(source), f"{box}:/in/trap")
    place("cp", str(source), f"{box}:/in/deep/secret")
    assert secret.read_text() == "secret" and not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("a:/x", "b:/y"), "duckweed: copying between containers is not supported"),
        (("x", "y"), "duckweed: must specify at least one container source"),
        (("no-such:/x", "y"), "duckweed: No such container: no-such"),
        (("x",), "duckweed: 'duckweed cp' requires 2 arguments"),
    ],
)
def test_mistakes_are_one_line(duckweed: Run, words: tuple[str, ...], first: str) -> None:
    done = duckweed("cp", *words)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, first)


def test_read_only_places_refuse(duckweed: Run, busybox: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    duckweed("create", "--name", name, "--read-only", "-v", f"{tmp_path}:/ro:ro", busybox, check=True)
    for target in ("/etc/new", "/ro/new"):
        done = duckweed("cp", str(tmp_path / "file"), f"{name}:{target}")
        assert done.returncode == 1 and "EROFS" in done.stderr, target
