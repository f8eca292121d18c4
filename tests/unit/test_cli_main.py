"""From words to an exit code: which verb is found, and what is said when something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NoReturn

import pytest

from duckweed.cli import tree
from duckweed.cli.main import run
from duckweed.cli.parse import Call, Verb
from duckweed.errors import NoSuchContainer, StartError


def stand_in(monkeypatch: pytest.MonkeyPatch, path: str, error: BaseException, **manners: Any) -> None:
    """Makes every verb one that raises `error`."""

    def action(call: Call) -> NoReturn:
        """Fail"""
        raise error

    verb = Verb(action, path, "", **manners)
    monkeypatch.setattr(tree, "load", lambda _: verb)


def test_an_error_is_one_line_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, "logs", NoSuchContainer("No such container: x", "see `duckweed ps -a`"))
    assert run(["logs"]) == 1
    assert capsys.readouterr().err == "duckweed: No such container: x\nhint: see `duckweed ps -a`\n"


def test_run_says_125_for_what_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "run", NoSuchContainer("x"), failure_code=125)
    assert run(["run"]) == 125


@pytest.mark.parametrize("code", [126, 127])
def test_run_keeps_what_the_command_did(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    stand_in(monkeypatch, "run", StartError("x", exit_code=code), failure_code=125)
    assert run(["run"]) == code


def test_interrupts_are_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch, "ps", KeyboardInterrupt())
    assert run(["ps"]) == 130
    stand_in(monkeypatch, "ps", BrokenPipeError())
    assert run(["ps"]) == 141
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_one_line_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DUCKWEED_TRACEBACK", raising=False)
    stand_in(monkeypatch, "ps", ValueError("two\nlines"))
    assert run(["ps"]) == 125
    told = capsys.readouterr().err
    assert told.startswith("duckweed: internal error: ValueError: two lines; please report this")
    assert told.count("\n") == 1
    monkeypatch.setenv("DUCKWEED_TRACEBACK", "1")
    run(["ps"])
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["imagse"]) == 1
    assert (
        capsys.readouterr().err
        == "duckweed: unknown command: duckweed imagse\nhint: did you mean `duckweed images`?\n"
    )
    assert run(["volume", "foo"]) == 1


def test_bad_usage_shows_the_usage_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ps", "--foo"]) == 125
    assert capsys.readouterr().err == (
        "unknown flag: --foo\n\n"
        "Usage:  duckweed ps [OPTIONS]\n\n"
        "Run 'duckweed ps --help' for more information\n"
    )
    assert run(["--foo"]) == 125
    assert "Usage:  duckweed [OPTIONS] COMMAND [ARG...]" in capsys.readouterr().err


def test_all_places_of_the_tree_exist() -> None:
    for path in [*tree.COMMANDS, *tree.ALIASES]:
        assert isinstance(tree.load(path), Verb), path


def test_a_command_imports_its_own_module_only() -> None:
    script = (
        "import sys; from duckweed.cli.main import run; run(['run']); "
        "print(*sorted(m for m in sys.modules if m.startswith('duckweed.cli.') or m in "
        "('click', 'json', 're', 'typing', 'enum', 'subprocess', 'importlib.util')))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {script}"],
        text=True,
        capture_output=True,
    )
    loaded = done.stdout.split()
    assert loaded == [
        f"duckweed.cli.{name}"
        for name in ("container_flags", "container_run", "failure", "main", "parse", "tree")
    ]
