"""How BuildKit words a step in an image's history: Go's printing of lists, quotes and durations."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quoted(text: str) -> str:
    """Go's `%q`."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def quoted_list(words: Iterable[str]) -> str:
    """Go's `%q` of a list: `["/bin/sh" "-c"]`."""
    return "[" + " ".join(map(quoted, words)) + "]"


def plain_list(words: Iterable[str]) -> str:
    """Go's `%v` of a list: `[/a /b]`."""
    return "[" + " ".join(words) + "]"


def duration(nanoseconds: int) -> str:
    """Go's `time.Duration`: `1m30s`, `1.5s`, `300ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    for unit, scale in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < scale * 1000:
            return f"{_decimal(nanoseconds, scale)}{unit}"
    hours, rest = divmod(nanoseconds, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    text = f"{_decimal(rest, 10**9)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _decimal(value: int, scale: int) -> str:
    whole, fraction = divmod(value, scale)
    if not fraction:
        return str(whole)
    return f"{whole}.{fraction:0{len(str(scale)) - 1}d}".rstrip("0")


def health_check(check: Mapping[str, Any]) -> str:
    """Go's `%+v` of a health check."""
    names = ("Interval", "Timeout", "StartPeriod", "StartInterval")
    times = " ".join(f"{name}:{duration(check.get(name, 0))}" for name in names)
    return f"{{Test:{plain_list(check['Test'])} {times} Retries:{check.get('Retries', 0)}}}"


def run_text(args: Iterable[str], arguments: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """`RUN |1 A=x /bin/sh -c ...`: the stage's ARGs with the values they have, then the command."""
    values = [f"{name}={environment.get(name, value)}" for name, value in arguments.items()]
    counted = [f"|{len(values)}", *values] if values else []
    return " ".join(["RUN", *counted, *args])
