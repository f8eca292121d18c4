"""Logical lines: what a Dockerfile splits over lines, put together again.

A line whose last character is the escape character (`\\`, or what `# escape=` says) goes on in the next one;
comment lines in between vanish, and so do empty ones (a habit of old that BuildKit warns of). The directives
`# syntax=`, `# escape=` and `# check=` are comments that stand before anything else, each at most once. After
a RUN, COPY or ADD with `<<NAME` the lines up to NAME are the text of a heredoc.
"""

from __future__ import annotations

import re

from duckweed.dockerfile.variables import BadSubstitution, expand
from duckweed.errors import DockerfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]*)\Z")
_TAKES_HEREDOC = re.compile(r"\s*(?:ONBUILD\s+)?(RUN|COPY|ADD)\s+(.*)\Z", re.IGNORECASE | re.DOTALL)
_LINE_LIMIT = 1 << 20


class Heredoc:
    """The text after `<<name`: `expand` unless the name was quoted, `chomp` (leading tabs go) after `<<-`."""

    __slots__ = ("chomp", "expand", "name", "text")

    def __init__(self, name: str, expand: bool, chomp: bool) -> None:
        self.name = name
        self.expand = expand
        self.chomp = chomp
        self.text = ""

    @property
    def content(self) -> str:
        """The text as a file gets it."""
        return re.sub(r"(?m)^\t+", "", self.text) if self.chomp else self.text


class Line:
    """One logical line. `first` and `last` are line numbers from 1; `comments` stood directly above it."""

    __slots__ = ("_pieces", "comments", "first", "heredocs", "last", "text")

    def __init__(self, first: int, comments: list[str]) -> None:
        self.first = first
        self.last = first
        self.comments = comments
        self.text = ""
        self.heredocs: list[Heredoc] = []
        # (offset in `text`, line number, column from 0): where each piece came from.
        self._pieces: list[tuple[int, int, int]] = []

    def extend(self, text: str, number: int, column: int) -> None:
        """Adds a piece of the file."""
        self._pieces.append((len(self.text), number, column))
        self.text += text
        self.last = number

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of a character of `text`."""
        number, column = self.first, 0
        for start, piece_number, piece_column in self._pieces:
            if start > offset:
                break
            number, column = piece_number, piece_column + offset - start
        return number, column + 1


class Source:
    """The text of a Dockerfile under the name that errors call it by, and what its directives said."""

    __slots__ = ("directives", "empty_continuations", "escape", "lines", "name")

    def __init__(self, content: bytes | str, name: str = "Dockerfile") -> None:
        self.name = name
        self.escape = "\\"
        self.directives: dict[str, str] = {}
        self.empty_continuations: list[tuple[int, int]] = []
        if isinstance(content, bytes):
            content = content.decode("utf-8", "surrogateescape")
        self.lines = content.lstrip("\ufeff").split("\n") if content else []
        if self.lines and not self.lines[-1]:
            self.lines.pop()

    def error(
        self, message: str, hint: str = "", line: int = 0, column: int = 0, last: int = 0
    ) -> DockerfileError:
        """The error that names the place and shows the line."""
        place = f"{self.name}:{line}:{column}" if column else f"{self.name}:{line}" if line else self.name
        shown = self.excerpt(line, last or line) if line else ""
        return DockerfileError(f"{place}: {message}", hint, excerpt=shown, line=line, column=column)

    def excerpt(self, first: int, last: int) -> str:
        """The lines from `first` to `last` and two on either side, those that are meant marked `>>>`."""
        rule = "-" * 20
        shown = [f"{self.name}:{first}", rule]
        for number in range(max(1, first - 2), min(len(self.lines), last + 2) + 1):
            mark = ">>>" if first <= number <= last else "   "
            text = self.lines[number - 1].rstrip("\r").encode("utf-8", "replace").decode()
            shown.append(f"{number:4} | {mark} {text}".rstrip())
        return "\n".join([*shown, rule])

    def logical_lines(self) -> Iterator[Line]:
        """Every instruction with its continuations and heredocs. Raises DockerfileError."""
        reading = _Reading(self)
        while True:
            line = reading.next_line()
            if line is None:
                return
            yield line


class _Reading:
    """A walk over the physical lines."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._number = 0  # of physical lines read
        self._directives_over = False
        self._set_escape("\\")

    def _set_escape(self, escape: str) -> None:
        self._source.escape = escape
        mark = re.escape(escape)
        self._continued = re.compile(rf"(?:(?<!{mark}){mark}|^{mark})[ \t]*\Z")

    def _take(self) -> str | None:
        if self._number >= len(self._source.lines):
            return None
        self._number += 1
        line = self._source.lines[self._number - 1].rstrip("\r")
        if len(line) > _LINE_LIMIT:
            raise self._source.error("the line is longer than 1 MiB", line=self._number)
        return line

    def next_line(self) -> Line | None:
        comments: list[str] = []
        while True:
            raw = self._take()
            if raw is None:
                return None
            text = raw.lstrip()
            if text.startswith("#"):
                if not self._directive(text):
                    words = text[1:].strip()
                    comments = [*comments, words] if words else []
                continue
            self._directives_over = True
            if text:
                return self._instruction(raw, text, comments)
            comments = []

    def _directive(self, text: str) -> bool:
        match = None if self._directives_over else _DIRECTIVE.match(text)
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            self._directives_over = True
            return False
        source = self._source
        if name in source.directives:
            raise source.error(f"only one `{name}` parser directive can be used", line=self._number, column=1)
        source.directives[name] = match[2]
        if name == "escape":
            if match[2] not in ("\\", "`"):
                raise source.error(
                    f"invalid escape token `{match[2]}`: it is ` or \\", line=self._number, column=1
                )
            self._set_escape(match[2])
        return True

    def _instruction(self, raw: str, text: str, comments: list[str]) -> Line:
        line = Line(self._number, comments)
        column = len(raw) - len(text)
        has_empty = False
        while True:
            match = self._continued.search(text)
            line.extend(text[: match.start()] if match else text, self._number, column)
            if match is None:
                break
            following = self._continuation()
            if following is None:
                break
            text, column, skipped_empty = following[0], 0, following[1]
            has_empty = has_empty or skipped_empty
        if has_empty:
            self._source.empty_continuations.append((line.first, self._number))
        self._read_heredocs(line)
        return line

    def _continuation(self) -> tuple[str, bool] | None:
        """The next line that is neither a comment nor empty, and whether an empty one was passed over."""
        has_empty = False
        while True:
            raw = self._take()
            if raw is None:
                return None
            stripped = raw.strip()
            if stripped.startswith("#"):
                continue
            if not stripped:
                has_empty = True
                continue
            return raw, has_empty

    def _read_heredocs(self, line: Line) -> None:
        match = _TAKES_HEREDOC.match(line.text) if "<<" in line.text else None
        if match is None or _is_list(match[2]):
            return
        for heredoc, offset in _heredocs_of(line.text):
            number = self._number
            body: list[str] = []
            while True:
                raw = self._take_raw()
                if raw is None:
                    place = line.place(offset)
                    raise self._source.error(
                        "unterminated heredoc", f"end it with a line `{heredoc.name}`", *place, last=number
                    )
                ending = raw.rstrip("\r")
                if (ending.lstrip("\t") if heredoc.chomp else ending) == heredoc.name:
                    break
                body.append(raw + "\n")
            heredoc.text = "".join(body)
            line.heredocs.append(heredoc)
        line.last = self._number

    def _take_raw(self) -> str | None:
        if self._number >= len(self._source.lines):
            return None
        self._number += 1
        return self._source.lines[self._number - 1]


