"""RFC 3339 time stamps with nanoseconds, as Docker writes them."""

from __future__ import annotations

import re
import time

_STAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?([Zz]|[+-]\d\d:?\d\d)?\Z"
)
NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: what Docker shows for a time that is not known."""


def now() -> str:
    """The time now, UTC."""
    return from_unix_ns(time.time_ns())


def from_unix_ns(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as `2026-01-02T03:04:05.123456789Z`."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{fraction:09d}Z"


def to_unix(stamp: object) -> float | None:
    """Seconds since 1970; None for what is no time stamp. A stamp without a zone is UTC."""
    match = _STAMP.match(stamp) if isinstance(stamp, str) else None
    if not match:
        return None
    import calendar

    year, month, day, hour, minute, second, fraction, zone = match.groups()
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    parts = (int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    try:
        seconds = calendar.timegm((*parts, 0, 0, 0)) + float(fraction or 0)
    except (ValueError, OverflowError):  # year 0000
        return None
    if zone and zone not in "Zz":
        offset = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds
