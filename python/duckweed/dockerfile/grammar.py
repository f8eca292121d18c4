"""The rules of each instruction: which flags it has, how its arguments are read, what is refused.

Reading is separate from expanding: an argument may hold variables that only the build knows. Messages follow
BuildKit's words where people search for them.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from duckweed.dockerfile.health import read_health
from duckweed.dockerfile.instruction import Instruction, Pair
from duckweed.dockerfile.lines import parse_heredoc
from duckweed.dockerfile.mount import check_mount
from duckweed.dockerfile.words import (
    NotStrings,
    read_list,
    split_blanks,
    split_flags,
    split_keyword,
    split_old_pair,
    split_words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duckweed.dockerfile.lines import Line, Source

_STRING, _BOOL, _STRINGS = "string", "bool", "strings"
_COPY_FLAGS = {
    "chown": _STRING,
    "chmod": _STRING,
    "link": _BOOL,
    "exclude": _STRINGS,
}
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_SHELL_FORMS = ("RUN", "CMD", "ENTRYPOINT", "SHELL")


class Bad(ValueError):
    """What is wrong with an instruction, where in it, and what might be meant."""

    def __init__(self, message: str, hint: str = "", offset: int = 0) -> None:
        super().__init__(message)
        self.hint = hint
        self.offset = offset


def read_instruction(source: Source, line: Line) -> Instruction:
    """The instruction of one logical line. Raises DockerfileError."""
    typed, rest, offset = split_keyword(line.text)
    instruction = Instruction(source, line, typed)
    try:
        _read(instruction, rest, offset)
    except Bad as error:
        raise instruction.error(str(error), error.hint, error.offset) from None
    except NotStrings as error:
        raise instruction.error(str(error), "", offset) from None
    except ValueError as error:
        raise instruction.error(str(error), "", offset) from None
    return instruction


def _read(instruction: Instruction, rest: str, offset: int) -> None:
    rule = _RULES.get(instruction.keyword)
    if rule is None:
        raise Bad(f"unknown instruction: {instruction.typed}", _meant(instruction.keyword, _RULES))
    known, reader = rule
    flags, start = split_flags(rest, instruction.source.escape)
    _read_flags(instruction, known, flags, offset)
    instruction.rest = rest[start:].strip()
    reader(instruction)


def _meant(word: str, known: Mapping[str, object] | list[str], lead: str = "") -> str:
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean `{lead}{near[0]}`?" if near else ""


def _read_flags(
    instruction: Instruction, known: Mapping[str, str], flags: list[tuple[str, int]], offset: int
) -> None:
    for word, start in flags:
        name, equals, value = word[2:].partition("=")
        place = offset + start
        kind = known.get(name)
        if kind is None:
            hint = _meant(name, known, "--") or (
                f"{instruction.keyword} has {', '.join('--' + one for one in known)}"
                if known
                else f"{instruction.keyword} has no flags"
            )
            raise Bad(f"unknown flag: --{name}", hint, place)
        if name in instruction.flags and kind != _STRINGS:
            raise Bad(f"duplicate flag specified: --{name}", "", place)
        if not equals and kind != _BOOL:
            raise Bad(f"missing a value on flag: --{name}", f"write it as `--{name}=VALUE`", place)
        if kind == _BOOL:
            instruction.flags[name] = _truth(name, value if equals else "true", place)
        elif kind == _STRING:
            instruction.flags[name] = value
        else:
            instruction.flags[name] = [*instruction.every(name), value]


def _truth(name: str, value: str, place: int) -> bool:
    if not value:
        raise Bad(f"missing a value on flag: --{name}", "", place)
    if value.lower() not in ("true", "false"):
        raise Bad(f"expecting boolean value for flag --{name}, not: {value}", "", place)
    return value.lower() == "true"


# Readers of arguments.


def _take_list(instruction: Instruction, text: str) -> bool:
    words = read_list(text)
    instruction.is_list = words is not None
    if words is not None:
        instruction.arguments = words
    return words is not None


def _read_command(instruction: Instruction) -> None:
    """RUN, CMD, ENTRYPOINT: the JSON form, or the whole rest for a shell."""
    if not _take_list(instruction, instruction.rest) and instruction.rest:
        instruction.arguments = [instruction.rest]


def _read_run(instruction: Instruction) -> None:
    _read_command(instruction)
    if not instruction.arguments and not instruction.is_list:
        raise Bad("RUN requires a command")
    for mount in instruction.every("mount"):
        check_mount(mount)
    for name, allowed in (("network", ("default", "none", "host")), ("security", ("sandbox", "insecure"))):
        value = instruction.flag(name)
        if name in instruction.flags and value not in allowed:
            hint = _meant(value, list(allowed)) or f"it is one of {', '.join(allowed)}"
            raise Bad(f'unsupported {name} "{value}"', hint)


def _read_shell(instruction: Instruction) -> None:
    _read_command(instruction)
    if not instruction.arguments:
        raise Bad("SHELL requires at least one argument")
    if not instruction.is_list:
        raise Bad("SHELL requires the arguments to be in JSON form", 'write `SHELL ["/bin/bash", "-c"]`')


def _read_words(instruction: Instruction) -> None:
    if not _take_list(instruction, instruction.rest):
        instruction.arguments = split_blanks(instruction.rest)


def _read_copy(instruction: Instruction) -> None:
    keyword = instruction.keyword
    _read_words(instruction)
    if len(instruction.arguments) < 2:
        raise Bad(
            f"{keyword} requires at least two arguments, but only one was provided."
            " Destination could not be determined"
            if instruction.arguments
            else f"{keyword} requires at least two arguments: a source and a destination"
        )
    if not instruction.is_list and parse_heredoc(instruction.arguments[-1]) is not None:
        raise Bad(f"{keyword} cannot accept a heredoc as a destination")


def _read_pairs(instruction: Instruction) -> None:
    """ENV and LABEL."""
    keyword = instruction.keyword
    words = split_words(instruction.rest, instruction.source.escape)
    if not words:
        raise Bad(f"{keyword} requires at least one argument")
    if "=" not in words[0]:
        pair = split_old_pair(instruction.rest)
        if pair is None:
            raise Bad(f"{keyword} must have two arguments", f"write `{keyword} {words[0]}=VALUE`")
        instruction.pairs = [Pair(*pair, is_old=True)]
        return
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Bad(
                f"Syntax error - can't find = in {_quoted(word)}. Must be of the form: name=value",
                "a value with blanks needs quotes",
                max(instruction.line.text.rfind(word), 0),
            )
        if not name:
            raise Bad(f"{keyword} names can not be blank")
        instruction.pairs.append(Pair(name, value))


def _read_arg(instruction: Instruction) -> None:
    words = split_words(instruction.rest, instruction.source.escape)
    if not words:
        raise Bad("ARG requires at least one argument")
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise Bad("ARG names can not be blank")
        instruction.pairs.append(Pair(name, value if equals else None))


def _read_from(instruction: Instruction) -> None:
    words = instruction.arguments = split_blanks(instruction.rest)
    if len(words) == 3 and words[1].lower() == "as":
        if not _STAGE_NAME.match(words[2].lower()):
            raise Bad(
                f"invalid name for build stage: {_quoted(words[2])},"
                " name can't start with a number or contain symbols",
                "",
                max(instruction.line.text.rfind(words[2]), 0),
            )
    elif len(words) != 1:
        raise Bad("FROM requires either one or three arguments", "write `FROM IMAGE` or `FROM IMAGE AS NAME`")


def _read_one(instruction: Instruction) -> None:
    if not instruction.rest:
        raise Bad(f"{instruction.keyword} requires exactly one argument")
    instruction.arguments = [instruction.rest]


def _read_stop_signal(instruction: Instruction) -> None:
    if len(instruction.rest.split()) != 1:
        raise Bad("STOPSIGNAL requires exactly one argument")
    instruction.arguments = [instruction.rest]


def _read_expose(instruction: Instruction) -> None:
    instruction.arguments = sorted(split_blanks(instruction.rest))
    if not instruction.arguments:
        raise Bad("EXPOSE requires at least one argument")


def _read_volume(instruction: Instruction) -> None:
    _read_words(instruction)
    if not instruction.arguments:
        raise Bad("VOLUME requires at least one argument")
    instruction.arguments = [word.strip() for word in instruction.arguments]
    if not all(instruction.arguments):
        raise Bad("VOLUME specified can not be an empty string")


def _read_onbuild(instruction: Instruction) -> None:
    if not instruction.rest:
        raise Bad("ONBUILD requires at least one argument")
    word = split_keyword(instruction.rest)[0].upper()
    if word == "ONBUILD":
        raise Bad("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise Bad(f"{word} isn't allowed as an ONBUILD trigger")
    if word not in _RULES:
        raise Bad(f"unknown instruction: {word}", _meant(word, _RULES))
    expression = instruction.rest
    for heredoc in instruction.heredocs:
        expression += f"\n{heredoc.text}{heredoc.name}"
    instruction.arguments = [expression]
    # Its own reader finds what is wrong now, not in the build that uses the image.
    from duckweed.dockerfile.lines import Source

    for line in Source(expression, instruction.source.name).logical_lines():
        trigger = Instruction(instruction.source, instruction.line, split_keyword(line.text)[0])
        trigger.heredocs = line.heredocs
        _read(trigger, split_keyword(line.text)[1], max(instruction.line.text.find(instruction.rest), 0))


def _read_health(instruction: Instruction) -> None:
    instruction.arguments, instruction.is_list = read_health(instruction.rest, instruction.flags)


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '\\"') + '"'


_HEALTH_FLAGS = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), _STRING)
_RULES: dict[str, tuple[dict[str, str], Callable[[Instruction], None]]] = {
    "ADD": (
        {**_COPY_FLAGS, "checksum": _STRING, "keep-git-dir": _BOOL, "unpack": _BOOL},
        _read_copy,
    ),
    "ARG": ({}, _read_arg),
    "CMD": ({}, _read_command),
    "COPY": ({**_COPY_FLAGS, "from": _STRING, "parents": _BOOL}, _read_copy),
    "ENTRYPOINT": ({}, _read_command),
    "ENV": ({}, _read_pairs),
    "EXPOSE": ({}, _read_expose),
    "FROM": ({"platform": _STRING}, _read_from),
    "HEALTHCHECK": (_HEALTH_FLAGS, _read_health),
    "LABEL": ({}, _read_pairs),
    "MAINTAINER": ({}, _read_one),
    "ONBUILD": ({}, _read_onbuild),
    "RUN": ({"mount": _STRINGS, "network": _STRING, "security": _STRING, "device": _STRINGS}, _read_run),
    "SHELL": ({}, _read_shell),
    "STOPSIGNAL": ({}, _read_stop_signal),
    "USER": ({}, _read_one),
    "VOLUME": ({}, _read_volume),
    "WORKDIR": ({}, _read_one),
}
KEYWORDS = tuple(_RULES)
