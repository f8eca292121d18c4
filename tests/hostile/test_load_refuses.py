"""`duckweed load` on a hundred bad archives: one clear line, nothing written outside, nothing left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import duckweed
from conftest import Run, runner
from duckweed.errors import DuckweedError
from hostile import archives


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("hostile") / "store"
    duckweed.Engine(root=str(root)).layout.ensure()  # what an empty store has is not a leftover
    yield root


def contents(top: Path) -> set[str]:
    """Every path below `top` but what the store keeps anyway."""
    found = set()
    for path, directories, files in os.walk(top):
        for name in (*directories, *files):
            found.add(os.path.relpath(os.path.join(path, name), top))
    return {name for name in found if "/" in name and not name.startswith("store/cache/")}


def test_there_are_a_hundred() -> None:
    assert len(archives.ALL) >= 100
    assert len({title for title, _ in archives.ALL}) == len(archives.ALL)


@pytest.mark.parametrize(("title", "build"), archives.ALL, ids=[title for title, _ in archives.ALL])
def test_bad_archive_is_refused_in_one_line_and_leaves_nothing(
    title: str, build: archives.Builder, tmp_path: Path, store: Path
) -> None:
    archive = tmp_path / "bad.tar"
    build(archive)
    outside = contents(store.parent)
    with pytest.raises(DuckweedError) as caught:
        duckweed.Engine(root=str(store)).images.load(str(archive))
    assert caught.value.message and "\n" not in caught.value.message, caught.value.message
    assert contents(store.parent) <= outside | {"store/version"}, title
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "title", ["file named ../x", "manifest: not JSON", "OCI layer altered", "an empty file"]
)
def test_the_command_says_the_same_line_and_exits_1(title: str, tmp_path: Path) -> None:
    archive = tmp_path / "bad.tar"
    dict(archives.ALL)[title](archive)
    run: Run = runner(tmp_path / "store")
    for done in (
        run("load", "-i", str(archive)),
        run("load", input=None, env={"DUCKWEED_ROOT": str(tmp_path / "other")}),
    ):
        assert done.returncode == 1 and done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
        assert len(lines) == 1 and lines[0].startswith("duckweed: "), done.stderr


def test_a_good_archive_loads_after_all_that(store: Path, tmp_path: Path) -> None:
    archive = tmp_path / "good.tar"
    archives.one(archives.GOOD)(archive)
    engine = duckweed.Engine(root=str(store))
    engine.images.load(str(archive))
    assert engine.images.get("bad").tags == ["bad:latest"]
