"""Many at once, and sudden death: nothing is lost, nothing is left, nobody waits for a global lock."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

import duckweed
from conftest import Run, command, runner

START_MANY = """
import duckweed, sys
engine = duckweed.Engine()
made = [engine.containers.run("busybox", ["sh", "-c", "echo $HOSTNAME; sleep 100"]) for _ in range(int(sys.argv[1]))]
print(*(container.id for container in made))
"""


def left_behind(store: Path) -> dict[str, list[str]]:
    """Everything in the store that belongs to some container."""
    return {
        name: sorted(os.listdir(store / name))
        for name in ("containers", "names", "tmp")
        if (store / name).exists()
    }


def alive(marker: str) -> list[int]:
    """Processes of ours whose command line or environment names `marker`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_200_containers_from_16_processes_all_run_and_leave_nothing(fresh: Run, archives: Path) -> None:
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    store: Path = fresh.root  # type: ignore[attr-defined]
    share = [13] * 8 + [12] * 8
    env = {**os.environ, "DUCKWEED_ROOT": str(store)}
    interpreter = (
        command()[0]
        if command()[0].endswith("python")
        else os.path.join(os.path.dirname(command()[0]), "python")
    )
    starters = [
        subprocess.Popen(
            [interpreter, "-c", START_MANY, str(n)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in share
    ]
    ids: list[str] = []
    for starter in starters:
        out, err = starter.communicate(timeout=110)
        assert (starter.returncode, err) == (0, "")
        ids += out.split()
    assert len(set(ids)) == 200
    running = fresh("ps", "-q", "--no-trunc", check=True).stdout.split()
    assert sorted(running) == sorted(ids)
    sample = random.sample(ids, 10)
    assert all(fresh("logs", each).stdout.strip() == each[:12] for each in sample)
    fresh("rm", "-f", *ids, check=True, timeout=110)
    assert not any(left_behind(store).values())
    assert alive(str(store)) == []


def test_many_threads_run_ephemeral_containers(busybox: str, root: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    engine = duckweed.Engine(root=str(root))
    before = set(os.listdir(root / "containers"))
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: engine.run(busybox, ["echo", str(n)]), range(64)))
    assert [int(result.stdout) for result in results] == list(range(64))
    assert set(os.listdir(root / "containers")) <= before


def test_one_name_is_won_once(fresh: Run, archives: Path) -> None:
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    env = {**os.environ, "DUCKWEED_ROOT": str(fresh.root)}  # type: ignore[attr-defined]
    racers = [
        subprocess.Popen(
            [*command(), "create", "--name", "prize", "busybox", "true"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    outcomes = [(racer.communicate(timeout=60), racer.returncode) for racer in racers]
    assert sorted(code for _, code in outcomes) == [0] + [125] * 7
    assert all("already in use" in err for (_, err), code in outcomes if code == 125)
    assert len(fresh("ps", "-aq").stdout.split()) == 1


def consistent(run: Run, store: Path) -> None:
    """After one ordinary command the store is as if the dead had ended properly."""
    assert run("ps", "-a").returncode == 0
    assert run("images").returncode == 0
    states = json.loads("[" + ",".join(run("ps", "-a", "--format", "{{json .}}").stdout.splitlines()) + "]")
    assert not [row for row in states if row["State"] == "running"]
    assert run("run", "--rm", "busybox", "echo", "still works").stdout == "still works\n"
    for name in run("ps", "-aq").stdout.split():
        assert run("rm", "-f", name).returncode == 0
    leftovers = left_behind(store)
    assert not any(leftovers.values()), leftovers


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["client", "supervisor", "container"])
@pytest.mark.parametrize("rm", [True, False])
def test_kill_9_of_anyone_leaves_a_store_the_next_command_repairs(
    fresh: Run, archives: Path, victim: str, rm: bool
) -> None:
    store: Path = fresh.root  # type: ignore[attr-defined]
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    env = {**os.environ, "DUCKWEED_ROOT": str(store)}
    random.seed(7)
    for round_number in range(12):
        argv = [
            *command(),
            "run",
            *(["--rm"] if rm else []),
            "--name",
            f"victim{round_number}",
            "busybox",
            "sh",
            "-c",
            "echo up; sleep 60",
        ]
        client = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + random.uniform(0.0, 0.15)
        killed = False
        while not killed and time.monotonic() < deadline + 5:
            if time.monotonic() < deadline:
                continue
            killed = kill_one(victim, client, store)
        client.kill()
        client.wait()
        for pid in alive(str(store)):
            os.kill(pid, signal.SIGKILL)
    consistent(fresh, store)


def kill_one(victim: str, client: subprocess.Popen[bytes], store: Path) -> bool:
    """Kills the named party of the only running container; False when it is not there yet."""
    if victim == "client":
        client.kill()
        return True
    for state in store.glob("containers/*/state.json"):
        try:
            facts = json.loads(state.read_text())
            if facts["status"] == "running":
                os.kill(facts["supervisor_pid" if victim == "supervisor" else "pid"], signal.SIGKILL)
                return True
        except (OSError, ValueError):
            continue
    return client.poll() is not None


@pytest.mark.slow
def test_kill_9_during_load_leaves_nothing_and_the_next_load_works(fresh: Run, archives: Path) -> None:
    store: Path = fresh.root  # type: ignore[attr-defined]
    env = {**os.environ, "DUCKWEED_ROOT": str(store)}
    random.seed(11)
    for _ in range(15):
        loader = subprocess.Popen(
            [*command(), "load", "-q", "-i", str(archives / "busybox.tar")],
            env=env,
            stdout=subprocess.DEVNULL,
        )
        try:
            loader.wait(random.uniform(0.03, 0.25))
        except subprocess.TimeoutExpired:
            loader.kill()
            loader.wait()
    assert fresh("load", "-i", str(archives / "busybox.tar")).returncode == 0
    consistent(fresh, store)


def test_a_container_outlives_its_client_s_death(duckweed: Run, busybox: str, root: Path) -> None:
    client = subprocess.Popen(
        [*command(), "run", "--name", "orphan", busybox, "sh", "-c", "echo up; sleep 50"],
        env={**os.environ, "DUCKWEED_ROOT": str(root)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert client.stdout is not None
    with client.stdout as out:
        assert out.readline() == b"up\n"
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    assert duckweed("ps", "-q", "--filter", "name=orphan").stdout.strip()
    assert duckweed("logs", "orphan").stdout == "up\n"
    assert duckweed("rm", "-f", "orphan").returncode == 0


def test_runner_and_engine_agree_on_the_store(root: Path, busybox: str) -> None:
    names = {tag for image in duckweed.Engine(root=str(root)).images.list() for tag in image.tags}
    assert any(tag.startswith("busybox") for tag in names)
    assert "busybox" in runner(root)("images").stdout
