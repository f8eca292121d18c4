"""Sizes and ages as Docker prints them (go-units): decimal units, three or four digits, one unit of time."""

from __future__ import annotations

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_DAY_H = 24


def human_size(size_bytes: float, digits: int = 4) -> str:
    """
    >>> human_size(4433221, 3)
    '4.43MB'
    """
    return _scaled(size_bytes, digits, 1000.0, _DECIMAL)


def human_size_binary(size_bytes: float) -> str:
    """
    >>> human_size_binary(8000000000)
    '7.451GiB'
    """
    return _scaled(size_bytes, 4, 1024.0, _BINARY)


def _scaled(size: float, digits: int, base: float, units: tuple[str, ...]) -> str:
    unit = 0
    size = float(size)
    while size >= base and unit < len(units) - 1:
        size /= base
        unit += 1
    return f"{size:.{digits}g}{units[unit]}"


def human_duration(seconds: float) -> str:
    """
    >>> human_duration(100)
    'About a minute'
    """
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit_h, unit_h, name in (
        (48, 1, "hours"),
        (_DAY_H * 7 * 2, _DAY_H, "days"),
        (_DAY_H * 30 * 2, _DAY_H * 7, "weeks"),
        (_DAY_H * 365 * 2, _DAY_H * 30, "months"),
    ):
        if hours < limit_h:
            return f"{hours // unit_h} {name}"
    return f"{int(seconds / 3600) // (_DAY_H * 365)} years"


def unix_time(moment: str | float) -> float:
    """Seconds since 1970 of a number or of an RFC 3339 text; 0 when it is neither.

    By hand, for `datetime` costs 4 ms to import, and before Python 3.11 reads neither `Z` nor nanoseconds.
    """
    if not isinstance(moment, str):
        return float(moment)
    try:
        year, month, day = int(moment[:4]), int(moment[5:7]), int(moment[8:10])
        hour, minute, second = int(moment[11:13]), int(moment[14:16]), int(moment[17:19])
        tail = moment[19:]
        zone = tail.lstrip(".0123456789")
        fraction = float("0" + tail[: len(tail) - len(zone)]) if len(zone) < len(tail) else 0.0
        offset = 0 if zone in ("", "Z", "z") else int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    except ValueError:
        return 0.0
    days = _days_from_civil(year, month, day)
    return (
        days * 86400
        + hour * 3600
        + minute * 60
        + second
        + fraction
        - (-offset if zone[:1] == "-" else offset)
    )


def _days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01; years are counted from March so that the leap day comes last."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
