"""The probe's cache, with a helper of our own that counts its runs, and the real helper once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from place_facts import good_place

from duckweed.errors import StoreError
from duckweed.host import facts, probe


@pytest.fixture
def helper(tmp_path: Path) -> Path:
    """A helper that says a good place and adds a line to `runs` each time."""
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(good_place().document))
    path = tmp_path / "helper"
    path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/runs\nexec cat {answer}\n')
    path.chmod(0o755)
    return path


def runs(helper: Path) -> int:
    return len((helper.parent / "runs").read_text().splitlines())


def test_the_second_time_nothing_is_run(tmp_path: Path, helper: Path) -> None:
    first = facts(str(tmp_path / "store"), str(helper), environ={})
    second = facts(str(tmp_path / "store"), str(helper), environ={})
    assert runs(helper) == 1
    assert first.document == second.document


def test_a_new_helper_another_store_and_fresh_are_probed_anew(tmp_path: Path, helper: Path) -> None:
    facts(str(tmp_path / "store"), str(helper), environ={})
    os.utime(helper, (1, 1))
    facts(str(tmp_path / "store"), str(helper), environ={})
    assert runs(helper) == 2
    facts(str(tmp_path / "other"), str(helper), environ={})
    assert runs(helper) == 3
    facts(str(tmp_path / "store"), str(helper), fresh=True, environ={})
    assert runs(helper) == 4


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": "another"}'])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, helper: Path, damage: str) -> None:
    facts(str(tmp_path / "store"), str(helper), environ={})
    (file,) = (tmp_path / "store/cache").iterdir()
    file.write_text(damage)
    assert facts(str(tmp_path / "store"), str(helper), environ={}).ok("userns")
    assert runs(helper) == 2


def test_caches_of_earlier_boots_go_when_a_new_one_is_written(tmp_path: Path, helper: Path) -> None:
    cache = tmp_path / "store/cache"
    cache.mkdir(parents=True)
    (cache / "probe-11111111-2222-3333-4444-555555555555-0badcafe.json").write_text("{}")
    (cache / "something-else").write_text("stays")
    facts(str(tmp_path / "store"), str(helper), environ={})
    names = sorted(path.name for path in cache.iterdir())
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(names) == 2 and names[0].startswith(f"probe-{boot_id}-") and names[1] == "something-else"


def test_what_is_pretended_is_not_remembered(tmp_path: Path, helper: Path) -> None:
    poor = facts(str(tmp_path / "store"), str(helper), environ={"DUCKWEED_PRETEND": "no-tun"})
    assert not poor.ok("tun")
    assert facts(str(tmp_path / "store"), str(helper), environ={}).ok("tun")
    assert runs(helper) == 1


def test_a_store_that_cannot_be_written_costs_only_the_cache(tmp_path: Path, helper: Path) -> None:
    assert facts("/proc/no-store", str(helper), environ={}).ok("userns")


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho no json\n", "#!/bin/sh\necho []\n"]
)
def test_a_helper_that_fails_is_one_line(tmp_path: Path, helper: Path, script: str) -> None:
    helper.write_text(script)
    with pytest.raises(StoreError, match="cannot probe") as caught:
        facts(str(tmp_path / "store"), str(helper), environ={})
    assert "\n" not in caught.value.message


def test_a_missing_helper_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot probe"):
        facts(str(tmp_path / "store"), str(tmp_path / "none"), environ={})


def test_the_real_helper_answers_everything_the_doctor_asks(tmp_path: Path) -> None:
    if not os.path.exists(probe.RUNTIME):
        pytest.skip("the runtime helper is not built")
    from duckweed.host import doctor

    here = facts(str(tmp_path), environ={})
    assert set(good_place().document["facts"]) <= set(here.document["facts"])
    assert doctor.report(here)["status"] in (0, 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
