"""`duckweed`: from the words typed to the verb that does them, and from what goes wrong to an exit code.

The first stop of every command. It reads the flags before the verb, finds the verb in `tree`, has `parse`
read the rest, and calls it. A command that succeeds has imported `parse`, `tree`, its own module and what the
engine needed. The process ends with `os._exit` after a flush: taking the interpreter apart costs milliseconds
and frees nothing that the kernel would not.
"""

from __future__ import annotations

import gc
import os
import sys

# Nothing that a command allocates lives long enough to be worth a collection (about 2 ms of a start).
gc.disable()

from duckweed.cli import parse, tree  # noqa: E402
from duckweed.cli.parse import BOOL, STRING, BadUsage, Flag, HelpWanted  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GLOBAL_FLAGS = (
    Flag("config", "", STRING, "Directory of the client's configuration files", completes="directory"),
    Flag("debug", "D", BOOL, "Show where an internal error came from"),
    Flag("log-level", "l", STRING, "How much to tell: debug, info, warn, error or fatal"),
    Flag("version", "v", BOOL, "Print the version and quit"),
)
_LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


def main() -> None:
    """The console script: runs `sys.argv` and ends the process."""
    if any(name.startswith("_DUCKWEED_COMPLETE") for name in os.environ):
        from duckweed.cli import completion

        completion.answer()
    # UTF-8 whatever the locale, as Docker; names on disk may be any bytes.
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    code = run(sys.argv[1:])
    os._exit(_flushed(code))


def run(words: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; every error has been told by then."""
    try:
        return _dispatch(list(words))
    except BaseException as error:
        # Whatever it is ends here: a person never sees a traceback unless they asked for one.
        from duckweed.cli import failure

        return failure.report(error)


def _flushed(code: int) -> int:
    """Writes out what stdout still holds; a reader that went away is no error (`duckweed ps | head -1`)."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            return code or 1
    return code


def _dispatch(words: list[str]) -> int:
    try:
        given, words = parse.read_flags(GLOBAL_FLAGS, words, interspersed=False)
    except HelpWanted:
        return _help("")
    if given.get("version"):
        from duckweed import __version__

        sys.stdout.write(f"duckweed version {__version__}\n")
        return 0
    _apply_globals(given)
    path, words = _find(words)
    if path in tree.GROUPS or not path:
        return _group(path, words)
    verb = tree.load(path)
    try:
        call = parse.parse(verb, words)
    except HelpWanted:
        return _help(path)
    try:
        return verb.action(call)
    except Exception as error:
        if verb.failure_code:
            from duckweed.cli import failure

            return failure.report(error, verb)
        raise


def _apply_globals(given: dict[str, str]) -> None:
    """Hands the flags before the verb on by the environment, where the engine and the runtime look."""
    level = given.get("log_level", "")
    if level and level not in _LOG_LEVELS:
        raise BadUsage(f"unable to parse logging level: {level}")
    if given.get("debug") or level == "debug":
        os.environ["DUCKWEED_TRACEBACK"] = "1"
    if given.get("config"):
        os.environ["DOCKER_CONFIG"] = given["config"]


def _find(words: list[str]) -> tuple[str, list[str]]:
    """Splits the words into the command's path and what belongs to it."""
    if not words:
        return "", words
    first = words[0]
    if first not in tree.GROUPS:
        if first == "help":
            return _find([*words[1:], "--help"])
        if first not in tree.COMMANDS and not first.startswith("-"):
            raise _unknown(first)
        return ("", words) if first.startswith("-") else (first, words[1:])
    if len(words) > 1 and not words[1].startswith("-"):
        path = f"{first} {words[1]}"
        if path not in tree.COMMANDS and path not in tree.ALIASES:
            raise _unknown(path)
        return path, words[2:]
    return first, words[1:]


def _unknown(path: str) -> BadUsage:
    """The complaint about a command that does not exist, with the nearest that does."""
    from difflib import get_close_matches

    near = get_close_matches(path, [*tree.COMMANDS, *tree.ALIASES], n=1)
    error = BadUsage(f"unknown command: duckweed {path}", exit_code=1)
    error.hint = f"did you mean `duckweed {near[0]}`?" if near else "`duckweed --help` lists the commands"
    return error


def _group(path: str, words: list[str]) -> int:
    """A group's name alone shows its commands, as `--help` does."""
    try:
        parse.read_flags((), words, interspersed=False)
    except HelpWanted:
        pass
    return _help(path)


def _help(path: str) -> int:
    from duckweed.cli import help

    sys.stdout.write(help.text(path))
    return 0


if __name__ == "__main__":
    main()
