"""What is said to a command line that makes no sense, and how output behaves at the edges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run, command


@pytest.mark.parametrize(
    ("words", "code", "first_line"),
    [
        (["run", "--foo", "busybox"], 125, "unknown flag: --foo"),
        (["run"], 1, "duckweed: 'duckweed run' requires at least 1 argument"),
        (["ps", "extra"], 1, "duckweed: 'duckweed ps' accepts no arguments"),
        (
            ["stop", "-t", "soon", "x"],
            125,
            'invalid argument "soon" for "-t, --timeout" flag: want a whole number',
        ),
        (["frobnicate"], 1, "duckweed: unknown command: duckweed frobnicate"),
    ],
)
def test_bad_usage_is_answered_as_docker_does(
    duckweed: Run, words: list[str], code: int, first_line: str
) -> None:
    done = duckweed(*words)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (code, "", first_line)


def test_without_words_it_shows_its_help(duckweed: Run) -> None:
    done = duckweed()
    assert (done.returncode, done.stdout) == (0, duckweed("--help").stdout)
    assert "Management Commands:" in done.stdout


def test_it_is_a_module_too(root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "duckweed", "--version"], text=True, capture_output=True)
    assert done.stdout.startswith("duckweed version ")


def test_a_reader_that_goes_away_is_no_error(root: Path) -> None:
    shell = f"{' '.join(command())} --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], text=True, capture_output=True)
    assert done.stderr == ""


def test_output_is_utf_8_in_any_locale(fresh: Run) -> None:
    done = fresh("volume", "ls", env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_store_that_cannot_be_used_is_one_line(duckweed: Run) -> None:
    done = duckweed("volume", "create", "x", env={"DUCKWEED_ROOT": "/proc/nowhere"})
    assert done.returncode != 0
    assert done.stderr.startswith("duckweed: ")
    assert "internal error" not in done.stderr
