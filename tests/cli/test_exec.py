"""`duckweed exec`: another command in a running container."""

from __future__ import annotations

from collections.abc import Callable

import pexpect
import pytest

from cli.conftest import Start
from conftest import Run


@pytest.fixture
def box(start: Start) -> str:
    """A container that sleeps."""
    return start("sleep", "100", flags=("-e", "FROM=create", "-w", "/tmp", "--hostname", "box"))


def test_output_input_and_exit_code_are_the_commands(duckweed: Run, box: str) -> None:
    done = duckweed("exec", "-i", box, "sh", "-c", "cat; echo err >&2; exit 9", input="in\n")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "err\n", 9)


def test_it_is_the_same_container(duckweed: Run, box: str) -> None:
    done = duckweed("exec", box, "sh", "-c", "echo $FROM; pwd; hostname; cat /proc/1/comm")
    assert done.stdout == "create\n/tmp\nbox\nsleep\n"


def test_user_directory_and_environment_are_as_asked(duckweed: Run, box: str) -> None:
    done = duckweed(
        "exec", "-u", "0:0", "-w", "/etc", "-e", "A=1", "--env=B=2", box, "sh", "-c", "id -u; pwd; echo $A$B"
    )
    assert done.stdout == "0\n/etc\n12\n"


@pytest.mark.parametrize(
    ("words", "code"), [(["no-such-command"], 127), (["/etc/passwd"], 126), (["sh", "-c", "kill $$"], 143)]
)
def test_exit_codes_say_who_failed(duckweed: Run, box: str, words: list[str], code: int) -> None:
    assert duckweed("exec", box, *words).returncode == code


def test_d_returns_at_once(duckweed: Run, box: str) -> None:
    done = duckweed("exec", "-d", box, "sh", "-c", "sleep 0.2; echo done > /tmp/file")
    assert (done.stdout, done.returncode) == ("", 0)
    assert (
        duckweed("exec", box, "sh", "-c", "until [ -s /tmp/file ]; do sleep 0.05; done; cat /tmp/file").stdout
        == "done\n"
    )


def test_a_shell_on_a_terminal(terminal: Callable[..., pexpect.spawn[str]], box: str) -> None:
    child = terminal("exec", "-it", box, "sh")
    child.sendline("stty size; exit 4")
    child.expect("24 80\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 4


def test_it_must_run(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name, busybox, check=True)
    done = duckweed("exec", name, "true")
    assert (done.returncode, "is not running" in done.stderr) == (1, True)


def test_t_needs_a_terminal(duckweed: Run, box: str) -> None:
    done = duckweed("exec", "-it", box, "true")
    assert (done.returncode, "the input device is not a TTY" in done.stderr) == (1, True)
