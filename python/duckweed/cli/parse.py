"""Flags as data, and the reading of a command line in Docker's manner.

Docker's client reads flags as Go's pflag does, and scripts rely on it: `-itd` bundles, `-n5`, `-n=5` and `-n
5` are one, `--rm=false` takes a value though `--rm true` does not, flags may follow arguments (`rm web -f`)
except where the rest belongs to a command inside the container (`run busybox ls -l`), and `--` ends them. The
words of the complaints are Docker's 28.2 too, taken from its client. click cannot be taught all of this, and
importing it costs more than all of a warm start; so a verb is a table of `Flag`s read here, and `completion`
shows the same tables to click.
"""

from __future__ import annotations

from duckweed.errors import DuckweedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from duckweed.engine import Engine

# What a flag's value is. The word is what `--help` prints behind the flag; `bool` takes a value only after
# `=`.
BOOL = "bool"
STRING = "string"
INT = "int"
LIST = "list"
MAP = "map"
FILTER = "filter"

_REPEATABLE = frozenset((LIST, MAP, FILTER, "ulimit", "mount"))
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class Flag:
    """One flag: long name, one-letter name or "", kind, help, and what completes its value ("file" ...)."""

    __slots__ = ("completes", "help", "hidden", "key", "kind", "name", "short")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        help: str,
        *,
        key: str = "",
        hidden: bool = False,
        completes: str = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        # The name under which the value is found: the long name as Python writes it, unless this is an alias.
        self.key = key or name.replace("-", "_")
        self.hidden = hidden
        self.completes = completes

    @property
    def shown(self) -> str:
        """The flag as complaints name it: `-m, --memory`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Verb:
    """A command: its usage, its flags, how many arguments it wants and the function that does it."""

    __slots__ = (
        "action",
        "aliases",
        "at_least",
        "at_most",
        "completes",
        "failure_code",
        "flags",
        "interspersed",
        "path",
        "usage",
    )

    def __init__(self, action: Callable[[Call], int], path: str, usage: str, **manners: Any) -> None:
        self.action = action
        self.path = path
        self.usage = usage
        self.flags: tuple[Flag, ...] = manners.get("flags", ())
        self.at_least: int = manners.get("at_least", 0)
        self.at_most: int | None = manners.get("at_most")
        # False: the first argument ends the flags, as what follows belongs to a command in the container.
        self.interspersed: bool = manners.get("interspersed", True)
        self.aliases: tuple[str, ...] = manners.get("aliases", ())
        self.completes: str = manners.get("completes", "")
        # What an error of the engine exits with, 0 meaning the error's own code: `run` says 125 for
        # everything.
        self.failure_code: int = manners.get("failure_code", 0)

    @property
    def summary(self) -> str:
        """One line about the verb: its function's docstring."""
        return (self.action.__doc__ or "").strip().split("\n")[0]


class Call:
    """One parsed command line on its way to the verb's function."""

    __slots__ = ("_engine", "arguments", "given", "verb")

    def __init__(self, verb: Verb, given: dict[str, Any], arguments: list[str]) -> None:
        self.verb = verb
        self.given = given
        self.arguments = arguments
        self._engine: Engine | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a flag, `default` when it was not given."""
        return self.given.get(key, default)

    @property
    def engine(self) -> Engine:
        """The engine of this call, made when first asked for: `--help` and bad flags need none."""
        if self._engine is None:
            from duckweed.engine import Engine

            self._engine = Engine()
        return self._engine


def verb(path: str, usage: str, **manners: Any) -> Callable[[Callable[[Call], int]], Verb]:
    """Decorator: makes a `Verb` of a function; `manners` are the attributes of `Verb`."""
    return lambda action: Verb(action, path, usage, **manners)


class HelpWanted(Exception):
    """`--help` was among the flags."""


class BadUsage(UsageError):
    """The command line cannot be read; `verb` says whose usage line to show."""

    code = "bad-usage"

    def __init__(self, message: str, verb: Verb | None = None, *, exit_code: int = 125) -> None:
        super().__init__(message, exit_code=exit_code)
        self.verb = verb


class Refused(DuckweedError):
    """The client says no before the engine is asked: exit code 1 whatever the verb, as in Docker's client."""

    code = "refused"


def parse(verb: Verb, words: Sequence[str]) -> Call:
    """Reads `words` as flags and arguments of `verb`. Raises `BadUsage` or `HelpWanted`."""
    given, arguments = read_flags(verb.flags, words, interspersed=verb.interspersed, verb=verb)
    check_arity(verb, len(arguments))
    return Call(verb, given, arguments)


