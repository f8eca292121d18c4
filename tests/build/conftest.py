"""Builds through the installed command, each test with contexts of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run

Build = Callable[..., "Built"]


class Built:
    """What one `duckweed build` said: `cached` are the steps that were, `done` those that ran."""

    def __init__(self, returncode: int, stdout: str, stderr: str) -> None:
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        names = dict(re.findall(r"^#(\d+) (\[.*)$", stderr, re.MULTILINE))
        state = re.findall(r"^#(\d+) (CACHED|DONE)", stderr, re.MULTILINE)
        steps = [(names.get(number, ""), word) for number, word in state]
        counted = [
            (name, word) for name, word in steps if re.search(r"\] (RUN|COPY|ADD|WORKDIR|ONBUILD) ", name)
        ]
        self.cached = [name.partition("] ")[2] for name, word in counted if word == "CACHED"]
        self.done = [name.partition("] ")[2] for name, word in counted if word == "DONE"]

    @property
    def image(self) -> str:
        """The image's id."""
        return re.findall(r"writing image (sha256:[0-9a-f]{64})", self.stderr)[-1]


@pytest.fixture
def build(duckweed: Run, busybox: str, tmp_path: Path) -> Build:
    """`build(dockerfile, *flags)` in `tmp_path/context`; `check=False` lets it fail."""
    context = tmp_path / "context"
    context.mkdir()

    def run(dockerfile: str, *flags: str, check: bool = True, env: dict[str, str] | None = None) -> Built:
        (context / "Dockerfile").write_text(dockerfile)
        done = duckweed("build", "--progress=plain", *flags, str(context), env=env or {}, timeout=120)
        assert not check or done.returncode == 0, done.stderr
        return Built(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The context of `build`."""
    return tmp_path / "context"
