"""`.dockerignore`: Go's patterns, `**`, exceptions and parents."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckweed.dockerfile.glob import BadPattern, Glob, clean, has_wildcard
from duckweed.dockerfile.ignore import Matcher, read_patterns


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("a", "a", True),
        ("a*", "abc", True),
        ("a*", "a/b", False),
        ("*/b", "a/b", True),
        ("?", "é", True),
        ("?", "/", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "zx", True),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("[\\]]", "]", True),
        ("*" + "a*" * 30 + "b", "a" * 300, False),
        ("*" + "a*" * 30 + "b", "a" * 300 + "b", True),
    ],
)
def test_glob(pattern: str, path: str, fits: bool) -> None:
    assert Glob(pattern).matches(path) is fits


@pytest.mark.parametrize("pattern", ["[", "[]a]", "[a", "[-]", "[a-]", "a\\", "[^]"])
def test_glob_refuses(pattern: str) -> None:
    with pytest.raises(BadPattern):
        Glob(pattern)


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        (["a"], "a", True),
        (["a"], "a/b/c", True),
        (["a"], "b/a", False),
        (["a/"], "a/b", True),
        (["*.o"], "x.o", True),
        (["*.o"], "d/x.o", False),
        (["*/*.o"], "d/x.o", True),
        (["**/*.o"], "x.o", True),
        (["**/*.o"], "a/b/x.o", True),
        (["**"], "a/b", True),
        (["**/a"], "a", True),
        (["**/a"], "x/y/a", True),
        (["**/a"], "x/ba", False),
        (["**a"], "x/ba", True),
        (["a/**"], "a", False),
        (["a/**"], "a/b", True),
        (["a/**/c"], "a/c", True),
        (["a/**/c"], "a/b/d/c", True),
        (["a/**/c"], "a/xc", False),
        (["**/a/**"], "x/a/y", True),
        (["**/a/**"], "x/a", False),
        (["*", "!a"], "a", False),
        (["*", "!a"], "b", True),
        (["a", "!a/keep"], "a/keep", False),
        (["a", "!a/keep"], "a/other", True),
        (["a", "!a/keep", "a/keep/x"], "a/keep/x", True),
        (["!a", "a"], "a", True),
        (["a?c"], "abc", True),
        (["a.b"], "axb", False),
        (["[ab]c"], "bc", True),
        (["a\\*"], "a*", True),
        ([" a "], "a", True),
        (["a//b/../c"], "a/c", True),
        (["a+b(c)"], "a+b(c)", True),
        (["d/[^x]"], "d/y", True),
    ],
)
def test_matching(patterns: list[str], path: str, ignored: bool) -> None:
    assert Matcher(patterns).matches(path) is ignored


def test_a_file_of_patterns() -> None:
    text = "\ufeff# comment\n\n  /lead/ing  \n!/keep\n #not a comment\n! spaced\na/../b\r\n"
    assert read_patterns(text) == ["lead/ing", "!keep", "#not a comment", "!spaced", "b"]


def test_a_lone_exclamation_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="illegal exclusion"):
        Matcher(read_patterns("!"))


def test_a_directory_without_hope_is_known() -> None:
    matcher = Matcher(["*", "!src/keep", "!**/x"])
    assert Matcher(["*", "!src/keep"]).may_have_exceptions_below("src")
    assert not Matcher(["*", "!src/keep"]).may_have_exceptions_below("other")
    assert matcher.may_have_exceptions_below("other")


NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.text("ab.*?/![]-\\", min_size=1, max_size=8), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, PATHS)
def test_a_walk_says_what_a_look_says(patterns: list[str], path: str) -> None:
    try:
        matcher = Matcher(patterns)
    except ValueError:
        return
    above: tuple[bool, ...] | None = None
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        here = "/".join(parts[:depth])
        ignored, above = matcher.below(here, above)
        assert ignored is matcher.matches(here)


@settings(max_examples=200, deadline=None)
@given(st.text("ab*?[]^-\\/", max_size=10), st.text("ab/", max_size=10))
def test_any_pattern_matches_or_is_refused(pattern: str, path: str) -> None:
    try:
        glob = Glob(pattern)
    except BadPattern:
        return
    assert glob.matches(path) is glob._walk(path)


def test_cleaning_is_gos() -> None:
    cases = {"": ".", "a//b/./c/..": "a/b", "//a": "/a", "/../a": "/a", "../a": "../a", "a/..": "."}
    assert {path: clean(path) for path in cases} == cases
    assert has_wildcard("a[b")
    assert not has_wildcard("a\\*b")
