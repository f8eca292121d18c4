"""Variables in Dockerfiles: every form, quoting, and text that never ends badly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckweed.dockerfile.variables import BadSubstitution, ShellPattern, expand

SET = {"path": "foo/bar/baz.tar.gz", "empty": "", "one": "1", "star": "*"}


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("$one", "1"),
        ("${one}", "1"),
        ("a${one}b", "a1b"),
        ("$onex", ""),
        ("${none}", ""),
        ("$", "$"),
        ("a$", "a$"),
        ("$/x", "$/x"),
        ("$1a", "a"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${none:-w}", "w"),
        ("${none-w}", "w"),
        ("${one:-w}", "1"),
        ("${one:+w}", "w"),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${none+w}", ""),
        ("${one:?no}", "1"),
        ("${empty?no}", ""),
        ("${path#*/}", "bar/baz.tar.gz"),
        ("${path##*/}", "baz.tar.gz"),
        ("${path%.*}", "foo/bar/baz.tar"),
        ("${path%%.*}", "foo/bar/baz"),
        ("${path#nothing}", "foo/bar/baz.tar.gz"),
        ("${path#fo?}", "/bar/baz.tar.gz"),
        ("${star#\\*}", ""),
        ("${path/ba?/X}", "foo/X/baz.tar.gz"),
        ("${path//ba?/X}", "foo/X/X.tar.gz"),
        ("${path//\\//-}", "foo-bar-baz.tar.gz"),
        ("${path/o*r/}", "f.gz"),
        ("${path/no/X}", "foo/bar/baz.tar.gz"),
        ("${none:-${empty:-deep}}", "deep"),
        ("${none:-a b}", "a b"),
        ("${none:-'a}'}", "a}"),
        ("'$one'", "$one"),
        ('"$one"', "1"),
        ('"a\\"b"', 'a"b'),
        ('"a\\nb"', "a\\nb"),
        ("\\$one", "$one"),
        ("\\${one}", "${one}"),
        ("a\\ b", "a b"),
        ("'it''s'", "its"),
        ("a < b", "a < b"),
        ("<<EOF", "<<EOF"),
        ("trailing\\", "trailing"),
    ],
)
def test_a_word_becomes(word: str, text: str) -> None:
    assert expand(word, SET).text == text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${none:?it is needed}", "none: it is needed"),
        ("${none?}", "none: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${", "missing '}'"),
        ("${one", "missing '}'"),
        ("${one:", "missing '}'"),
        ("${one:-x", "missing '}'"),
        ("${path/x", "missing '/'"),
        ("${path/x/y", "missing '}'"),
        ("${}", "bad substitution"),
        ("${{one}}", "bad substitution"),
        ("${one^^}", "unsupported modifier (^)"),
        ("${one:#x}", "unsupported modifier (:#)"),
        ("'open", "single-quote"),
        ('"open', "double-quote"),
        ("${a:-" * 100, "nested too deeply"),
    ],
)
def test_a_word_is_refused(word: str, message: str) -> None:
    with pytest.raises(BadSubstitution) as error:
        expand(word, SET)
    assert message in str(error.value)


def test_words_split_at_blanks_outside_quotes() -> None:
    assert expand("80 '9 0' \"$one 2\" ${none:-a b}", SET).words == ["80", "9 0", "1 2", "a", "b"]


def test_used_and_missing_names_are_told() -> None:
    done = expand("$one ${none:-x} '$hidden' ${path}", SET)
    assert (done.found, done.missing) == ({"one", "path"}, {"none"})


def test_the_escape_character_can_be_a_backtick() -> None:
    assert expand("`$one C:\\x", SET, "`").text == "$one C:\\x"


def test_unset_variables_can_be_kept_as_written() -> None:
    assert expand("$none ${none} ${none:-x} $one", SET, keep_unset=True).text == "$none ${none} ${none:-x} 1"


def test_a_heredoc_sees_no_quotes() -> None:
    assert expand('it\'s "$one" \\$one', SET, process_quotes=False).text == 'it\'s "1" $one'


def test_a_pattern_of_many_stars_takes_no_ages() -> None:
    assert ShellPattern("*a" * 40 + "b").match("a" * 2000, 0, longest=True) is None
    assert expand("${v##" + "*a" * 40 + "}", {"v": "a" * 2000}).text == ""


TEXT = st.text(st.sampled_from("ab$ {}:-+?#%/'\"\\<`*1\n\t"), max_size=40)


@settings(max_examples=400, deadline=None)
@given(TEXT)
def test_any_text_is_expanded_or_refused(text: str) -> None:
    for flags in ({}, {"keep_quotes": True, "keep_unset": True}, {"process_quotes": False}):
        try:
            expand(text, {"a": "b", "b": "*"}, **flags)  # type: ignore[arg-type]
        except BadSubstitution:
            pass


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?", max_size=6), st.text("ab", max_size=8))
def test_patterns_match_as_an_expression_would(pattern: str, text: str) -> None:
    import re

    greedy = "".join({"*": ".*", "?": "."}.get(c, c) for c in re.sub(r"\*+", "*", pattern))
    match = re.match(greedy, text)
    assert ShellPattern(pattern).match(text, 0, longest=True) == (match.end() if match else None)
    lazy = re.match(greedy.replace(".*", ".*?"), text)
    assert ShellPattern(pattern).match(text, 0, longest=False) == (lazy.end() if lazy else None)
