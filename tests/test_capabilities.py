"""The names of capabilities stand twice, in the engine and in the runtime: both must mean the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import duckweed
from duckweed.containers.capabilities import ALL, DEFAULT

WORDS = ["sh", "-c", "grep -E 'Cap(Eff|Prm|Bnd)' /proc/self/status"]


@pytest.fixture(scope="module")
def engine(root: Path, busybox: str) -> Iterator[duckweed.Engine]:
    with duckweed.Engine(root) as engine:
        yield engine


def masks(engine: duckweed.Engine, **options: object) -> set[int]:
    """What the effective, permitted and bounding sets of such a container are."""
    said = engine.run("busybox", WORDS, check=True, **options).stdout.decode()
    return {int(line.split()[1], 16) for line in said.splitlines()}


def known_here() -> int:
    """How many capabilities this kernel has."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1


def test_each_name_is_its_number_on_both_sides(engine: duckweed.Engine) -> None:
    for number, name in enumerate(ALL[: known_here()]):
        assert masks(engine, cap_drop=["ALL"], cap_add=[name]) == {1 << number}, name


def test_the_default_set_is_dockers_on_both_sides(engine: duckweed.Engine) -> None:
    assert masks(engine) == {sum(1 << ALL.index(name) for name in DEFAULT)} == {0xA80425FB}


def test_privileged_means_all_that_this_kernel_knows(engine: duckweed.Engine) -> None:
    assert masks(engine, privileged=True) == {(1 << min(known_here(), len(ALL))) - 1}