def _is_list(rest: str) -> bool:
    """Whether the arguments, after flags, are a JSON list: that form has no heredocs."""
    import json

    rest = re.sub(r"\A\s*(?:--\S*\s+)*", "", rest)
    if not rest.startswith("["):
        return False
    try:
        return isinstance(json.loads(rest), list)
    except (ValueError, RecursionError):
        return False


def parse_heredoc(word: str) -> Heredoc | None:
    """The heredoc that a word such as `<<EOF`, `3<<-"END"` begins; None for any other word."""
    match = _HEREDOC.match(word)
    if match is None or not match[3]:
        return None
    try:
        plain = expand(match[3], {}, keep_unset=True).words
        quoted = expand(match[3], {}, keep_unset=True, keep_quotes=True).words
    except BadSubstitution:
        return None
    if len(plain) != 1 or len(quoted) != 1:
        return None
    is_quoted = _quotes(quoted[0]) != _quotes(plain[0])
    return Heredoc(plain[0], not is_quoted, bool(match[2]))


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


def _heredocs_of(text: str) -> list[tuple[Heredoc, int]]:
    try:
        words = expand(text, {}, keep_unset=True, keep_quotes=True, keep_escapes=True).words
    except BadSubstitution:
        # A quote that the shell, not the Dockerfile, closes: no heredoc is looked for.
        return []
    found = []
    start = 0
    for word in words:
        heredoc = parse_heredoc(word)
        if heredoc is not None:
            start = max(text.find(word, start), 0)
            found.append((heredoc, start))
    return found
