"""What the tour of the command line needs: containers with names of their own, removed afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from conftest import Run, command

Start = Callable[..., str]


@pytest.fixture
def name(duckweed: Run) -> Iterator[str]:
    """A container name that nobody else uses; whatever has it at the end is removed."""
    chosen = f"t{os.urandom(6).hex()}"
    yield chosen
    duckweed("rm", "-f", "-v", chosen)


@pytest.fixture
def start(duckweed: Run, busybox: str) -> Iterator[Start]:
    """`start("sleep", "100")` runs that detached in busybox and returns its name; `flags` go before it."""
    names: list[str] = []

    def run(*words: str, flags: tuple[str, ...] = ()) -> str:
        names.append(f"t{os.urandom(6).hex()}")
        duckweed("run", "-d", "--stop-timeout", "1", "--name", names[-1], *flags, busybox, *words, check=True)
        return names[-1]

    yield run
    if names:
        duckweed("rm", "-f", "-v", *names)


@pytest.fixture
def terminal(root: Path) -> Iterator[Callable[..., pexpect.spawn[str]]]:
    """`terminal("run", "-it", ...)` runs duckweed on a pseudo-terminal of 80x24."""
    children: list[pexpect.spawn[str]] = []

    def spawn(*words: str) -> pexpect.spawn[str]:
        program, *first = command()
        env = {**os.environ, "DUCKWEED_ROOT": str(root), "TERM": "xterm"}
        child = pexpect.spawn(
            program, [*first, *words], env=env, encoding="utf-8", timeout=20, dimensions=(24, 80)
        )
        children.append(child)
        return child

    yield spawn
    for child in children:
        child.close(force=True)
