"""Variables in a Dockerfile: `$name`, `${name}` and the forms with a modifier, with the shell's quotes.

    ${v:-w} ${v-w}  w when v is empty or unset (unset only without the colon)
    ${v:+w} ${v+w}  w when v is set
    ${v:?m} ${v?m}  the build fails with m
    ${v#p} ${v##p} ${v%p} ${v%%p}   v without the shortest or longest beginning or end that matches p
    ${v/p/w} ${v//p/w}              v with the first or every match of p replaced

A pattern knows `*` and `?` and no brackets. Words may hold variables themselves. Single quotes keep all as it
is; in double quotes the escape character works before `"`, `$` and itself only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NESTING_LIMIT = 64
_SPECIAL = frozenset("@*#?-$!0")
_CLOSED = "syntax error: missing '}'"


class BadSubstitution(ValueError):
    """A word whose quotes or `${...}` cannot be read, or a `${v:?message}` that is not set."""


class Expansion:
    """What became of a word: `text`, and which variables it named that were `found` or `missing`."""

    __slots__ = ("found", "missing", "text", "words")

    def __init__(self, text: str, words: list[str], found: set[str], missing: set[str]) -> None:
        self.text = text
        self.words = words
        self.found = found
        self.missing = missing


def expand(
    word: str,
    variables: Mapping[str, str],
    escape: str = "\\",
    *,
    keep_quotes: bool = False,
    keep_escapes: bool = False,
    process_quotes: bool = True,
    keep_unset: bool = False,
) -> Expansion:
    """Replaces the variables of `word` and takes its quotes away. Raises BadSubstitution.

    `words` of the result is the text split at blanks outside quotes. `keep_quotes` and `keep_escapes` leave
    those characters in; `process_quotes=False` sees no quotes at all, for the text of a heredoc;
    `keep_unset` leaves variables that are not set as they are written.
    """
    reader = _Reader(word, variables, escape, keep_quotes, keep_escapes, process_quotes, keep_unset)
    text, words = reader.read("")
    return Expansion(text, words, reader.found, reader.missing)


class _Words:
    """Collects characters, and words ended by blanks."""

    __slots__ = ("_in_word", "_word", "done", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.done: list[str] = []
        self._word: list[str] = []
        self._in_word = False

    def add(self, text: str, *, splits: bool) -> None:
        self.text.append(text)
        if not splits:
            self._word.append(text)
            self._in_word = True
            return
        for character in text:
            if not character.isspace():
                self._word.append(character)
                self._in_word = True
            elif self._in_word and "".join(self._word):
                self.done.append("".join(self._word))
                self._word.clear()
                self._in_word = False

    def finish(self) -> tuple[str, list[str]]:
        if "".join(self._word):
            self.done.append("".join(self._word))
        return "".join(self.text), self.done


class _Reader:
    """One pass over one word; `position` is the next character."""

    __slots__ = (
        "_depth",
        "_escape",
        "_keep_escapes",
        "_keep_quotes",
        "_keep_unset",
        "_process_quotes",
        "_text",
        "_variables",
        "found",
        "missing",
        "position",
    )

    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        keep_quotes: bool,
        keep_escapes: bool,
        process_quotes: bool,
        keep_unset: bool,
    ) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._keep_quotes = keep_quotes
        self._keep_escapes = keep_escapes
        self._process_quotes = process_quotes
        self._keep_unset = keep_unset
        self._depth = 0
        self.position = 0
        self.found: set[str] = set()
        self.missing: set[str] = set()

    def _peek(self) -> str:
        return self._text[self.position : self.position + 1]

    def _next(self) -> str:
        character = self._peek()
        self.position += 1
        return character

    def read(self, stop: str) -> tuple[str, list[str]]:
        """Up to `stop`, or to the end when that is ""."""
        words = _Words()
        while self.position < len(self._text):
            character = self._peek()
            if stop and character == stop:
                self.position += 1
                return words.finish()
            if character == "$":
                words.add(self._dollar(), splits=True)
            elif character in "'\"" and self._process_quotes:
                words.add(self._single() if character == "'" else self._double(), splits=False)
            elif character == "<" and self._text.startswith("<<", self.position):
                words.add(self._heredoc_start(), splits=False)
            elif character == self._escape:
                self._escaped(words)
            else:
                self.position += 1
                words.add(character, splits=character != "<")
        if stop:
            raise BadSubstitution(f"unexpected end of statement while looking for matching {stop}")
        return words.finish()

    def _escaped(self, words: _Words) -> None:
        character = self._next()
        if self._keep_escapes:
            words.add(character, splits=False)
        if self.position < len(self._text):
            words.add(self._next(), splits=False)

    def _heredoc_start(self) -> str:
        """`<<` and the blanks after it stay one word with the name that follows."""
        start = self.position
        self.position += 2
        while self._peek() and self._peek() in " \t\v\f\r":
            self.position += 1
        return self._text[start : self.position]

    def _single(self) -> str:
        end = self._text.find("'", self.position + 1)
        if end < 0:
            raise BadSubstitution("unexpected end of statement while looking for matching single-quote")
        inner = self._text[self.position + 1 : end]
        self.position = end + 1
        return f"'{inner}'" if self._keep_quotes else inner

    def _double(self) -> str:
        self.position += 1
        parts = ['"'] if self._keep_quotes else []
        while self.position < len(self._text):
            character = self._peek()
            if character == '"':
                self.position += 1
                return "".join([*parts, '"'] if self._keep_quotes else parts)
            if character == "$":
                parts.append(self._dollar())
                continue
            self.position += 1
            if character == self._escape:
                if self._keep_escapes:
                    parts.append(character)
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", self._escape):
                    character = self._next()
            parts.append(character)
        raise BadSubstitution("unexpected end of statement while looking for matching double-quote")

    # Variables.

    def _dollar(self) -> str:
        self.position += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            return f"${name}" if value is None and self._keep_unset else value or ""
        self.position += 1
        if not self._peek():
            raise BadSubstitution(_CLOSED)
        if self._peek() in "{}:":
            raise BadSubstitution("syntax error: bad substitution")
        self._depth += 1
        if self._depth > _NESTING_LIMIT:
            raise BadSubstitution("variables are nested too deeply")
        text = self._braced(self._name())
        self._depth -= 1
        return text

    def _braced(self, name: str) -> str:
        operator = self._next()
        if operator == "}":
            value = self._get(name)
            return f"${{{name}}}" if value is None and self._keep_unset else value or ""
        if operator == "/":
            return self._replaced(name)
        with_empty = operator == ":"
        if with_empty:
            operator = self._next()
        written = ":" * with_empty + operator
        if operator not in tuple("-+?#%") or (with_empty and operator in "#%"):
            if not operator:
                raise BadSubstitution(_CLOSED)
            raise BadSubstitution(f"unsupported modifier ({written}) in substitution")
        word = self._word("}", operator in "#%", _CLOSED)
        value = self._get(name)
        if value is None and self._keep_unset:
            return f"${{{name}{written}{word}}}"
        if operator in "#%":
            return _trimmed(value or "", word, operator)
        return _chosen(name, value, operator, with_empty, word)

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self.position += 1
        pattern = self._word("/", True, "syntax error: missing '/' in ${}")
        replacement = self._word("}", True, _CLOSED)
        value = self._get(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        return ShellPattern(pattern).replace(value or "", replacement, every=every)

    def _word(self, stop: str, keep_escapes: bool, unclosed: str) -> str:
        before, self._keep_escapes = self._keep_escapes, keep_escapes
        try:
            return self.read(stop)[0]
        except BadSubstitution:
            if self.position >= len(self._text):
                raise BadSubstitution(unclosed) from None
            raise
        finally:
            self._keep_escapes = before

    def _name(self) -> str:
        start = self.position
        first = self._peek()
        if first.isdigit():
            while self._peek().isdigit():
                self.position += 1
        elif first and first in _SPECIAL:
            self.position += 1
        else:
            while self._peek() and (self._peek().isalnum() or self._peek() == "_"):
                self.position += 1
        return self._text[start : self.position]

    def _get(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self.missing if value is None else self.found).add(name)
        return value


def _chosen(name: str, value: str | None, operator: str, with_empty: bool, word: str) -> str:
    is_set = value is not None and (value != "" or not with_empty)
    if operator == "-":
        return value or "" if is_set else word
    if operator == "+":
        return word if is_set else ""
    if not is_set:
        default = "is not allowed to be unset" if value is None else "is not allowed to be empty"
        raise BadSubstitution(f"{name}: {word or default}")
    return value or ""


def _trimmed(value: str, word: str, operator: str) -> str:
    longest = word.startswith(operator)
    pattern = ShellPattern(word[1:] if longest else word)
    if operator == "#":
        length = pattern.match(value, 0, longest=longest)
        return value if length is None else value[length:]
    # From the end: the same pattern and the same text, both backwards.
    length = pattern.backwards().match(value[::-1], 0, longest=longest)
    return value if length is None else value[: len(value) - length]


_ANY = None


class ShellPattern:
    """`*` and `?` and ordinary characters, matched in time that is linear in the text for any pattern.

    `_tokens` has a character, or `_ANY` for `?`; `_stars` has a bit for each token that a `*` precedes.
    """

    __slots__ = ("_stars", "_tokens")

    def __init__(self, text: str) -> None:
        self._tokens: list[str | None] = []
        self._stars = 0
        position = 0
        while position < len(text):
            character = text[position]
            if character == "*":
                self._stars |= 1 << len(self._tokens)
            elif character == "?":
                self._tokens.append(_ANY)
            else:
                if character == "\\" and position + 1 < len(text):
                    position += 1
                self._tokens.append(text[position])
            position += 1

    def backwards(self) -> ShellPattern:
        """The pattern of the reversed texts."""
        other = ShellPattern("")
        other._tokens = self._tokens[::-1]
        count = len(self._tokens)
        for index in range(count + 1):
            if self._stars >> index & 1:
                other._stars |= 1 << (count - index)
        return other

    def match(self, text: str, start: int, *, longest: bool) -> int | None:
        """Where a match that begins at `start` ends, counted from the start; None when there is none."""
        states, end = 1, 1 << len(self._tokens)
        masks: dict[str, int] = {}
        best = None
        for position in range(start, len(text) + 1):
            if states & end:
                best = position - start
                if not longest:
                    return best
            if not states or position == len(text):
                break
            character = text[position]
            mask = masks.get(character)
            if mask is None:
                mask = masks[character] = self._accepting(character)
            states = (states & mask) << 1 | states & self._stars
        return best

    def _accepting(self, character: str) -> int:
        return sum(1 << i for i, token in enumerate(self._tokens) if token in (_ANY, character))

    def replace(self, text: str, replacement: str, *, every: bool) -> str:
        """The first or every longest match replaced; an empty pattern matches nothing."""
        parts = []
        position = 0
        while position < len(text):
            length = self.match(text, position, longest=True)
            if not length:
                parts.append(text[position])
                position += 1
                continue
            parts.append(replacement)
            position += length
            if not every:
                break
        return "".join(parts) + text[position:]
