"""Time stamps: Docker's spelling, and every spelling that images hold."""

from __future__ import annotations

import pytest

from duckweed.oci import timestamp


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-01-02T03:04:05.5Z", 1767323045.5),
        ("2026-01-02T03:04:05+01:00", 1767319445.0),
        ("2026-01-02T03:04:05-0130", 1767328445.0),
        ("2026-01-02", 1767312000.0),
        ("2026-01-02T03:04", 1767323040.0),
        ("0001-01-01T00:00:00Z", -62135596800.0),
        ("yesterday", None),
        ("2026-13-01", None),
        (None, None),
    ],
)
def test_stamp_is_read(stamp: object, seconds: float | None) -> None:
    assert timestamp.to_unix(stamp) == seconds


def test_nanoseconds_are_kept_in_writing() -> None:
    assert timestamp.from_unix_ns(1_767_323_045_000_000_007) == "2026-01-02T03:04:05.000000007Z"
