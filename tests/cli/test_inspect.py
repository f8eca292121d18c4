"""`inspect`, `info`, `version`, `doctor`: what is known, for people and for programs."""

from __future__ import annotations

import json

import pytest

from conftest import Run


def test_inspect_finds_containers_before_images(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name, "-e", "A=1", busybox, "true", check=True)
    (facts,) = json.loads(duckweed("inspect", name).stdout)
    assert (facts["Name"], facts["State"]["Status"], facts["Path"]) == (f"/{name}", "created", "true")
    assert "A=1" in facts["Config"]["Env"]
    (image,) = json.loads(duckweed("inspect", busybox).stdout)
    assert image["RepoTags"] == ["busybox:latest"]


def test_type_looks_nowhere_else(duckweed: Run, busybox: str) -> None:
    assert duckweed("inspect", "--type", "image", busybox).returncode == 0
    done = duckweed("inspect", "--type", "container", busybox)
    assert (done.stdout, done.returncode) == ("[]\n", 1)
    assert duckweed("inspect", "--type", "nonsense", busybox).returncode == 1


def test_templates_reach_into_the_facts(duckweed: Run, busybox: str) -> None:
    done = duckweed("inspect", "-f", "{{.Os}} {{json .Config.Cmd}} {{index .RepoTags 0}}", busybox)
    assert done.stdout == 'linux ["/bin/sh"] busybox:latest\n'


@pytest.mark.parametrize(("template", "code"), [("{{.Nonsense}}", 1), ("{{.Os", 64)])
def test_a_bad_template_is_told_with_dockers_codes(
    duckweed: Run, busybox: str, template: str, code: int
) -> None:
    done = duckweed("inspect", "-f", template, busybox)
    assert (done.returncode, "template parsing error: " in done.stderr) == (code, True)


def test_what_is_found_is_shown_though_something_is_missing(duckweed: Run, busybox: str) -> None:
    done = duckweed("inspect", "nobody", busybox)
    assert len(json.loads(done.stdout)) == 1
    assert (done.stderr, done.returncode) == ("Error: No such object: nobody\n", 1)


def test_s_adds_sizes(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name, busybox, check=True)
    (facts,) = json.loads(duckweed("inspect", "-s", name).stdout)
    assert facts["SizeRootFs"] > facts["SizeRw"] >= 0


def test_info_for_people_and_programs(duckweed: Run, busybox: str) -> None:
    lines = duckweed("info", check=True).stdout.splitlines()
    assert any(line.startswith("Containers: ") for line in lines)
    assert int(duckweed("info", "-f", "{{.Images}}").stdout) >= 1
    assert json.loads(duckweed("system", "info", "--format", "json").stdout)["OSType"] == "linux"


def test_version_for_people_and_programs(duckweed: Run) -> None:
    import duckweed as package

    assert package.__version__ in duckweed("version").stdout
    assert duckweed("--version").stdout == f"duckweed version {package.__version__}\n"
    assert json.loads(duckweed("version", "--format", "json").stdout)


def test_doctor_is_text_or_json_and_its_code_says_how_it_is(duckweed: Run) -> None:
    told = duckweed("doctor")
    assert told.returncode in (0, 1)
    assert told.stdout
    assert json.loads(duckweed("doctor", "--json").stdout)


def test_doctor_says_when_containers_cannot_run(duckweed: Run) -> None:
    done = duckweed("doctor", env={"DUCKWEED_PRETEND": "no-userns,no-ptrace"})
    assert done.returncode == 2
    assert "user namespace" in done.stdout
