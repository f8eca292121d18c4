"""Shell completion: what is offered, from the tables and from the store's directories."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from duckweed.cli import completion
from duckweed.cli.main import run


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("names/web", "names/database", "volumes/data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "images").mkdir()
    for name in (
        "docker.io%2Flibrary%2Fbusybox%3Alatest.json",
        "localhost%3A5000%2Fteam%2Fapp%3Av2.json",
        "@sha256:00.json",
    ):
        (tmp_path / "images" / name).touch()
    monkeypatch.setenv("DUCKWEED_ROOT", str(tmp_path))
    return tmp_path


def offered(*words: str) -> list[str]:
    complete = ShellComplete(completion.root_group(), {}, "duckweed", "_DUCKWEED_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("vol",), ["volume"]),
        (("container", "re"), ["rename", "restart", "rm"][:2]),
        (("volume", "ls", "--f"), ["--filter", "--format"]),
        (("rm", "-f", ""), ["database", "web"]),
        (("stop", "web", "d"), ["database"]),
        (("exec", "-it", "w"), ["web"]),
        (("volume", "rm", ""), ["data"]),
        (("run", "-d", "b"), ["busybox", "busybox:latest"]),
        (("run", "--name", "x", "h"), ["host"]),
        (("rmi", "l"), ["localhost:5000/team/app:v2"]),
        (("kill", "--signal", "US"), ["USR1", "USR2"]),
        (("inspect", "da"), ["data", "database"]),
    ],
)
def test_words_are_completed(words: tuple[str, ...], expected: list[str]) -> None:
    assert offered(*words) == expected


def test_a_command_inside_the_container_is_not_ours_to_complete() -> None:
    assert offered("run", "busybox", "ls", "") == []


def test_a_store_that_does_not_exist_offers_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUCKWEED_ROOT", str(tmp_path / "none"))
    assert offered("rm", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert f"_DUCKWEED_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "csh"]) == 1
    assert "`csh`" in capsys.readouterr().err
