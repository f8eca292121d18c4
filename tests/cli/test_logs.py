"""`duckweed logs`: what a container wrote, now or while it writes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cli.conftest import Start
from conftest import Run, command


@pytest.fixture
def talker(duckweed: Run, busybox: str, name: str) -> str:
    """A container that wrote four lines, the last without its end, and ended."""
    script = "echo one; echo two; echo four; printf five"
    duckweed("run", "--name", name, busybox, "sh", "-c", script)
    return name


def test_each_stream_goes_to_its_own(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("run", "--name", name, busybox, "sh", "-c", "echo out; echo err >&2")
    done = duckweed("logs", name)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("words", [["--tail", "2"], ["-n", "2"], ["--tail=2"]])
def test_tail_shows_the_end(duckweed: Run, talker: str, words: list[str]) -> None:
    assert duckweed("logs", *words, talker).stdout == "four\nfive"


def test_t_begins_lines_with_their_time(duckweed: Run, talker: str) -> None:
    for line in duckweed("logs", "-t", talker).stdout.splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (one|two|four|five)", line)


def test_since_and_until_are_times_or_spans(duckweed: Run, talker: str) -> None:
    assert duckweed("logs", "--since", "1h", talker).stdout == "one\ntwo\nfour\nfive"
    assert duckweed("logs", "--until", "1h", talker).stdout == ""
    assert duckweed("logs", "--since", "2099-01-01T00:00:00Z", talker).stdout == ""


def test_f_follows_to_the_end(root: Path, start: Start, duckweed: Run) -> None:
    name = start("sh", "-c", "echo first; while [ ! -e /go ]; do sleep 0.05; done; echo last; exit 0")
    env = {**os.environ, "DUCKWEED_ROOT": str(root)}
    follower = subprocess.Popen([*command(), "logs", "-f", name], stdout=subprocess.PIPE, text=True, env=env)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "first\n"
    duckweed("exec", name, "touch", "/go", check=True)
    assert follower.communicate(timeout=20)[0] == "last\n"
    assert follower.returncode == 0


def test_a_container_without_output_has_an_empty_log(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name, busybox, check=True)
    done = duckweed("logs", name)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_missing_container_is_dockers_words(duckweed: Run) -> None:
    done = duckweed("logs", "nobody")
    assert (done.returncode, "No such container: nobody" in done.stderr) == (1, True)
