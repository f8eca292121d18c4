"""A build on a terminal: the live picture, and a shell in the step that failed."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from build.conftest import Build
from conftest import command

DEADLINE_S = 30


def test_the_live_picture_ends_with_every_step(build: Build) -> None:
    built = build("FROM busybox\nRUN printf 'a\\033[2Jb\\n'; false || true\n", "--progress=tty", "--no-cache")
    last = built.stderr.rpartition("[+] Building ")[2]
    assert " FINISHED" in last
    assert "=> [2/2] RUN" in last
    assert "\x1b[2J" not in built.stderr, "a step's output does not move the cursor"


@pytest.mark.parametrize("kind", ["quiet", "none"])
def test_quiet_progress_says_nothing(kind: str, build: Build) -> None:
    assert build("FROM busybox\n", f"--progress={kind}").stderr == ""


def test_unknown_progress_is_refused(build: Build) -> None:
    failed = build("FROM busybox\n", "--progress=loud", check=False)
    assert "unknown progress `loud`" in failed.stderr


def test_a_shell_in_the_step_that_failed(context: Path, build: Build, root: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nENV X=from-env\nRUN echo kept > /state; exit 7\n")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*command(), "build", "--debug-shell", "--no-cache", str(context)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "DUCKWEED_ROOT": str(root), "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    asked = False
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            seen += os.read(ours, 4096)
        except OSError:
            break  # the terminal's last user has gone
        if not asked and b"# " in seen.rpartition(b"leave it to end")[2]:
            os.write(ours, b"echo $(cat /state) $X\nexit\n")
            asked = True
    os.close(ours)
    assert child.wait(DEADLINE_S) == 1
    assert b"the step failed with exit code 7" in seen
    assert b"kept from-env" in seen
