"""`--help`: usage, what it does, its other names, its flags, in Docker's layout.

Lines are folded at the terminal's width (80 when there is none, `COLUMNS` if set), with the continuation
under the help column.
"""

from __future__ import annotations

from duckweed.cli import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckweed.cli.parse import Flag, Verb

_LEAST_WIDTH = 60


def text(path: str) -> str:
    """The help of a command, of a group, or of duckweed itself for ""."""
    if not path:
        return _root()
    if path in tree.GROUPS:
        return _group(path)
    return _verb(tree.load(path), path)


def _verb(verb: Verb, path: str) -> str:
    parts = [f"Usage:  duckweed {path} {verb.usage}".rstrip(), _description(verb)]
    others = tree.paths_of(path)
    if len(others) > 1:
        parts.append("Aliases:\n" + "\n".join(_wrap(", ".join(f"duckweed {other}" for other in others), 2)))
    if verb.flags:
        parts.append("Options:\n" + "\n".join(_flags(verb.flags)))
    return "\n\n".join(parts) + "\n"


def _description(verb: Verb) -> str:
    """The docstring; its first line is the summary, later paragraphs are for those who asked."""
    paragraphs = (verb.action.__doc__ or "").strip().split("\n\n")
    return "\n\n".join("\n".join(_wrap(" ".join(paragraph.split()), 0)) for paragraph in paragraphs)


def _group(group: str) -> str:
    return (
        f"Usage:  duckweed {group} COMMAND\n\n{tree.GROUPS[group]}\n\n"
        f"Commands:\n{_listing(group, tree.names_under(group))}\n\n"
        f"Run 'duckweed {group} COMMAND --help' for more information on a command.\n"
    )


def _root() -> str:
    from duckweed.cli.main import GLOBAL_FLAGS

    others = [name for name in tree.names_under("") if name not in tree.COMMON]
    groups = "\n".join(f"  {name:<12}{summary}" for name, summary in tree.GROUPS.items())
    return (
        "Usage:  duckweed [OPTIONS] COMMAND\n\nContainers without root and without a daemon\n\n"
        f"Common Commands:\n{_listing('', tree.COMMON)}\n\n"
        f"Management Commands:\n{groups}\n\n"
        f"Commands:\n{_listing('', sorted(others))}\n\n"
        "Global Options:\n" + "\n".join(_flags(GLOBAL_FLAGS)) + "\n\n"
        "Run 'duckweed COMMAND --help' for more information on a command.\n"
        "'duckweed doctor' says what this machine allows.\n"
    )


def _listing(group: str, names: Iterable[str]) -> str:
    return "\n".join(f"  {name:<12}{tree.load(f'{group} {name}'.strip()).summary}" for name in names)


def _flags(flags: Sequence[Flag]) -> list[str]:
    shown = [
        (_names(flag), flag.help) for flag in sorted(flags, key=lambda flag: flag.name) if not flag.hidden
    ]
    column = max(len(names) for names, _ in shown) + 3
    lines = []
    for names, help in shown:
        folded = _wrap(help, column)
        lines.append(names.ljust(column) + folded[0].lstrip())
        lines += folded[1:]
    return lines


def _names(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    return f"  {short}--{flag.name}" + ("" if flag.kind == "bool" else f" {flag.kind}")


def _wrap(words: str, indent: int) -> list[str]:
    from shutil import get_terminal_size
    from textwrap import wrap

    width = max(get_terminal_size((80, 24)).columns, indent + _LEAST_WIDTH // 2, _LEAST_WIDTH)
    return wrap(
        words, width, initial_indent=" " * indent, subsequent_indent=" " * indent, break_long_words=False
    ) or [""]
