"""Where subordinate ids come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from duckweed.host import subid
from duckweed.host.subid import Found, Range


def test_files_are_read_by_name_and_by_number_and_bad_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("ann:100:70000\n1000:900000:65536\nbob:1:2\nann:x:1\nann:5\n# ann:1:1\n\n")
    assert subid.read_file(str(file), "ann", 1000) == [Range(100, 70000), Range(900000, 65536)]
    assert subid.read_file(str(tmp_path / "none"), "ann", 1000) == []


def test_getsubids_output_is_read() -> None:
    assert subid.parse_program("0: duck 100000 65536\n1: duck 300000 10\n") == [
        Range(100000, 65536),
        Range(300000, 10),
    ]
    assert subid.parse_program("Error fetching ranges\n") == []


def test_the_longest_range_comes_first_and_short_ones_are_dropped() -> None:
    found = Found([Range(1, 65536), Range(9, 100), Range(5, 70000)], [Range(2, 65536)], "files")
    assert found.uids == [Range(5, 70000), Range(1, 65536)]
    assert found.short == 0


def test_the_shorter_side_decides_what_is_short() -> None:
    found = Found([Range(1, 65536)], [Range(2, 1000)], "files")
    assert (found.short, found.gids) == (1000, [])
    assert Found([], [], "none").short == 0


class Library:
    """libsubid as its Protocol promises it."""

    def __init__(self, ranges: list[Range] | None) -> None:
        self.ranges = ranges

    def uid_ranges(self, owner: str) -> list[Range] | None:
        return self.ranges

    def gid_ranges(self, owner: str) -> list[Range] | None:
        return self.ranges


def test_the_library_is_asked_first_then_the_program_then_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subid, "load", lambda: Library([Range(1, 65536)]))
    monkeypatch.setattr(subid, "_program", lambda name, options: [Range(2, 65536)])
    monkeypatch.setattr(subid, "read_file", lambda path, name, uid: [Range(3, 65536)])
    assert subid.find("ann", 1).source == "libsubid"
    monkeypatch.setattr(subid, "load", lambda: Library(None))
    assert (subid.find("ann", 1).source, subid.find("ann", 1).uids) == ("getsubids", [Range(2, 65536)])
    monkeypatch.setattr(subid, "load", lambda: None)
    monkeypatch.setattr(subid, "_program", lambda name, options: [])
    assert (subid.find("ann", 1).source, subid.find("ann", 1).uids) == ("files", [Range(3, 65536)])


def test_the_real_library_agrees_with_the_files_for_every_account_in_them() -> None:
    library = subid.load()
    if library is None:
        pytest.skip("no libsubid here, or no cffi")
    try:
        owners = [line.split(":")[0] for line in Path("/etc/subuid").read_text().splitlines() if line.strip()]
    except OSError:
        pytest.skip("no /etc/subuid here")
    for owner in owners:
        assert library.uid_ranges(owner) == subid.read_file("/etc/subuid", owner, -1)
    assert not library.uid_ranges("nobody-of-this-name")
