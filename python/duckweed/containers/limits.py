"""Resource limits of processes: `--ulimit name=soft[:hard]`."""

# ruff: noqa: SIM905 (a list of words is read as one)

from __future__ import annotations

import re

from duckweed.errors import UsageError

# setrlimit(2); the names are Docker's. -1 is "no limit".
NAMES = """
    as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
""".split()
_UNLIMITED = 0xFFFF_FFFF_FFFF_FFFF


def parse_ulimit(text: str) -> tuple[str, int, int]:
    """`("nofile", 1024, 2048)` for `nofile=1024:2048`; -1 stays -1."""
    match = re.fullmatch(r"([^=]*)=([^:]*)(?::(.*))?", text)
    if match is None:
        raise UsageError(
            f"invalid ulimit argument: {text}", "write `name=soft[:hard]`, for example `nofile=1024:2048`"
        )
    name, soft_text, hard_text = match.groups()
    if name.lower() not in NAMES:
        raise UsageError(f"invalid ulimit type: {name}", f"known types: {', '.join(NAMES)}")
    soft = _number(soft_text, text)
    hard = soft if hard_text is None else _number(hard_text, text)
    if hard != -1 and (soft > hard or soft == -1):
        raise UsageError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return name.lower(), soft, hard


def _number(word: str, text: str) -> int:
    if not re.fullmatch(r"-1|\d{1,19}", word):
        raise UsageError(f"invalid ulimit argument: {text}", "limits are numbers; -1 is no limit")
    return int(word)


def rlimit(limit: tuple[str, int, int]) -> dict[str, object]:
    """The entry of config.json's `process.rlimits`."""
    name, soft, hard = limit
    return {
        "type": "RLIMIT_" + name.upper(),
        "soft": _UNLIMITED if soft == -1 else soft,
        "hard": _UNLIMITED if hard == -1 else hard,
    }
