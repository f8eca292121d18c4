"""Forks, executions, threads, signals and renames at random; and what is left when somebody is killed in the middle of it.

`DUCKWEED_STRESS_SECONDS=1800` makes it a long one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run

SECONDS = int(os.environ.get("DUCKWEED_STRESS_SECONDS", "4"))


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, static and dynamic, in a directory of its own."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("stress")
    source = Path(__file__).parent / "stress.c"
    for name, flags in (("static", ["-static"]), ("dynamic", [])):
        words = ["cc", "-O1", "-pthread", *flags, "-o", str(directory / name), str(source)]
        subprocess.run(words, check=True)
    return directory


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_nothing_crashes_or_hangs(kind: str, pod: Run, stress: Path) -> None:
    seed = str(os.getpid())
    flags = ["--rm", "-v", f"{stress}:/stress:ro", "-w", "/tmp"]
    words = [f"/stress/{kind}", str(SECONDS), "3", seed]
    image = "users" if kind == "static" else "host"
    done = pod("run", *flags, image, *words, timeout=SECONDS + 100)
    assert done.stdout.startswith("ok ") and done.returncode == 0, (seed, done.stdout, done.stderr)
    assert int(done.stdout.split()[1]) > 10


def _marked(mark: str) -> list[int]:
    """Processes that have this in their environment, those of ours that cannot be looked into aside."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                found.append(int(entry))
        except OSError:
            pass
    return found


def _tracer(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    raise AssertionError("no such line")


def _until(what: Callable[[], bool], said: str) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


@pytest.mark.parametrize("victim", ["supervisor", "tracer", "both"])
def test_whoever_is_killed_the_whole_tree_goes(victim: str, pod: Run, stress: Path) -> None:
    mark = f"MARK={os.urandom(8).hex()}"
    flags = ["-d", "-e", mark, "-v", f"{stress}:/stress:ro", "-w", "/tmp"]
    name = pod("run", *flags, "users", "/stress/static", "60", "3", "1", check=True).stdout.strip()
    try:
        _until(lambda: len(_marked(mark)) > 3, "nothing runs")
        supervisor = json.loads(pod("inspect", name).stdout)[0]["Duckweed"]["SupervisorPid"]
        pid = json.loads(pod("inspect", name).stdout)[0]["State"]["Pid"]
        tracer = _tracer(pid)
        assert tracer > 0 and tracer != supervisor
        for pid in {"supervisor": [supervisor], "tracer": [tracer], "both": [tracer, supervisor]}[victim]:
            os.kill(pid, signal.SIGKILL)
        _until(lambda: not _marked(mark), "processes are left")
        _until(lambda: not os.path.exists(f"/proc/{tracer}") or _is_zombie(tracer), "the tracer is left")
        assert pod("inspect", "-f", "{{.State.Status}}", name).stdout == "exited\n"
    finally:
        pod("rm", "-f", name)


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_short_names_of_a_killed_tracer_are_taken_away_by_the_next(pod: Run) -> None:
    program = (
        "import os, socket, time; deep = '/tmp/' + 'd' * 90; os.makedirs(deep); "
        "s = socket.socket(socket.AF_UNIX); s.bind(deep + '/s'); print('bound', flush=True); time.sleep(100)"
    )
    name = pod("run", "-d", "host", "/usr/bin/python3", "-c", program, check=True).stdout.strip()
    try:
        _until(lambda: "bound" in pod("logs", name).stdout, "it does not bind")
        tracer = _tracer(json.loads(pod("inspect", name).stdout)[0]["State"]["Pid"])
        names = Path(f"/tmp/.duckweed-{os.geteuid()}-{tracer}")
        assert names.exists()
        pod("run", "--rm", "users", "true", check=True)
        assert names.exists()
        os.kill(tracer, signal.SIGKILL)
        _until(lambda: "exited" in pod("inspect", "-f", "{{.State.Status}}", name).stdout, "it does not end")
        pod("run", "--rm", "users", "true", check=True)
        _until(lambda: not names.exists(), "the names are left")
    finally:
        pod("rm", "-f", name)
