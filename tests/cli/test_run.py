"""`duckweed run`: a command in a fresh container, its output, its input and its exit code."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from conftest import Run


def test_the_output_and_the_exit_code_are_the_commands(duckweed: Run, busybox: str) -> None:
    done = duckweed("run", "--rm", busybox, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_without_a_command_the_images_runs(duckweed: Run, busybox: str) -> None:
    done = duckweed("run", "--rm", "-i", busybox, input="echo from stdin\n")
    assert (done.stdout, done.returncode) == ("from stdin\n", 0)


def test_stdin_reaches_the_command_only_with_i(duckweed: Run, busybox: str) -> None:
    assert duckweed("run", "--rm", "-i", busybox, "cat", input="data").stdout == "data"
    assert duckweed("run", "--rm", busybox, "cat", input="data").stdout == ""


def test_flags_after_the_image_belong_to_the_command(duckweed: Run, busybox: str) -> None:
    assert duckweed("run", "--rm", busybox, "echo", "-e", "--rm", "-x").stdout == "--rm -x\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["no-such-command"], 127, "no-such-command"),
        (["/etc/passwd"], 126, "/etc/passwd"),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, ""),
    ],
)
def test_exit_codes_say_who_failed(
    duckweed: Run, busybox: str, words: list[str], code: int, told: str
) -> None:
    done = duckweed("run", "--rm", busybox, *words)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_image_is_125_with_dockers_words(duckweed: Run) -> None:
    done = duckweed("run", "--rm", "--pull", "never", "no-such-image:1", "true")
    assert done.returncode == 125
    assert "Unable to find image 'no-such-image:1' locally" in done.stderr


def test_d_prints_the_id_and_returns(duckweed: Run, busybox: str, name: str) -> None:
    done = duckweed("run", "-d", "--name", name, busybox, "sleep", "100")
    assert done.returncode == 0
    assert (
        duckweed("inspect", "-f", "{{.Id}} {{.State.Running}}", name).stdout
        == f"{done.stdout.strip()} true\n"
    )


def test_rm_leaves_nothing(fresh: Run, archives: Path) -> None:
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    fresh("run", "--rm", "-v", "/anonymous", "busybox", "true", check=True)
    assert fresh("ps", "-aq").stdout == ""
    assert fresh("volume", "ls", "-q").stdout == ""


def test_a_name_is_taken_until_it_is_removed(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name, busybox, check=True)
    done = duckweed("run", "--name", name, busybox, "true")
    assert done.returncode == 125
    assert f'Conflict. The container name "/{name}" is already in use by container' in done.stderr


def test_environment_comes_from_flags_files_and_our_own(duckweed: Run, busybox: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nFILED=1\nPASSED\n")
    done = duckweed(
        "run",
        "--rm",
        "--env-file",
        str(file),
        "-e",
        "GIVEN=a b",
        "-e",
        "MINE",
        busybox,
        "env",
        env={"MINE": "m", "PASSED": "p"},
    )
    assert {"FILED=1", "PASSED=p", "GIVEN=a b", "MINE=m"} <= set(done.stdout.splitlines())


def test_user_directory_and_hostname_are_as_asked(duckweed: Run, busybox: str) -> None:
    done = duckweed(
        "run", "--rm", "-w", "/made/here", "-h", "box", busybox, "sh", "-c", "pwd; hostname; id -u"
    )
    assert done.stdout == "/made/here\nbox\n0\n"


def test_entrypoint_replaces_the_images(duckweed: Run, busybox: str) -> None:
    assert duckweed("run", "--rm", "--entrypoint", "echo", busybox, "a", "b").stdout == "a b\n"


def test_cidfile_gets_the_id_once(duckweed: Run, busybox: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    duckweed("create", "--cidfile", str(file), "--name", name, busybox, check=True)
    assert file.read_text() == duckweed("inspect", "-f", "{{.Id}}", name).stdout.strip()
    again = duckweed("run", "--cidfile", str(file), busybox, "true")
    assert again.returncode == 125
    assert "container ID file found" in again.stderr


@pytest.mark.parametrize("flag", ["--memory=1g", "--gpus=all", "--pid=host", "--restart=always"])
def test_what_cannot_be_honoured_is_refused_with_a_way_out(duckweed: Run, busybox: str, flag: str) -> None:
    done = duckweed("run", "--rm", flag, busybox, "true")
    assert done.returncode == 125
    assert done.stderr.startswith("duckweed: ")
    assert "\nhint: " in done.stderr


def test_a_flag_without_effect_is_said_to_have_none(duckweed: Run, busybox: str) -> None:
    done = duckweed("run", "--rm", "--network", "host", "-p", "80:80", busybox, "echo", "ran")
    assert (done.stdout, done.returncode) == ("ran\n", 0)
    assert done.stderr.lower() == "warning: published ports are discarded when using host network mode\n"


def test_t_needs_a_terminal_when_stdin_is_attached(duckweed: Run, busybox: str) -> None:
    done = duckweed("run", "--rm", "-it", busybox, "true")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "duckweed: the input device is not a TTY")


def test_attach_and_detach_exclude_each_other(duckweed: Run, busybox: str) -> None:
    done = duckweed("run", "-d", "-a", "stdout", busybox, "true")
    assert (done.returncode, "conflicting options" in done.stderr) == (1, True)


def test_a_attaches_only_what_it_names(duckweed: Run, busybox: str) -> None:
    done = duckweed("run", "--rm", "-a", "stderr", busybox, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("", "err\n")


def test_a_shell_on_a_terminal(terminal: Callable[..., pexpect.spawn[str]], busybox: str) -> None:
    child = terminal("run", "--rm", "-it", busybox, "sh")
    child.sendline("tty; stty size; exit 3")
    child.expect("/dev/pts/0\r\n24 80\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


def test_the_terminal_follows_its_window(terminal: Callable[..., pexpect.spawn[str]], busybox: str) -> None:
    child = terminal(
        "run",
        "--rm",
        "-it",
        busybox,
        "sh",
        "-c",
        "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done",
    )
    child.expect("ready")
    child.setwinsize(33, 99)
    child.expect("33 99")


def test_detach_keys_leave_the_container_running(
    terminal: Callable[..., pexpect.spawn[str]], duckweed: Run, busybox: str, name: str
) -> None:
    child = terminal("run", "-it", "--name", name, "--detach-keys", "ctrl-x,d", busybox, "sh")
    child.expect("# ")
    child.send("\x18d")
    child.expect(pexpect.EOF)
    assert duckweed("inspect", "-f", "{{.State.Status}}", name).stdout == "running\n"


def test_an_interrupt_reaches_the_command(terminal: Callable[..., pexpect.spawn[str]], busybox: str) -> None:
    child = terminal(
        "run", "--rm", busybox, "sh", "-c", "trap 'exit 42' INT; echo ready; while :; do sleep 0.05; done"
    )
    child.expect("ready")
    child.kill(signal.SIGINT)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 42
