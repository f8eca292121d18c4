"""`--help`: Docker's layout, read by people and by scripts that look for flags in it."""

from __future__ import annotations

import pytest

from duckweed.cli import help, tree
from duckweed.cli.main import run


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_the_help_of_a_verb_has_usage_names_and_flags() -> None:
    assert help.text("stop") == (
        "Usage:  duckweed stop [OPTIONS] CONTAINER [CONTAINER...]\n"
        "\n"
        "Stop running containers\n"
        "\n"
        "The stop signal first (SIGTERM unless the image or `--stop-signal` says\n"
        "otherwise), SIGKILL after the timeout (10 seconds unless told otherwise; -1\n"
        "waits for ever).\n"
        "\n"
        "Aliases:\n"
        "  duckweed container stop, duckweed stop\n"
        "\n"
        "Options:\n"
        "  -s, --signal string   Signal to send to the container\n"
        "  -t, --timeout int     Seconds to wait before killing the container\n"
    )


@pytest.mark.parametrize("path", ["", *tree.GROUPS, *tree.COMMANDS, *tree.ALIASES])
def test_every_command_has_help_that_fits_the_terminal(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage:  duckweed {path}".rstrip())
    options = text[text.find("Options:") :] if "Options:" in text else ""
    assert all(len(line) <= 80 for line in options.splitlines())


def test_hidden_flags_are_not_shown() -> None:
    text = help.text("run")
    assert "--memory" not in text
    assert "--net " not in text
    assert "--network list" in text


def test_every_command_is_listed_once() -> None:
    root = help.text("")
    for name in [*tree.names_under(""), *tree.GROUPS]:
        assert root.count(f"\n  {name} ") == 1, name


def test_help_is_a_verb_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "volume", "ls"]) == 0
    assert capsys.readouterr().out == help.text("volume ls")
