"""`.dockerignore` and `--exclude`: which files of a tree do not exist for a build.

The patterns are those of `filepath.Match` and `**`, which is any number of directories. A pattern that fits a
directory fits all below it. `!` makes an exception, and the last pattern that fits decides, so a file may
come back from a directory that is left out. The rules, odd corners included, are Docker's (moby
patternmatcher): `**` at the start of a pattern without other wildcards means "ends with", at the end "begins
with".
"""

from __future__ import annotations

import re

from duckweed.dockerfile.glob import ANY, DEEP, DIRECTORIES, STAR, Glob, Tokens, clean, read_class

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def read_patterns(text: str) -> list[str]:
    """The patterns of an ignore file: without comments, blanks around, and leading slashes."""
    patterns = []
    for number, line in enumerate(text.split("\n")):
        if number == 0:
            line = line.lstrip("\ufeff")
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        negated = pattern.startswith("!")
        if negated:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append("!" + pattern if negated else pattern)
    return patterns


class Matcher:
    """A list of patterns. Raises BadPattern, and ValueError for a lone `!`."""

    __slots__ = ("_patterns", "has_exceptions")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns: list[_Pattern] = []
        for pattern in patterns:
            pattern = pattern.strip()
            if pattern:
                self._patterns.append(_Pattern(clean(pattern)))
        self.has_exceptions = any(pattern.is_exception for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, path: str) -> bool:
        """Whether the path (relative, with `/`) or a directory above it is meant."""
        parents = []
        slash = path.find("/")
        while slash >= 0:
            parents.append(path[:slash])
            slash = path.find("/", slash + 1)
        matched = False
        for pattern in self._patterns:
            if pattern.is_exception == matched and (
                pattern.fits(path) or any(pattern.fits(parent) for parent in parents)
            ):
                matched = not pattern.is_exception
        return matched

    def below(self, path: str, above: tuple[bool, ...] | None) -> tuple[bool, tuple[bool, ...]]:
        """As `matches`, for a walk: `above` is what this returned for the directory (None at the top).

        The second result belongs to this path and is to be handed on to what is below it.
        """
        matched = False
        fits = []
        for index, pattern in enumerate(self._patterns):
            fit = above is not None and above[index]
            if not fit and pattern.is_exception == matched:
                fit = pattern.fits(path)
            fits.append(fit)
            if fit:
                matched = not pattern.is_exception
        return matched, tuple(fits)

    def may_have_exceptions_below(self, directory: str) -> bool:
        """Whether something below a directory that is left out could come back. Errs on yes."""
        return any(pattern.is_exception and pattern.may_fit_below(directory) for pattern in self._patterns)


class _Pattern:
    """One pattern; `is_exception` for one with `!`."""

    __slots__ = ("_end", "_exact", "_start", "_text", "_tokens", "is_exception")

    def __init__(self, pattern: str) -> None:
        self.is_exception = pattern.startswith("!")
        if self.is_exception:
            pattern = pattern[1:]
            if not pattern:
                raise ValueError('illegal exclusion pattern: "!"')
        Glob(pattern)  # what filepath.Match would refuse is refused
        self._text = pattern
        self._exact: str | None = None
        self._start: str | None = None
        self._end: str | None = None
        self._tokens: Tokens | None = None
        self._compile(pattern)

    def _compile(self, pattern: str) -> None:
        """Finds the cheapest exact way to match: equal, begins with, ends with, or by tokens."""
        tokens: list[str] = []
        kind = "exact"
        position = count = 0
        while position < len(pattern):
            character = pattern[position]
            position += 1
            if character == "*" and pattern[position : position + 1] == "*":
                position += 1
                if pattern[position : position + 1] == "/":
                    position += 1
                if position == len(pattern):
                    if kind == "exact":
                        kind = "begins"
                    else:
                        tokens.append(DEEP)
                        kind = "tokens"
                else:
                    tokens.append(DIRECTORIES)
                    kind = "tokens"
                if count == 0:
                    kind = "ends"
            elif character == "*":
                tokens.append(STAR)
                kind = "tokens"
            elif character == "?":
                tokens.append(ANY)
                kind = "tokens"
            elif character == "\\":
                if position < len(pattern):
                    tokens.append(re.escape(pattern[position]))
                    position += 1
                kind = "tokens"
            elif character == "[":
                token, position = read_class(pattern, position - 1)
                tokens.append(token)
                kind = "tokens"
            else:
                if character == "]":
                    kind = "tokens"
                tokens.append(re.escape(character))
            count += 1
        self._choose(kind, pattern, tokens)

    def _choose(self, kind: str, pattern: str, tokens: list[str]) -> None:
        if kind == "exact":
            self._exact = pattern
        elif kind == "begins":
            self._start = pattern[:-2]
        elif kind == "ends":
            self._end = pattern[2:]
        else:
            self._tokens = Tokens(tokens)

    def fits(self, path: str) -> bool:
        if self._tokens is not None:
            return self._tokens.matches(path)
        if self._exact is not None:
            return path == self._exact
        if self._start is not None:
            return path.startswith(self._start)
        end = self._end or ""
        return path.endswith(end) or (end.startswith("/") and path == end[1:])

    def may_fit_below(self, directory: str) -> bool:
        text = self._text
        plain = re.split(r"[*?\[\\]", text, maxsplit=1)[0]
        if plain == text:
            return text.startswith(directory + "/")
        return plain.startswith(directory + "/") or (directory + "/").startswith(plain)
