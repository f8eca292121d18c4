"""Which stores are run from, and where else."""

from __future__ import annotations

from errno import EACCES, EOPNOTSUPP, EPERM, errorcode
from pathlib import Path
from typing import Any

import pytest
from place_facts import good_place, refused

from duckweed.errors import Unsupported
from duckweed.host import doctor, running_place
from duckweed.host.facts import Facts

WITHOUT_OVERLAY = {"overlay": refused(EPERM), "overlay_lowerdir_add": refused(EPERM)}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Facts]:
    """The facts of directories by name; those not in here do not exist."""
    places: dict[str, Facts] = {}

    def attempt(root: str, directory: str, environ: Any) -> tuple[str, Facts] | None:
        return (directory + "/x", places[directory]) if directory in places else None

    monkeypatch.setattr(running_place, "_try", attempt)
    monkeypatch.setattr(running_place, "_is_kept", lambda directory: directory in places)
    return places


@pytest.mark.parametrize(("changes", "why"), [
    ({}, ""),
    ({"store_exec": refused(EACCES)}, "is mounted noexec (EACCES)"),
    ({"store_xattr": refused(EOPNOTSUPP)}, f"has no extended attributes ({errorcode[EOPNOTSUPP]})"),
    ({"store_whiteout": refused(EPERM)}, "cannot hold whiteouts (EPERM)"),
    ({"store_hardlink": refused(EPERM)}, "has no hard links (EPERM)"),
    ({"filesystem": {"type": "lustre"}}, "is on lustre"),
])  # fmt: skip
def test_what_a_store_lacks(changes: dict[str, Any], why: str) -> None:
    facts = good_place(**changes)
    assert running_place.why_not(facts) == why
    assert facts.holds_running == (why == "")


def test_a_good_store_is_run_from(elsewhere: dict[str, Facts]) -> None:
    elsewhere["/tmp"] = good_place()
    assert running_place.find("/store", good_place(), environ={}) is None


def test_the_first_good_directory_is_taken_tmpdir_before_all(elsewhere: dict[str, Facts]) -> None:
    poor = good_place(store_exec=refused(EACCES))
    elsewhere.update({"/tmp": poor, "/var/tmp": good_place(), "/dev/shm": good_place(), "/job": good_place()})
    for environ, expected in (
        ({}, "/var/tmp/x"),
        ({"TMPDIR": "/job"}, "/job/x"),
        ({"TMPDIR": "no"}, "/var/tmp/x"),
    ):
        found = running_place.find("/store", poor, environ=environ)
        assert found is not None and (found.path, found.is_for_layers) == (expected, True)
        assert "images stay there, running copies are in" in found.note


def test_a_full_directory_is_taken_when_there_is_no_other(elsewhere: dict[str, Facts]) -> None:
    poor = good_place(filesystem={"type": "nfs"})
    elsewhere["/tmp"] = good_place(filesystem={"free_bytes": 1000})
    assert (running_place.find("/store", poor, environ={}) or pytest.fail()).path == "/tmp/x"
    elsewhere["/dev/shm"] = good_place()
    assert (running_place.find("/store", poor, environ={}) or pytest.fail()).path == "/dev/shm/x"


def test_without_any_overlay_a_store_needs_programs_to_start_and_no_more(elsewhere: dict[str, Facts]) -> None:
    elsewhere["/tmp"] = good_place(**WITHOUT_OVERLAY)
    poor = good_place(store_xattr=refused(EOPNOTSUPP), **WITHOUT_OVERLAY)
    assert running_place.find("/store", poor, environ={}) is None
    poor = good_place(store_exec=refused(EACCES), **WITHOUT_OVERLAY)
    assert (running_place.find("/store", poor, environ={}) or pytest.fail()).path == "/tmp/x"


def test_what_was_asked_for_is_used_or_refused(elsewhere: dict[str, Facts]) -> None:
    elsewhere.update({"/mine": good_place(), "/noexec": good_place(store_exec=refused(EACCES))})
    found = running_place.find("/store", good_place(), "/mine", environ={})
    assert found is not None and (found.path, found.is_for_layers) == ("/mine/x", False)
    for directory in ("/noexec", "/missing"):
        with pytest.raises(Unsupported, match=f"cannot use the scratch directory `{directory}`"):
            running_place.find("/store", good_place(), directory, environ={})


def test_a_directory_where_others_could_move_ours_away_is_passed_over(tmp_path: Path) -> None:
    open_to_all, sticky = tmp_path / "open", tmp_path / "sticky"
    for path, mode in ((open_to_all, 0o777), (sticky, 0o1777)):
        path.mkdir()
        path.chmod(mode)
    assert [running_place._is_kept(str(path)) for path in (open_to_all, sticky, tmp_path)] == [
        False,
        True,
        True,
    ]
    assert not running_place._is_kept(str(tmp_path / "missing"))


def test_the_doctor_says_where_copies_run() -> None:
    facts = good_place(store_exec=refused(EACCES))
    assert doctor.report(facts)["status"] == 2
    facts.scratch = "/tmp/duckweed-1/x"
    report = doctor.report(facts)
    assert (
        report["status"] == 1 and "running copies" in report["text"] and "/tmp/duckweed-1/x" in report["text"]
    )
