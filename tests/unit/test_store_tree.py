"""Removing trees that nobody vouches for."""

from __future__ import annotations

import os
from pathlib import Path

from duckweed.store.tree import remove_tree


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "d/up").symlink_to("../..")
    (tree / "dead").symlink_to("nowhere")
    assert remove_tree(str(tree))
    assert not tree.exists() and (outside / "file").exists()


def test_tree_that_is_itself_a_link_costs_only_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "real").is_dir() and not (tmp_path / "link").is_symlink()


def test_directories_without_permissions_are_emptied(tmp_path: Path) -> None:
    inner = tmp_path / "tree/a/b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for path in (inner, inner.parent, inner.parent.parent):
        path.chmod(0)
    assert remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_very_deep_tree_needs_neither_recursion_nor_descriptors(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert remove_tree(str(tmp_path / "d"))
    assert os.listdir(tmp_path) == []


def test_any_bytes_may_be_a_name(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path / "tree")
    os.makedirs(top + b"/\xff\xfe")
    for name in (b"\xff\xfe/\x01", b"-rf", b"new\nline"):
        os.close(os.open(top + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert remove_tree(str(tmp_path / "tree"))


def test_nothing_there_counts_as_removed(tmp_path: Path) -> None:
    assert remove_tree(str(tmp_path / "missing"))
    assert remove_tree(str(tmp_path / "missing/below"))
