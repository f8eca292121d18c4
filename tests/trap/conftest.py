"""Runners in places without user namespaces, and one that chooses the trap isolation where they can be had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import Run, runner
from emulation.conftest import Shell, _image, shell_of

HERE = os.path.dirname(os.path.abspath(__file__))
PLACES = ("pod", "no-userns", "chosen")


def runner_in(place: str, root: Path, extra: Mapping[str, str] | None = None) -> Run:
    """As `conftest.runner`, in a place of `restricted.py`; `chosen`: the machine as it is, with --isolation trap."""
    before = () if place == "chosen" else (sys.executable, os.path.join(HERE, "restricted.py"), place)
    plain = runner(root, extra, before)

    def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        if place == "chosen" and args[0] in ("run", "create"):
            args = (args[0], "--isolation", "trap", *args[1:])
        return plain(*args, **{"timeout": 120, **options})

    run.place = place  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="session")
def trap_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of these tests' own."""
    return tmp_path_factory.mktemp("trap-store")


@pytest.fixture(scope="session", params=PLACES)
def trap(
    request: pytest.FixtureRequest, trap_root: Path, archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A runner in each place, with the images `busybox` and `users`."""
    run = runner_in(request.param, trap_root)
    run("load", "-i", str(archives / "busybox.tar"), check=True)
    run("load", "-i", str(_image(tmp_path_factory.mktemp("users"))), check=True)
    return run


@pytest.fixture(scope="session")
def pod(trap_root: Path, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A runner in the pod alone."""
    run = runner_in("pod", trap_root)
    run("load", "-i", str(archives / "busybox.tar"), check=True)
    run("load", "-i", str(_image(tmp_path_factory.mktemp("users"))), check=True)
    return run


@pytest.fixture
def shell(pod: Run) -> Shell:
    """`shell_of` a runner in the pod."""
    return shell_of(pod)
