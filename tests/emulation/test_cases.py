"""The table of system calls in cases.c, as root of many real ids and as root of one: the same answers, line by line."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Run, runner

HERE = Path(__file__).parent

#: Checks whose answers differ, each with the reason. Nothing else may.
DIFFERENCES = {
    "devices.": "a user namespace refuses device nodes; emulated ones are remembered, and /dev/null's works",
    "chown_fd.o_path": "which descriptors are O_PATH is not looked at: one more read of /proc at every fchown",
}


def compiled(source: str, place: Path) -> Path:
    """A guest program, static."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    program = place / source.removesuffix(".c")
    command = [compiler, "-O1", "-w", "-static", "-pthread", "-o", str(program), str(HERE / source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot compile a static program here: {done.stderr[-200:]}")
    return program


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest program with the table."""
    return compiled("cases.c", tmp_path_factory.mktemp("cases"))


def answers(run: Run, program: Path, *flags: str) -> dict[str, str]:
    """Every check's answer, by its name; a name that comes twice gets a number."""
    done = run("run", "--rm", *flags, "-v", f"{program}:/cases:ro", "busybox", "/cases", timeout=120)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(": ")
        found[f"{name}#{sum(each.partition('#')[0] == name for each in found)}"] = value
    return found


def differences(real: dict[str, str], emulated: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Checks that do not agree and are not listed."""
    names = [*real, *(name for name in emulated if name not in real)]
    return {
        name: (real.get(name), emulated.get(name))
        for name in names
        if real.get(name) != emulated.get(name) and not name.startswith(tuple(DIFFERENCES))
    }


@pytest.fixture
def one(root: Path, archives: Path) -> Run:
    """A runner that has one uid, busybox loaded."""
    run = runner(root, {"DUCKWEED_PRETEND": "no-subid"})
    run("load", "-i", str(archives / "busybox.tar"), check=True)
    return run


@pytest.fixture
def many(root: Path, busybox: str) -> Run:
    """A runner whose containers have many real ids."""
    run = runner(root)
    if json.loads(run("info", "--format", "json").stdout)["IdMap"] != "full":
        pytest.skip("this account has no subordinate ids to compare with")
    return run


def test_every_check_answers_as_with_real_ids(many: Run, one: Run, cases: Path) -> None:
    real = answers(many, cases, "--security-opt", "no-new-privileges=false")
    emulated = answers(one, cases)
    assert len(real) > 300
    assert differences(real, emulated) == {}


def test_the_table_notices_when_nothing_is_emulated(one: Run, cases: Path) -> None:
    emulated, alone = answers(one, cases), answers(one, cases, "--root-emulation", "off")
    assert len(differences(emulated, alone)) > 100


def said(run: Run, program: Path, words: list[str], *flags: str) -> list[str]:
    """The lines of random.c."""
    return run(
        *("run", "--rm", *flags, "-v", f"{program}:/random:ro", "busybox", "/random", *words), check=True
    ).stdout.splitlines()


@pytest.mark.parametrize("who", ["root", "users"])
def test_random_calls_answer_as_with_real_ids(many: Run, one: Run, tmp_path: Path, who: str) -> None:
    program = compiled("random.c", tmp_path)
    for seed in (7, 11, 13, random.randrange(1 << 32)):
        words = [str(seed), "4000", *(["root"] if who == "root" else [])]
        real = said(many, program, words)
        assert real == said(one, program, words), f"random {' '.join(words)}"
        assert any(":1001" in line for line in real)


@pytest.mark.parametrize("who", ["root", "users"])
def test_random_calls_answer_so_without_namespaces(many: Run, one: Run, tmp_path: Path, who: str) -> None:
    program = compiled("random.c", tmp_path)
    for seed in (7, 11, random.randrange(1 << 32)):
        # To the kernel all files are the tracer's, which must get through.
        words = [str(seed), "2500", *(["root"] if who == "root" else []), "kept"]
        trapped = said(one, program, words, "--isolation", "trap")
        assert said(many, program, words) == trapped, f"random {' '.join(words)}"
