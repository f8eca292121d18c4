"""HEALTHCHECK: its command and its four durations, in nanoseconds as image configs have them.

Durations are Go's: `1m30s`, `1.5h`, `300ms`.
"""

from __future__ import annotations

import re

from duckweed.dockerfile.words import read_list, split_keyword

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_LONGEST = 2**63 - 1
_FIELDS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def read_health(rest: str, flags: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The config's `Test`, and whether the command was a JSON list. Raises ValueError."""
    kind, command, _ = split_keyword(rest) if rest else ("", "", 0)
    kind = kind.upper()
    if not kind:
        raise ValueError("HEALTHCHECK requires at least one argument")
    if kind == "NONE":
        if command:
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return ["NONE"], False
    if kind != "CMD":
        raise ValueError(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    words = read_list(command)
    test = words if words is not None else [command] if command else []
    if not test:
        raise ValueError("Missing command after HEALTHCHECK CMD")
    settings(flags)
    return ["CMD" if words is not None else "CMD-SHELL", *test], words is not None


def settings(flags: Mapping[str, Any]) -> dict[str, int]:
    """The config's `Interval`, `Timeout`, ... and `Retries`, without those that are 0. Raises ValueError."""
    found: dict[str, int] = {}
    for name, field in _FIELDS.items():
        text = flags.get(name, "")
        value = parse_duration(text) if text else 0
        if value and value < 10**6:
            raise ValueError(f'Interval "{name}" cannot be less than 1ms')
        if value:
            found[field] = value
    text = flags.get("retries", "")
    if text:
        if not re.fullmatch(r"[+-]?\d{1,10}", text):
            raise ValueError(f"--retries is not a number: {text}")
        if int(text) < 0:
            raise ValueError(f"--retries cannot be negative ({text})")
        if int(text):
            found["Retries"] = int(text)
    return found


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises ValueError in Go's words."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    parts = _PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        missing = re.fullmatch(r"[\d.]+", body) is not None
        raise ValueError(
            f'time: missing unit in duration "{text}"' if missing else f'time: invalid duration "{text}"'
        )
    total = 0
    for number, unit in parts:
        whole, _, fraction = number.partition(".")
        scale = _NANOSECONDS[unit]
        total += int(whole or 0) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
    if total > _LONGEST:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text.startswith("-") else total
