"""`duckweed ps`: which containers there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from conftest import Run


@pytest.fixture
def store(fresh: Run, archives: Path) -> Run:
    """A store with one running container, `web`, and one that ended with 3, `old`, which was made first."""
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    fresh("run", "--name", "old", "--label", "tier=back", "busybox", "sh", "-c", "exit 3")
    fresh(
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "tier=front",
        "--stop-timeout",
        "1",
        "busybox",
        "sleep",
        "100",
        check=True,
    )
    return fresh


def filtered(text: str) -> str:
    """The output with what differs each time taken out."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "[ID]        "[:12], text)
    return re.sub(r"Less than a second|\d+ seconds?", "[TIME]", text)


def test_the_table_is_dockers(store: Run) -> None:
    lines = filtered(store("ps", "-a").stdout).splitlines()
    assert re.split(r"\s{3,}", lines[0]) == [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    assert re.fullmatch(r'\[ID\] +busybox +"sleep 100" +\[TIME\] ago +Up \[TIME\] +web', lines[1])
    assert re.fullmatch(
        r'\[ID\] +busybox +"sh -c \'exit 3\'" +\[TIME\] ago +Exited \(3\) \[TIME\] ago +old', lines[2]
    )


def test_only_running_ones_are_shown_without_a(store: Run) -> None:
    assert store("ps", "--format", "{{.Names}}").stdout == "web\n"
    assert store("ps", "-a", "--format", "{{.Names}}").stdout == "web\nold\n"


def test_q_is_ids_for_other_commands(store: Run) -> None:
    (short,) = store("ps", "-q").stdout.split()
    (full,) = store("ps", "-q", "--no-trunc").stdout.split()
    assert (len(short), len(full), full.startswith(short)) == (12, 64, True)


def test_n_and_l_show_the_newest_in_any_state(store: Run) -> None:
    assert store("ps", "-l", "--format", "{{.Names}}").stdout == "web\n"
    assert store("ps", "-n", "2", "--format", "{{.Names}}").stdout == "web\nold\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-f", "name=we"], "web\n"),
        (["-f", "status=exited"], "old\n"),
        (["-f", "label=tier=back"], "old\n"),
        (["-f", "label=tier"], "web\nold\n"),
        (["-f", "exited=3"], "old\n"),
        (["-f", "ancestor=busybox", "-f", "status=running"], "web\n"),
        (["-f", "status=exited", "-f", "status=running"], "web\nold\n"),
    ],
)
def test_filters_choose(store: Run, words: list[str], expected: str) -> None:
    assert store("ps", "-a", "--format", "{{.Names}}", *words).stdout == expected


def test_an_unknown_filter_is_an_error(store: Run) -> None:
    done = store("ps", "-f", "colour=red")
    assert (done.returncode != 0, "colour" in done.stderr) == (True, True)


def test_formats(store: Run) -> None:
    assert (
        store("ps", "--format", 'table {{.Names}}\\t{{.Label "tier"}}').stdout
        == "NAMES     tier\nweb       front\n"
    )
    assert json.loads(store("ps", "--format", "json").stdout)["State"] == "running"
    bad = store("ps", "--format", "{{.Nonsense}}")
    assert (bad.returncode, "Nonsense" in bad.stderr) == (1, True)


def test_s_adds_what_was_written(store: Run) -> None:
    store("exec", "web", "sh", "-c", "head -c 100000 /dev/zero > /file", check=True)
    header, line = store("ps", "-s").stdout.splitlines()
    assert header.endswith("SIZE")
    assert re.search(r"10\dkB \(virtual .*MB\)$", line)


def test_an_empty_store_has_a_header_only(fresh: Run) -> None:
    done = fresh("ps")
    assert (done.stdout.split()[:2], done.stdout.count("\n"), done.returncode) == (["CONTAINER", "ID"], 1, 0)


def test_every_spelling_lists_the_same(store: Run) -> None:
    assert {store(*words, "-q").stdout for words in (["ps"], ["container", "ls"], ["container", "list"])} == {
        store("ps", "-q").stdout
    }
