"""Signals by name and number, without importing `signal` (its enums cost a millisecond)."""

# ruff: noqa: SIM905 (a list of words is read as one)

from __future__ import annotations

from duckweed.errors import UsageError

# Linux on x86-64 and arm64, signal(7). Real-time signals are computed: libc keeps 32 and 33 for itself.
_NAMES = """
    HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP
    TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS
""".split()
NUMBERS = {name: number for number, name in enumerate(_NAMES, 1)}
NUMBERS.update({"IOT": 6, "CLD": 17, "POLL": 29, "RTMIN": 34, "RTMAX": 64})
SIGTERM = 15
SIGKILL = 9


def parse_signal(value: str | int) -> int:
    """The number of `TERM`, `SIGTERM`, `15`, `SIGRTMIN+3` ...

    Raises UsageError in Docker's words.
    """
    text = str(value).strip()
    if text.isdigit():
        number = int(text)
    else:
        name = text.upper()
        name = name[3:] if name.startswith("SIG") else name
        base, plus, offset = name.partition("+")
        if not plus:
            base, plus, offset = name.partition("-")
            sign = -1
        else:
            sign = 1
        number = NUMBERS.get(base, 0)
        if plus and number:
            number = number + sign * int(offset) if base in ("RTMIN", "RTMAX") and offset.isdigit() else 0
            number = number if 34 <= number <= 64 else 0
    if not 1 <= number <= 64:
        raise UsageError(f"invalid signal: {value}", "use a name such as `TERM` or a number from 1 to 64")
    return number


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; the number itself when it has no name."""
    if 1 <= number <= len(_NAMES):
        return "SIG" + _NAMES[number - 1]
    return f"SIGRTMIN+{number - 34}" if 34 <= number <= 64 else str(number)
