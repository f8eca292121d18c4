"""`build --call`: what a Dockerfile has to say, without building it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Run

TEXT = """\
# VERSION is what is built
ARG VERSION=1
# tools has the compiler
FROM busybox AS tools
ARG JOBS=${VERSION}0
RUN --mount=type=secret,id=token,required --mount=type=cache,target=/c --mount=type=ssh true
FROM nothing.invalid/unused AS unused
ARG NEVER=1
# final is what is shipped
FROM scratch AS final
ARG VERSION
COPY --from=tools /x /x
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A context with the Dockerfile."""
    (tmp_path / "Dockerfile").write_text(TEXT)
    return str(tmp_path)


def test_targets(place: str, duckweed: Run) -> None:
    done = duckweed("build", "--call=targets", place, check=True)
    assert done.stdout.splitlines() == [
        "TARGET            DESCRIPTION",
        "tools             has the compiler",
        "unused",
        "final (default)   is what is shipped",
    ]
    document = json.loads(duckweed("build", "--call=targets,format=json", place, check=True).stdout)
    assert document["targets"][2]["default"] is True
    assert document["targets"][0]["base"] == "busybox"


def test_outline_is_of_what_the_target_needs(place: str, duckweed: Run) -> None:
    done = duckweed("build", "--call=outline", "--build-arg=VERSION=7", place, check=True)
    assert done.stdout == (
        "TARGET:        final\nDESCRIPTION:   is what is shipped\n"
        "\nBUILD ARG   VALUE   DESCRIPTION\nVERSION     7       is what is built\nJOBS        70\n"
        "\nSECRET   REQUIRED\ntoken    true\n"
        "\nSSH       REQUIRED\ndefault\n"
        "\nCACHE MOUNT\n/c\n"
    )
    document = json.loads(
        duckweed("build", "--call=outline,format=json", "--target=unused", place, check=True).stdout
    )
    assert [one["name"] for one in document["args"]] == ["VERSION", "NEVER"]
    assert document["args"][1]["location"]["ranges"][0]["start"]["line"] == 8


def test_check_as_json(tmp_path: Path, duckweed: Run) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nMAINTAINER me\n")
    done = duckweed("build", "--call=check,format=json", str(tmp_path))
    (warning,) = json.loads(done.stdout)["warnings"]
    assert (done.returncode, warning["ruleName"]) == (1, "MaintainerDeprecated")
    assert warning["location"]["ranges"][0]["start"]["line"] == 2


@pytest.mark.parametrize("call", ["nothing", "outline,format=xml", "targets,x"])
def test_unknown_calls(call: str, place: str, duckweed: Run) -> None:
    done = duckweed("build", f"--call={call}", place)
    assert done.returncode == 1
    assert done.stderr.startswith("duckweed: unknown")
