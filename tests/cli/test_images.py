"""`load`, `import`, `images`, `history`, `tag`, `rmi`, `image prune`."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from conftest import Run, command


@pytest.fixture
def store(fresh: Run, archives: Path) -> Run:
    """A store with busybox in it."""
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    return fresh


def test_load_says_what_it_loaded(fresh: Run, archives: Path) -> None:
    done = fresh("load", "-i", str(archives / "busybox.tar"))
    assert (done.stdout, done.returncode) == ("Loaded image: busybox:latest\n", 0)
    done = fresh("load", "--input", str(archives / "busybox.oci.tar"))
    assert (done.stdout, done.returncode) == ("Loaded image: example/busybox:oci\n", 0)


def test_load_reads_stdin(fresh: Run, archives: Path) -> None:
    env = {**os.environ, "DUCKWEED_ROOT": str(fresh.root)}  # type: ignore[attr-defined]
    with open(archives / "busybox.tar", "rb") as archive:
        done = subprocess.run(
            [*command(), "load", "-q"], stdin=archive, env=env, capture_output=True, text=True
        )
    assert (done.stdout, done.returncode) == ("Loaded image: busybox:latest\n", 0)


def test_a_missing_file_is_one_line(fresh: Run) -> None:
    done = fresh("load", "-i", "/no/such/file.tar")
    assert done.returncode == 1
    assert "/no/such/file.tar" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_table_is_dockers(store: Run) -> None:
    header, line = store("images", "busybox").stdout.splitlines()
    assert re.split(r"\s{3,}", header) == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    assert re.fullmatch(r"busybox +latest +[0-9a-f]{12} +\d+ \w+ ago +[\d.]+MB", line)


def test_ids_digests_and_formats(store: Run) -> None:
    (short,) = store("images", "-q", "busybox").stdout.split()
    (full,) = store("images", "-q", "--no-trunc", "busybox").stdout.split()
    assert full.startswith(f"sha256:{short}")
    assert "DIGEST" in store("images", "--digests").stdout
    assert json.loads(store("images", "--format", "json", "busybox").stdout)["Tag"] == "latest"
    assert store("images", "--format", "{{.Repository}}:{{.Tag}}", "busybox").stdout == "busybox:latest\n"


def test_the_machine_itself_is_always_an_image(fresh: Run) -> None:
    assert (
        fresh("images", "--format", "{{.Repository}}:{{.Tag}} {{.CreatedSince}}").stdout
        == "host:latest N/A\n"
    )


def test_a_reference_narrows(store: Run) -> None:
    store("tag", "busybox", "team/app:v1", check=True)
    assert store("images", "-q", "team/app").stdout.count("\n") == 1
    assert store("images", "-q", "nothing").stdout == ""


def test_tag_and_rmi(store: Run) -> None:
    store("tag", "busybox", "second:2", check=True)
    assert store("images", "--format", "{{.Repository}}", "--filter", "reference=second").stdout == "second\n"
    assert store("rmi", "second:2").stdout == "Untagged: second:2\n"
    removed = store("rmi", "busybox").stdout.splitlines()
    assert removed[0] == "Untagged: busybox:latest"
    assert all(line.startswith("Deleted: sha256:") for line in removed[1:])
    assert store("images", "-q", "busybox").stdout == ""


def test_rmi_refuses_what_is_used(store: Run) -> None:
    store("create", "--name", "user", "busybox", check=True)
    done = store("rmi", "busybox")
    assert (done.returncode, done.stderr.startswith("Error: ")) == (1, True)
    assert store("images", "-q", "busybox").stdout != ""


def test_rmi_of_a_missing_image_is_dockers_words(store: Run) -> None:
    done = store("rmi", "nothing:1")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "Error: No such image: nothing:1")


def test_history_shows_what_made_it(store: Run) -> None:
    header, line = store("history", "busybox").stdout.splitlines()
    assert re.split(r"\s{3,}", header) == ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    assert "layer 0" in line
    assert store("history", "-q", "busybox").stdout.split() == store("images", "-q", "busybox").stdout.split()


def test_import_makes_an_image_of_a_tree(fresh: Run, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("hello")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"hi\n"))
    done = fresh("import", "-c", 'CMD ["/hello"]', "-m", "made here", str(archive), "mine:1", check=True)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)
    assert (
        fresh("image", "inspect", "-f", "{{json .Config.Cmd}} {{.Comment}}", "mine:1").stdout
        == '["/hello"] made here\n'
    )


def test_prune_removes_untagged_or_unused(store: Run, archives: Path) -> None:
    assert store("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    report = store("image", "prune", "-a", "-f").stdout
    assert report.startswith("Deleted Images:\nuntagged: busybox:latest\n")
    assert re.search(r"\nTotal reclaimed space: [\d.]+[kM]B\n$", report)
    assert store("images", "-q", "busybox").stdout == ""
