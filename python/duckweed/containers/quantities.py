"""Sizes, durations and moments as people type them, and back into the words that `ps` shows.

Docker takes its sizes from go-units (`64m`, `1.5GB`, always powers of 1024 for memory), its durations from Go
(`1h30m`) and its moments from either of RFC 3339, unix seconds or a duration before now.
"""

from __future__ import annotations

import re
import time

from duckweed.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?([kKmMgGtTpP])?([iI]?[bB])?\Z")
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?)?(Z|[+-]\d\d:\d\d)?\Z"
)


def parse_size(text: str | int | float, flag: str = "") -> int:
    """Bytes of `64m`, `1.5g`, `512` ...; a number is bytes already.

    >>> parse_size("64m")
    67108864
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if text < 0:
            raise UsageError(_about(flag, text, f"invalid size: '{text}'"))
        return int(text)
    match = _SIZE.match(str(text).strip())
    if match is None:
        raise UsageError(
            _about(flag, text, f"invalid size: '{text}'"), "write a number with a unit, such as `64m` or `1g`"
        )
    return int(float(match.group(1)) * 1024 ** _POWER[(match.group(2) or "").lower()])


def _about(flag: str, value: object, message: str) -> str:
    return f'invalid argument "{value}" for "--{flag}" flag: {message}' if flag else message


def parse_duration(text: str) -> float | None:
    """Seconds of a Go duration such as `1h30m` or `1.5s`; `None` when it is not one."""
    body = text[1:] if text[:1] in "+-" and text else text
    total, at = 0.0, 0
    for match in _DURATION.finditer(body):
        if match.start() != at:
            return None
        total += float(match.group(1)) * _SECONDS[match.group(2)]
        at = match.end()
    if at != len(body) or not body:
        return 0.0 if body == "0" else None
    return -total if text[0] == "-" else total


def parse_moment(text: str | int | float, now: float | None = None) -> int:
    """Nanoseconds since 1970 of an RFC 3339 date, unix seconds (`1700000000.5`) or a duration before `now`.

    A date without a zone is local time, as in Docker.
    """
    if isinstance(text, (int, float)):
        return int(text * 1_000_000_000)
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])
    duration = parse_duration(text)
    if duration is not None:
        return int(((time.time() if now is None else now) - duration) * 1_000_000_000)
    moment = parse_rfc3339(text)
    if moment is None:
        raise UsageError(
            f'failed to parse value as time or duration: "{text}"',
            "write a date such as `2026-01-02T03:04:05Z`, unix seconds, or a duration such as `10m`",
        )
    return moment


def parse_rfc3339(text: str) -> int | None:
    """Nanoseconds since 1970, or `None` when `text` is not such a date."""
    match = _RFC3339.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    fields = (int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    if not (
        1 <= fields[1] <= 12 and 1 <= fields[2] <= 31 and fields[3] < 24 and fields[4] < 60 and fields[5] < 61
    ):
        return None
    if zone is None:
        seconds = int(time.mktime((*fields, 0, 0, -1)))
    else:
        import calendar

        seconds = calendar.timegm((*fields, 0, 0, 0))
        if zone != "Z":
            offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
            seconds -= offset if zone[0] == "+" else -offset
    return seconds * 1_000_000_000 + int(((fraction or "") + "000000000")[:9])


def rfc3339(nanoseconds: int) -> str:
    """The moment in UTC with nine digits, as the log and `inspect` write it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    parts = time.gmtime(seconds)
    return (
        f"{parts.tm_year:04d}-{parts.tm_mon:02d}-{parts.tm_mday:02d}"
        f"T{parts.tm_hour:02d}:{parts.tm_min:02d}:{parts.tm_sec:02d}.{rest:09d}Z"
    )


def human_duration(seconds: float) -> str:
    """`Less than a second`, `5 seconds`, `About a minute`, `3 hours` ...: go-units' words.

    >>> human_duration(200)
    '3 minutes'
    """
    whole = int(seconds)
    minutes = whole // 60
    hours = int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600 / 24 / 365)} years"