def read_flags(
    flags: Sequence[Flag], words: Sequence[str], *, interspersed: bool, verb: Verb | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The flags given (key -> value) and the arguments left."""
    given: dict[str, Any] = {}
    arguments: list[str] = []
    reader = _Reader(flags, words, given, verb)
    while reader.more():
        word = reader.take()
        if word == "--":
            arguments += reader.rest()
        elif word.startswith("--"):
            reader.long(word)
        elif word.startswith("-") and word != "-":
            reader.shorts(word)
        else:
            arguments.append(word)
            if not interspersed:
                arguments += reader.rest()
    return given, arguments


class _Reader:
    """The words still to be read, and where the values go."""

    def __init__(
        self, flags: Sequence[Flag], words: Sequence[str], given: dict[str, Any], verb: Verb | None
    ) -> None:
        self.flags = flags
        self.words = words
        self.given = given
        self.verb = verb
        self.at = 0

    def more(self) -> bool:
        return self.at < len(self.words)

    def take(self) -> str:
        self.at += 1
        return self.words[self.at - 1]

    def rest(self) -> list[str]:
        left = list(self.words[self.at :])
        self.at = len(self.words)
        return left

    def bad(self, message: str) -> BadUsage:
        return BadUsage(message, self.verb)

    def long(self, word: str) -> None:
        """Reads `--name`, `--name=value` or `--name value`."""
        name, equals, value = word[2:].partition("=")
        flag = next((flag for flag in self.flags if flag.name == name), None)
        if flag is None:
            if name == "help":
                raise HelpWanted
            raise self.bad(
                f"bad flag syntax: {word}" if not name or name[0] == "-" else f"unknown flag: --{name}"
            )
        if not equals:
            if flag.kind == BOOL:
                value = "true"
            elif self.more():
                value = self.take()
            else:
                raise self.bad(f"flag needs an argument: --{name}")
        self.store(flag, value)

    def shorts(self, word: str) -> None:
        """Reads `-it`, `-n5`, `-n=5` or `-n 5`."""
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = next((flag for flag in self.flags if flag.short == letter), None)
            if flag is None:
                if letter == "h":
                    raise HelpWanted
                raise self.bad(f"unknown shorthand flag: '{letter}' in -{letter}{letters}")
            if letters.startswith("="):
                value, letters = letters[1:], ""
            elif flag.kind == BOOL:
                value = "true"
            elif letters:
                value, letters = letters, ""
            elif self.more():
                value = self.take()
            else:
                raise self.bad(f"flag needs an argument: '{letter}' in {word}")
            self.store(flag, value)

    def store(self, flag: Flag, text: str) -> None:
        value: Any = text
        if flag.kind == BOOL:
            if text not in _TRUE and text not in _FALSE:
                raise self.invalid(flag, text, "want true or false")
            value = text in _TRUE
        elif flag.kind == INT:
            try:
                value = int(text)
            except ValueError:
                raise self.invalid(flag, text, "want a whole number") from None
        elif flag.kind == FILTER and "=" not in text:
            raise self.invalid(flag, text, "want KEY=VALUE")
        if flag.kind in _REPEATABLE:
            self.given.setdefault(flag.key, []).append(value)
        else:
            self.given[flag.key] = value

    def invalid(self, flag: Flag, text: str, why: str) -> BadUsage:
        return self.bad(f'invalid argument "{text}" for "{flag.shown}" flag: {why}')


def check_arity(verb: Verb, count: int) -> None:
    """Raises `BadUsage` (exit code 1, as Docker) unless the verb takes that many arguments."""
    if verb.at_least <= count and (verb.at_most is None or count <= verb.at_most):
        return
    least, most = verb.at_least, verb.at_most
    if most == 0:
        wanted = "accepts no arguments"
    elif least == most:
        wanted = f"requires {_arguments(least)}"
    elif count < least:
        wanted = f"requires at least {_arguments(least)}"
    else:
        wanted = f"requires at most {_arguments(most or 0)}"
    raise BadUsage(f"'duckweed {verb.path}' {wanted}", verb, exit_code=1)


def _arguments(count: int) -> str:
    return f"{count} argument" + ("" if count == 1 else "s")


def filters_of(call: Call) -> dict[str, list[str]]:
    """The `--filter` flags as the engine takes them: name -> list of values."""
    filters: dict[str, list[str]] = {}
    for text in call.get("filter", ()):
        name, _, value = text.partition("=")
        filters.setdefault(name.strip().lower(), []).append(value.strip())
    return filters
