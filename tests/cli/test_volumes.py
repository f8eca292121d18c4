"""Volumes: data that outlives every container."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import pytest

from conftest import Run


@pytest.fixture
def volume(duckweed: Run) -> Iterator[str]:
    """The name of a volume that exists; it is removed at the end."""
    name = f"v{os.urandom(6).hex()}"
    assert duckweed("volume", "create", "--label", "use=test", name, check=True).stdout == f"{name}\n"
    yield name
    duckweed("volume", "rm", "-f", name)


def test_what_is_written_is_there_for_the_next(duckweed: Run, busybox: str, volume: str) -> None:
    duckweed(
        "run", "--rm", "-v", f"{volume}:/data", busybox, "sh", "-c", "echo kept > /data/file", check=True
    )
    assert (
        duckweed("run", "--rm", "-v", f"{volume}:/data:ro", busybox, "cat", "/data/file").stdout == "kept\n"
    )


def test_it_is_on_the_host_where_inspect_says(duckweed: Run, busybox: str, volume: str) -> None:
    duckweed(
        "run", "--rm", "-v", f"{volume}:/data", busybox, "sh", "-c", "echo kept > /data/file", check=True
    )
    (facts,) = json.loads(duckweed("volume", "inspect", volume).stdout)
    assert (facts["Name"], facts["Driver"], facts["Labels"]) == (volume, "local", {"use": "test"})
    with open(os.path.join(facts["Mountpoint"], "file")) as file:
        assert file.read() == "kept\n"


def test_an_empty_one_begins_with_the_images_files(duckweed: Run, busybox: str, volume: str) -> None:
    done = duckweed("run", "--rm", "-v", f"{volume}:/etc", busybox, "ls", "/etc/passwd")
    assert done.stdout == "/etc/passwd\n"


def test_ls_shows_driver_and_name(duckweed: Run, volume: str) -> None:
    text = duckweed("volume", "ls", "-f", f"name={volume}").stdout
    assert text == f"DRIVER    VOLUME NAME\nlocal     {volume}\n"
    assert duckweed("volume", "ls", "-q", "--filter", "label=use=test").stdout == f"{volume}\n"
    assert (
        json.loads(duckweed("volume", "ls", "-f", f"name={volume}", "--format", "json").stdout)["Scope"]
        == "local"
    )


def test_in_use_means_not_removable(duckweed: Run, busybox: str, volume: str, name: str) -> None:
    duckweed("create", "--name", name, "-v", f"{volume}:/data", busybox, check=True)
    done = duckweed("volume", "rm", volume)
    assert (done.returncode, "volume is in use" in done.stderr) == (1, True)
    duckweed("rm", name, check=True)
    assert duckweed("volume", "rm", volume).stdout == f"{volume}\n"


def test_a_missing_one_is_an_error_unless_forced(duckweed: Run) -> None:
    assert duckweed("volume", "rm", "nothing").returncode == 1
    assert duckweed("volume", "rm", "-f", "nothing").returncode == 0
    done = duckweed("volume", "inspect", "nothing")
    assert (done.stdout, done.returncode) == ("[]\n", 1)


def test_without_a_name_it_gets_one(fresh: Run) -> None:
    name = fresh("volume", "create", check=True).stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", name)
    assert fresh("volume", "ls", "-q").stdout == f"{name}\n"


def test_prune_takes_anonymous_ones_or_all(fresh: Run) -> None:
    fresh("volume", "create", "named", check=True)
    anonymous = fresh("volume", "create", check=True).stdout.strip()
    report = fresh("volume", "prune", "-f").stdout
    assert report.startswith(f"Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: ")
    assert fresh("volume", "ls", "-q").stdout == "named\n"
    fresh("volume", "prune", "-a", "-f", check=True)
    assert fresh("volume", "ls", "-q").stdout == ""
