"""The sealed copy of the runtime that `_core` keeps: made once, found again after fork, never mistaken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from duckweed import _core

Report = Callable[[], "tuple[str, str]"]


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Starts what passes for a runtime, a shell that says which file it executes; (path, inode)."""
    shutil.copy(os.path.realpath("/bin/sh"), tmp_path / "duckweed-runtime")
    (tmp_path / "supervise").write_text("readlink /proc/$$/exe\nstat -Lc %i /proc/$$/exe\n")
    monkeypatch.chdir(tmp_path)

    def start() -> tuple[str, str]:
        read, write = os.pipe()
        pid = _core.spawn([str(tmp_path / "duckweed-runtime"), "supervise"], [(write, 1)])
        os.close(write)
        with open(read) as pipe:
            path, inode = pipe.read().split("\n")[:2]
        os.waitpid(pid, 0)
        return path, inode

    return start


def kept() -> list[int]:
    """Our descriptors of sealed copies."""
    links = ((int(n), os.path.join("/proc/self/fd", n)) for n in os.listdir("/proc/self/fd"))
    return [n for n, link in links if os.path.islink(link) and "memfd:duckweed-runtime" in os.readlink(link)]


def test_supervisors_share_one_copy_and_a_forked_process_finds_it(supervisor: Report) -> None:
    path, inode = supervisor()
    assert path == "/memfd:duckweed-runtime (deleted)"
    assert supervisor() == (path, inode)
    assert len(kept()) == 1
    child = os.fork()
    if child == 0:
        os._exit(0 if supervisor() == (path, inode) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_number_that_was_closed_or_reused_is_neither_executed_nor_closed(supervisor: Report) -> None:
    _, inode = supervisor()
    (number,) = kept()
    os.close(number)
    assert supervisor()[1] != inode
    (number,) = kept()
    with open("/dev/null") as null:
        os.dup2(null.fileno(), number)
    assert supervisor()[0].startswith("/memfd:")
    assert os.readlink(f"/proc/self/fd/{number}") == "/dev/null"
    os.close(number)


def test_a_replaced_runtime_is_copied_anew_and_the_old_copy_let_go(supervisor: Report) -> None:
    _, inode = supervisor()
    os.utime("duckweed-runtime", ns=(1, 1))
    assert supervisor()[1] != inode
    assert len(kept()) == 1


def test_other_programs_and_verbs_are_executed_as_they_are(supervisor: Report, tmp_path: Path) -> None:
    supervisor()
    (tmp_path / "attach").write_text((tmp_path / "supervise").read_text())
    read, write = os.pipe()
    pid = _core.spawn([str(tmp_path / "duckweed-runtime"), "attach"], [(write, 1)])
    os.close(write)
    with open(read) as pipe:
        assert pipe.readline() == f"{tmp_path}/duckweed-runtime\n"
    os.waitpid(pid, 0)
