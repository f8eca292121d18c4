"""What is said, and which exit code given, when a command does not succeed.

Errors of duckweed are one line and perhaps a hint, on stderr. A command line that cannot be read is answered
as Docker's client does it: the complaint, the usage line, where to read more. Anything else is a bug of ours
and says so.
"""

from __future__ import annotations

import os
import sys

from duckweed.cli.parse import BadUsage, Refused
from duckweed.errors import DuckweedError, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from duckweed.cli.parse import Verb

_INTERRUPTED = 130  # 128 + SIGINT
_BROKEN_PIPE = 141  # 128 + SIGPIPE
_OURS = 125


def report(error: BaseException, verb: Verb | None = None) -> int:
    """Tells the error and returns the exit code; `verb.failure_code` stands in for the error's own."""
    if isinstance(error, BadUsage):
        return _report_usage(error)
    if isinstance(error, DuckweedError):
        say(f"duckweed: {error.message}", error.hint)
        keep = isinstance(error, (StartError, Refused)) or verb is None or not verb.failure_code
        return error.exit_code if keep else verb.failure_code  # type: ignore[union-attr]
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return _BROKEN_PIPE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else _OURS if error.code else 0
    return _report_bug(error)


def _report_usage(error: BadUsage) -> int:
    path = f"duckweed {error.verb.path}" if error.verb else "duckweed"
    prefix = "duckweed: " if error.exit_code == 1 else ""
    say(f"{prefix}{error.message}", error.hint)
    if error.hint:
        return error.exit_code
    usage = f"{path} {error.verb.usage}" if error.verb else f"{path} [OPTIONS] COMMAND [ARG...]"
    say(f"\nUsage:  {usage.strip()}\n\nRun '{path} --help' for more information")
    return error.exit_code


def _report_bug(error: BaseException) -> int:
    if os.environ.get("DUCKWEED_TRACEBACK"):
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    words = " ".join(str(error).split())
    kind = type(error).__name__
    say(
        f"duckweed: internal error: {kind}: {words}; please report this (DUCKWEED_TRACEBACK=1 shows where)"
        if words
        else f"duckweed: internal error: {kind}; please report this (DUCKWEED_TRACEBACK=1 shows where)"
    )
    return _OURS


def say(line: str, hint: str = "") -> None:
    """Writes to stderr; nobody listening is not an error."""
    try:
        sys.stdout.flush()
        sys.stderr.write(f"{line}\nhint: {hint}\n" if hint else f"{line}\n")
    except OSError:
        pass


def each(names: Iterable[str], action: Callable[[str], str | None]) -> int:
    """Does `action` for every name and prints what it returns; goes on after an error and returns 1 then."""
    code = 0
    for name in names:
        try:
            line = action(name)
        except DuckweedError as error:
            say(f"Error: {error.message}", error.hint)
            code = 1
        else:
            if line is not None:
                sys.stdout.write(f"{line}\n")
    return code
