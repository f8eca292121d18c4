"""Words of an instruction: the flags in front, `NAME=value` pairs, blank-separated lists and JSON lists."""

from __future__ import annotations

import json
import re

_BLANKS = re.compile(r"[\t\v\f\r ]+")


class NotStrings(ValueError):
    """A JSON list that holds something other than strings."""


def split_keyword(text: str) -> tuple[str, str, int]:
    """The instruction's word, the rest, and where the rest begins in `text`."""
    start = len(text) - len(text.lstrip())
    match = _BLANKS.search(text, start)
    if match is None or match.start() == start:
        return text.strip(), "", len(text)
    return text[start : match.start()], text[match.end() :].rstrip(), match.end()


def split_flags(text: str, escape: str) -> tuple[list[tuple[str, int]], int]:
    """The `--flags` in front, unquoted, each with its offset; and the offset of what follows them.

    A word `--` ends them.
    """
    flags: list[tuple[str, int]] = []
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if not text.startswith("--", position):
            return flags, position
        start = position
        word, position = _flag_word(text, position, escape)
        if word == "--":
            return flags, position
        flags.append((word, start))


def _flag_word(text: str, position: int, escape: str) -> tuple[str, int]:
    word = []
    quote = ""
    while position < len(text):
        character = text[position]
        if not quote and character.isspace():
            break
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        else:
            if character == escape:
                position += 1
                if position == len(text):
                    break  # nothing is escaped at the end
            word.append(text[position])
        position += 1
    return "".join(word), position


def split_words(text: str, escape: str) -> list[str]:
    """The words of ENV, LABEL and ARG: blanks inside quotes do not split, quotes and escapes stay."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if not quote and character.isspace():
            if word:
                words.append("".join(word))
                word = []
            position += 1
            continue
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif character == escape and quote != "'":
            if position + 1 == len(text):
                break  # nothing is escaped at the end
            word.append(character)
            position += 1
        word.append(text[position])
        position += 1
    if word:
        words.append("".join(word))
    return words


def split_old_pair(text: str) -> tuple[str, str] | None:
    """`NAME the rest`, the form without `=`; None when there is no rest."""
    parts = _BLANKS.split(text, maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 else None


def split_blanks(text: str) -> list[str]:
    """The words between blanks; quotes mean nothing here."""
    return _BLANKS.split(text) if text else []


def read_list(text: str) -> list[str] | None:
    """The strings of a JSON list; None for what is none, and so is in shell form. Raises NotStrings."""
    text = text.lstrip()
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(word, str) for word in value):
        raise NotStrings("when using JSON array syntax, arrays must be comprised of strings only")
    return value
