"""Path patterns by the rules of Go's `filepath.Match`, and the matching beneath `.dockerignore`.

`*` is any run of characters but `/`, `?` one of them, `[a-z]` and `[^a-z]` one of a class, `\\x` is x. A
pattern becomes a list of tokens; one with few wildcards is matched by an expression, one with many by walking
all states at once, for an expression could then take ages.
"""

from __future__ import annotations

import posixpath
import re

_FEW = 3

# Kinds of tokens: a character or a class (an expression for one character) stands for itself.
STAR = "[^/]*"
ANY = "[^/]"
DEEP = ".*"
DIRECTORIES = "(?:.*/)?"
_WILD = (STAR, DEEP, DIRECTORIES)


class BadPattern(ValueError):
    """A pattern with an unfinished class or nothing after its last backslash."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"syntax error in pattern `{pattern}`")


def clean(path: str) -> str:
    """Go's `filepath.Clean`: no empty parts, no `.`, `..` resolved; "" is "."."""
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path


def has_wildcard(text: str) -> bool:
    """Whether an unescaped `*`, `?` or `[` is in it."""
    position = 0
    while position < len(text):
        if text[position] in "*?[":
            return True
        position += 2 if text[position] == "\\" else 1
    return False


def unescape(text: str) -> str:
    """A pattern without wildcards as the path it means."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def read_class(pattern: str, start: int) -> tuple[str, int]:
    """The class that begins with the `[` at `start` as an expression, and its end. Raises BadPattern."""
    position = start + 1
    negated = pattern[position : position + 1] == "^"
    position += negated
    parts: list[str] = []
    while True:
        if pattern[position : position + 1] == "]" and parts:
            break
        low, position = _class_character(pattern, position)
        high = low
        if pattern[position : position + 1] == "-":
            high, position = _class_character(pattern, position + 1)
        if low <= high:
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            parts.append("")  # an empty range is no error, and matches nothing
    ranges = "".join(parts)
    if not ranges:
        return ("(?s:.)" if negated else r"(?!)"), position + 1
    return f"[{'^' if negated else ''}{ranges}]", position + 1


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    character = pattern[position : position + 1]
    if not character or character in "-]":
        raise BadPattern(pattern)
    if character == "\\":
        position += 1
        character = pattern[position : position + 1]
        if not character:
            raise BadPattern(pattern)
    if position + 1 >= len(pattern):
        raise BadPattern(pattern)
    return character, position + 1


class Tokens:
    """A compiled pattern: `matches` says whether it is the whole of a path."""

    __slots__ = ("_expression", "_one", "_tokens")

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        few = sum(token in _WILD for token in tokens) <= _FEW
        self._expression = re.compile("".join(tokens), re.DOTALL) if few else None
        self._one: dict[str, re.Pattern[str]] = {}

    def matches(self, path: str) -> bool:
        """Whether the whole path matches."""
        if self._expression is not None:
            return self._expression.fullmatch(path) is not None
        return self._walk(path)

    def _walk(self, path: str) -> bool:
        last = len(self._tokens)
        states = self._closure({0})
        for character in path:
            following: set[int] = set()
            for state in states:
                index = abs(state) - 1 if state < 0 else state
                if index < last:
                    self._step(state, index, character, following)
            states = self._closure(following)
            if not states:
                return False
        return last in states

    def _step(self, state: int, index: int, character: str, following: set[int]) -> None:
        token = self._tokens[index]
        if token == DIRECTORIES:
            following.add(-index - 1)  # inside the directories: only a slash leads out
            if character == "/":
                following.add(index + 1)
        elif token == DEEP or (token == STAR and character != "/"):
            following.add(index)
        elif token != STAR and self._fits(token, character):
            following.add(index + 1)

    def _fits(self, token: str, character: str) -> bool:
        expression = self._one.get(token)
        if expression is None:
            expression = self._one[token] = re.compile(token, re.DOTALL)
        return expression.fullmatch(character) is not None

    def _closure(self, states: set[int]) -> set[int]:
        """With what is reached without a character: a wildcard may be empty."""
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if 0 <= state < len(self._tokens) and self._tokens[state] in _WILD and state + 1 not in states:
                states.add(state + 1)
                waiting.append(state + 1)
        return states


class Glob(Tokens):
    """One pattern of Go's `filepath.Match`."""

    def __init__(self, pattern: str) -> None:
        super().__init__(_tokens(pattern))


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            if not tokens or tokens[-1] != STAR:
                tokens.append(STAR)
        elif character == "?":
            tokens.append(ANY)
        elif character == "[":
            token, position = read_class(pattern, position - 1)
            tokens.append(token)
        else:
            if character == "\\":
                if position == len(pattern):
                    raise BadPattern(pattern)
                character = pattern[position]
                position += 1
            tokens.append(re.escape(character))
    return tokens
