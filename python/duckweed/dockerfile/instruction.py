"""One instruction as it was read: its word, flags and arguments, and where it stands."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from duckweed.dockerfile.lines import Heredoc, Line, Source

    FlagValue = Union[str, bool, list[str]]


class Pair:
    """`name=value` of ENV, LABEL and ARG. `value` is None for an ARG without; `is_old` marks `NAME value`."""

    __slots__ = ("is_old", "name", "value")

    def __init__(self, name: str, value: str | None, is_old: bool = False) -> None:
        self.name = name
        self.value = value
        self.is_old = is_old


class Instruction:
    """`keyword` is the word in capitals, `typed` as it was written, `text` the whole logical line.

    `arguments` are a JSON list's strings (`is_list`), the words of instructions that take words, or the whole
    rest in one. Nothing is expanded yet. `is_trigger` marks one that came from a base image's ONBUILD, and
    `stage` is then the number of the stage whose base that is.
    """

    __slots__ = (
        "arguments",
        "flags",
        "heredocs",
        "is_list",
        "is_trigger",
        "keyword",
        "line",
        "pairs",
        "rest",
        "source",
        "stage",
        "typed",
    )

    def __init__(self, source: Source, line: Line, typed: str) -> None:
        self.source = source
        self.line = line
        self.typed = typed
        self.keyword = typed.upper()
        self.flags: dict[str, FlagValue] = {}
        self.arguments: list[str] = []
        self.rest = ""
        self.is_list = False
        self.is_trigger = False
        self.stage = -1
        self.pairs: list[Pair] = []
        self.heredocs: list[Heredoc] = line.heredocs

    @property
    def text(self) -> str:
        """The instruction in one line, as histories and progress show it."""
        return self.line.text.strip()

    def flag(self, name: str) -> str:
        """The value of a string flag; "" when it was not given."""
        value = self.flags.get(name, "")
        return value if isinstance(value, str) else ""

    def choice(self, name: str) -> bool | None:
        """The value of a yes-or-no flag; None when it was not given."""
        value = self.flags.get(name)
        return value if isinstance(value, bool) else None

    def every(self, name: str) -> list[str]:
        """The values of a flag that may be repeated."""
        value = self.flags.get(name)
        return value if isinstance(value, list) else []

    def error(self, message: str, hint: str = "", offset: int = 0) -> Exception:
        """The error that shows this instruction; `offset` counts characters of the logical line."""
        line, column = self.line.place(offset)
        return self.source.error(message, hint, line, column, max(line, self.line.last))

    def __repr__(self) -> str:
        return f"<{self.text[:60]}>"
