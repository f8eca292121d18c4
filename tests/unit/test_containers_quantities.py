"""Sizes, durations, moments and the words of ps."""

from __future__ import annotations

import time

import pytest

from duckweed.containers.quantities import (
    human_duration,
    parse_duration,
    parse_moment,
    parse_rfc3339,
    parse_size,
    rfc3339,
)
from duckweed.containers.signals import parse_signal, signal_name
from duckweed.containers.state import State
from duckweed.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("1k", 1024), ("1.5kb", 1536), ("64m", 64 << 20), ("2 GiB", 2 << 30), (7, 7)],
)
def test_sizes_are_powers_of_1024(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1x", "m", "1 2", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5m", 90),
        ("100ms", 0.1),
        ("0", 0),
        ("5", None),
        ("x", None),
        ("", None),
    ],
)
def test_go_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_moments_are_dates_unix_seconds_or_durations_ago() -> None:
    assert parse_moment("2026-01-02T03:04:05Z") == 1767323045 * 10**9
    assert parse_moment("2026-01-02T04:04:05.25+01:00") == 1767323045 * 10**9 + 250_000_000
    assert parse_moment("1767323045.000000001") == 1767323045 * 10**9 + 1
    assert parse_moment("10m", now=1000.0) == 400 * 10**9
    with pytest.raises(UsageError, match="failed to parse value as time or duration"):
        parse_moment("yesterday")


def test_a_date_without_zone_is_local() -> None:
    assert parse_rfc3339("2026-01-02T03:04:05") == int(time.mktime((2026, 1, 2, 3, 4, 5, 0, 0, -1))) * 10**9


def test_rfc3339_has_nine_digits_and_reads_back() -> None:
    assert rfc3339(1767323045000000042) == "2026-01-02T03:04:05.000000042Z"
    assert parse_rfc3339(rfc3339(1767323045123456789)) == 1767323045123456789


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (180, "3 minutes"),
        (3600, "About an hour"),
        (3 * 3600, "3 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (15 * 86400, "2 weeks"),
        (70 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_are_told_in_dockers_words(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "number"),
    [("TERM", 15), ("sigkill", 9), (2, 2), ("10", 10), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_signals_have_names_and_numbers(value: str | int, number: int) -> None:
    assert parse_signal(value) == number


@pytest.mark.parametrize("value", ["", "0", "65", "SIGNOPE", "TERM+1", "RTMIN+99", "RTMIN+"])
def test_what_is_no_signal_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="invalid signal"):
        parse_signal(value)


def test_signal_names_agree_with_the_system() -> None:
    import signal

    for each in signal.Signals:
        if each < 32:
            assert parse_signal(each.name) == each
            assert parse_signal(signal_name(each)) == each


def test_status_words() -> None:
    def moment(ago_s: float) -> str:
        return rfc3339(time.time_ns() - int(ago_s * 1e9))

    exited = State(
        {"status": "exited", "exit_code": 3, "started_at": moment(500), "finished_at": moment(130)}
    )
    assert exited.words() == "Exited (3) 2 minutes ago"
    assert State({}).words() == "Created"


def test_a_running_state_is_not_believed_when_its_supervisor_is_gone() -> None:
    import os

    from duckweed import _core

    document = {
        "status": "running",
        "pid": 1,
        "host": os.uname().nodename,
        "boot_id": _core.boot_id(),
        "supervisor_pid": os.getpid(),
        "supervisor_start": _core.process_start(os.getpid()),
        "started_at": rfc3339(time.time_ns()),
    }
    assert State(document).running
    for lie in ({"supervisor_start": 1}, {"boot_id": "another"}, {"supervisor_pid": 2**22 - 1}):
        state = State({**document, **lie})
        assert (state.status, state.exit_code, state.pid, state.lost) == ("exited", 137, 0, True)
    elsewhere = State({**document, "host": "another", "boot_id": "another"})
    assert elsewhere.running and elsewhere.elsewhere == "another" and "(on another)" in elsewhere.words()
