"""Packages installed under a range of ids and under one leave the same image: every tar header but for times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Run, runner
from emulation import same_image

HERE = Path(__file__).parent


def test_packages_leave_the_same_image_under_one_id_as_under_a_range(root: Path, debian: str) -> None:
    many, one = runner(root), runner(root, {"DUCKWEED_PRETEND": "no-subid"})

    def image(run: Run) -> dict[str, same_image.Facts]:
        def duckweed(*words: str) -> str:
            done = run(*words, timeout=300)
            assert done.returncode == 0, f"duckweed {' '.join(words)}\n{done.stdout}{done.stderr}"
            return done.stdout

        flags = ["--security-opt", "no-new-privileges=false"]
        return same_image.image_after(duckweed, debian, HERE / "local_packages.sh", *flags)

    emulated = image(one)
    assert emulated["var/lib/crew/spool"]["owner"] == "420:420"
    assert "SCHILY.xattr.security.capability" in str(emulated["usr/lib/crew/raw"]["attributes"])
    if json.loads(many("info", "--format", "json").stdout)["IdMap"] != "full":
        pytest.skip(
            "this account has no subordinate ids to compare with; under one id all was as it should be"
        )
    assert same_image.differences(image(many), emulated) == []
