"""The json-file log: order, tails, times, and following it through rotation to its very last line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from duckweed.containers import logs
from duckweed.containers.logs import parse_tail, read_log
from duckweed.containers.quantities import rfc3339
from duckweed.errors import UsageError


def entry(text: str, second: int = 0, stream: str = "stdout") -> str:
    return (
        json.dumps({"log": text, "stream": stream, "time": rfc3339((1_700_000_000 + second) * 10**9)}) + "\n"
    )


def lines(path: Path, numbers: range) -> None:
    path.write_text("".join(entry(f"{n}\n", n) for n in numbers))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Nine lines over three files, oldest in `.2`."""
    path = tmp_path / "container.log"
    lines(tmp_path / "container.log.2", range(3))
    lines(tmp_path / "container.log.1", range(3, 6))
    lines(path, range(6, 9))
    return path


def read(path: Path, **options: object) -> str:
    return b" ".join(text.strip() for _, text in read_log(str(path), **options)).decode()  # type: ignore[arg-type]


def test_rotated_files_are_read_oldest_first(log: Path) -> None:
    assert read(log) == "0 1 2 3 4 5 6 7 8"


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "none.log") == ""


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, ""), (1, "8"), (3, "6 7 8"), (4, "5 6 7 8"), (9, "0 1 2 3 4 5 6 7 8"), (99, "0 1 2 3 4 5 6 7 8")],
)
def test_tail_counts_lines_across_files(log: Path, count: int, expected: str) -> None:
    assert read(log, tail=count) == expected


def test_tail_finds_lines_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    path.write_text(entry("a" * 200_000 + "\n") + entry("b" * 200_000 + "\n") + entry("c\n"))
    texts = [text for _, text in read_log(str(path), tail=2)]
    assert [(text[:1], len(text)) for text in texts] == [(b"b", 200_001), (b"c", 2)]


def test_since_and_until_are_inclusive_moments(log: Path) -> None:
    assert read(log, since="1700000003", until="1700000006") == "3 4 5 6"
    assert read(log, since=rfc3339(1_700_000_007 * 10**9)) == "7 8"


def test_timestamps_and_streams(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    path.write_text(entry("oops\n", 1, "stderr"))
    assert list(read_log(str(path), timestamps=True)) == [
        ("stderr", b"2023-11-14T22:13:21.000000000Z oops\n")
    ]


def test_a_torn_entry_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    path.write_text(entry("a\n") + '{"log":"torn\n' + entry("b\n") + '{"log":"half')
    assert read(path) == "a b"


def script(*steps: Callable[[], None]) -> Callable[[float], bool]:
    """A `wait` that does the next step each time it is called; false, for ever, once all are done."""
    remaining = list(steps)

    def wait(seconds: float) -> bool:
        assert 0 < seconds <= 0.1
        if not remaining:
            return False
        remaining.pop(0)()
        return bool(remaining)

    return wait


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def test_follow_reads_what_is_written_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    wait = script(
        lambda: append(path, entry("1\n")),
        lambda: append(path, entry("2\n")[:10]),
        lambda: append(path, entry("2\n")[10:] + entry("3\n")),
    )
    assert read(path, wait=wait) == "1 2 3"


def test_follow_survives_a_rotation_between_two_looks(log: Path) -> None:
    def rotate(text: str) -> None:
        for number in (2, 1):
            Path(f"{log}.{number}").replace(f"{log}.{number + 1}")
        log.replace(f"{log}.1")
        log.write_text(text)

    wait = script(
        lambda: (append(log, entry("last of the old\n")), rotate(entry("new\n")))[0],
        lambda: (rotate(entry("twice\n")), rotate(entry("at once\n")))[0],
        lambda: append(log, entry("end\n")),
    )
    assert read(log, tail=1, wait=wait) == "8 last of the old new twice at once end"


def test_a_rotation_while_files_are_opened_loses_none(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = logs.rotated_files

    def rotate_after_listing(path: str) -> list[str]:
        names = listed(path)
        if not (log.parent / "container.log.3").exists():
            for older in (2, 1):
                (log.parent / f"container.log.{older}").rename(log.parent / f"container.log.{older + 1}")
            log.rename(log.parent / "container.log.1")
            lines(log, range(9, 12))
        return names

    monkeypatch.setattr(logs, "rotated_files", rotate_after_listing)
    assert read(log) == " ".join(map(str, range(12)))


def test_follow_survives_a_log_of_one_file_that_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    path.write_text(entry("a long first line that fills the file\n"))
    wait = script(lambda: path.write_text(entry("b\n")) and None, lambda: append(path, entry("c\n")))
    assert read(path, tail=0, wait=wait) == "b c"


def test_tail_takes_numbers_and_all() -> None:
    assert [parse_tail(value) for value in ("all", None, "5", 0, "-1")] == [-1, -1, 5, 0, -1]
    with pytest.raises(UsageError):
        parse_tail("many")
