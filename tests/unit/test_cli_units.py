"""Sizes, ages and times in Docker's words; the expected texts are those of Docker's client 28.2."""

from __future__ import annotations

import calendar
import time

import pytest

from duckweed.cli.units import human_duration, human_size, human_size_binary, unix_time

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60, "59 minutes"),
        (HOUR, "About an hour"),
        (1.4 * HOUR, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_ages_have_one_unit(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "digits", "text"),
    [
        (0, 4, "0B"),
        (999, 4, "999B"),
        (1000, 4, "1kB"),
        (1234567, 4, "1.235MB"),
        (4433221, 3, "4.43MB"),
        (117999000, 3, "118MB"),
    ],
)
def test_sizes_are_decimal(size: int, digits: int, text: str) -> None:
    assert human_size(size, digits) == text


def test_memory_is_binary() -> None:
    assert human_size_binary(8_000_000_000) == "7.451GiB"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951825600),
        ("2026-01-02T03:04:05.5Z", 1767323045.5),
        ("2026-01-02T03:04:05.123456789+01:30", 1767323045.123456789 - 5400),
        ("2026-01-02T03:04:05-05:00", 1767323045 + 18000),
        ("0001-01-01T00:00:00Z", -62135596800),
        ("nonsense", 0),
        (12, 12),
    ],
)
def test_rfc_3339_is_read_to_the_fraction(text: str | float, seconds: float) -> None:
    assert unix_time(text) == pytest.approx(seconds, abs=1e-6)


def test_days_agree_with_the_calendar_for_two_centuries() -> None:
    for day in range(-36525, 36525, 37):
        moment = time.gmtime(day * DAY)
        assert unix_time(time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)) == calendar.timegm(moment)
