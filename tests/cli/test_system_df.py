"""`system df`, and that what it calls reclaimable is what the prunes give back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import images
from conftest import Run


@pytest.fixture
def store(fresh: Run, tmp_path: Path) -> Run:
    """Two images on one layer; `two` has one more of its own. A container of each wrote 1000 bytes."""
    base, top = images.busybox_layer(), images.layer([(images.member("big"), bytes(50_000))])
    for name, layers in (("one", [base]), ("two", [base, top])):
        archive = images.docker_archive(tmp_path / f"{name}.tar", [f"{name}:1"], layers)
        fresh("load", "-i", str(archive), check=True)
    write = "head -c 1000 /dev/zero > /root/file"
    fresh("run", "--name", "first", "two:1", "sh", "-c", write, check=True)
    return fresh


def rows(run: Run, *args: str) -> dict[str, dict[str, str]]:
    lines = run("system", "df", "--format", "json", *args, check=True).stdout.splitlines()
    return {row["Type"]: row for row in map(json.loads, lines)}


def test_the_table_is_dockers(store: Run) -> None:
    header, *lines = store("system", "df", check=True).stdout.splitlines()
    assert re.split(r"\s{2,}", header) == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    found = {re.split(r"\s{2,}", line)[0]: re.split(r"\s{2,}", line)[1:] for line in lines}
    assert list(found) == ["Images", "Containers", "Local Volumes", "Build Cache"]
    assert found["Images"][:2] == ["2", "1"]
    assert found["Containers"] == ["1", "0", "1kB", "1kB (100%)"]
    assert found["Build Cache"] == ["0", "0", "0B", "0B"]


def test_layers_are_shared_between_images_and_counted_once(store: Run) -> None:
    shown = store("system", "df", "-v", "--format", "{{json .Images}}", check=True).stdout
    by_name = {row["Repository"]: row for row in json.loads(shown)}
    assert by_name["one"]["SharedSize"] == by_name["two"]["SharedSize"] != "0B"
    assert (by_name["one"]["Containers"], by_name["two"]["Containers"]) == ("0", "1")
    # 50,000 bytes of zeros, a tar's headers and blocks of 10 KiB, the small blobs.
    assert re.fullmatch(r"6\d\.?\d*kB", by_name["two"]["UniqueSize"])
    assert re.fullmatch(r"\d+(\.\d+)?k?B", by_name["one"]["UniqueSize"])


def test_everything_in_detail(store: Run) -> None:
    text = store("system", "df", "-v", check=True).stdout
    for title in ("Images space usage:", "Containers space usage:", "Local Volumes space usage:"):
        assert title in text
    assert "SHARED SIZE   UNIQUE SIZE   CONTAINERS" in text
    assert re.search(r"first$", text, re.MULTILINE)
    assert "Build cache usage: 0B" in text


def reclaimed(text: str) -> str:
    return re.search(r"Total reclaimed space: (\S+)", text)[1]  # type: ignore[index]


def test_reclaimable_is_what_prune_gives_back(store: Run) -> None:
    before = rows(store)
    assert before["Images"]["Reclaimable"].split()[0] == reclaimed(store("image", "prune", "-af").stdout)
    assert before["Containers"]["Reclaimable"].split()[0] == reclaimed(
        store("container", "prune", "-f").stdout
    )
    after = rows(store)
    assert after["Images"]["Reclaimable"].split()[0] == after["Images"]["Size"]
    assert reclaimed(store("image", "prune", "-af").stdout) == after["Images"]["Size"]
    assert rows(store)["Images"]["Size"] == "0B"


def test_volumes_count_as_used_while_a_container_refers_to_them(store: Run) -> None:
    write = "head -c 2000 /dev/zero > /data/file; mkdir -m 700 /data/closed"
    store("run", "--name", "second", "-v", "mine:/data", "one:1", "sh", "-c", write, check=True)
    assert rows(store)["Local Volumes"]["Reclaimable"] == "0B (0%)"
    shown = store("system", "df", "-v", "--format", "{{json .Volumes}}").stdout
    (volume,) = json.loads(shown)
    assert (volume["Name"], volume["Links"], volume["Size"]) == ("mine", "1", "2kB")
    store("rm", "second", check=True)
    assert rows(store)["Local Volumes"]["Reclaimable"] == "2kB (100%)"


def test_what_other_ids_of_ours_closed_is_measured_too(place: Run) -> None:
    script = "mkdir -m 700 /closed; head -c 3000 /dev/zero > /closed/file; chown -R 5:5 /closed; true"
    place("run", "--name", "closed", "busybox", "sh", "-c", script, check=True)
    try:
        facts = json.loads(place("inspect", "--size", "closed").stdout)[0]
        assert facts["SizeRw"] >= 3000 and facts["SizeRootFs"] >= facts["SizeRw"]
        assert "kB" in place("ps", "-as", "--filter", "name=closed", "--format", "{{.Size}}").stdout or (
            "no-overlay" in place.name  # type: ignore[attr-defined]
        )
    finally:
        place("rm", "-f", "closed")


def test_until_does_not_go_with_volumes_and_nothing_is_removed(store: Run) -> None:
    done = store("system", "prune", "-f", "--volumes", "--filter", "until=1s")
    assert done.returncode == 1 and '"until" filter is not supported with "--volumes"' in done.stderr
    assert store("ps", "-aq").stdout


def test_prunes_know_dockers_filters_only(store: Run) -> None:
    for verb in (("container", "prune"), ("system", "prune")):
        done = store(*verb, "-f", "--filter", "name=first")
        assert (done.returncode, store("ps", "-aq").stdout.count("\n")) == (1, 1)
        assert "invalid filter 'name'" in done.stderr


def test_system_prune_asks_with_the_filters(store: Run) -> None:
    done = store("system", "prune", "-a", "--filter", "label=x", input="n\n")
    assert done.stdout.startswith("WARNING! This will remove:\n  - all stopped containers\n")
    assert "  Items to be pruned will be filtered with:\n  - label=x\n" in done.stdout
    assert store("ps", "-aq").stdout


def test_system_prune_takes_all_that_nothing_uses(store: Run) -> None:
    store("run", "-d", "--name", "alive", "one:1", "sleep", "1000", check=True)
    store("volume", "create", "kept", check=True)
    text = store("system", "prune", "-af", "--volumes", check=True).stdout
    assert "Deleted Containers:" in text and "untagged: two:1" in text
    assert store("images", "-q").stdout.count("\n") == 1
    assert store("volume", "ls", "-q").stdout == "kept\n"
    assert store("exec", "alive", "true").returncode == 0
    assert rows(store)["Images"]["Reclaimable"] == "0B (0%)"
