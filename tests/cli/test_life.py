"""`create`, `start`, `stop`, `kill`, `restart`, `wait`, `rename`, `rm`, `attach`, `container prune`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cli.conftest import Start
from conftest import Run, command


def state(duckweed: Run, name: str) -> str:
    return duckweed("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()


def test_created_started_and_waited_for(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name, busybox, "sh", "-c", "exit 5", check=True)
    assert state(duckweed, name) == "created 0"
    assert duckweed("start", name).stdout == f"{name}\n"
    assert duckweed("wait", name).stdout == "5\n"
    assert state(duckweed, name) == "exited 5"


def test_start_a_shows_the_output_and_has_the_code(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name, busybox, "sh", "-c", "echo hello; exit 6", check=True)
    done = duckweed("start", "-a", name)
    assert (done.stdout, done.returncode) == ("hello\n", 6)


def test_start_ai_passes_stdin(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "-i", "--name", name, busybox, "cat", check=True)
    assert duckweed("start", "-ai", name, input="again\n").stdout == "again\n"


def test_stop_asks_first(duckweed: Run, start: Start) -> None:
    polite = start("sh", "-c", "trap 'exit 11' TERM; while :; do sleep 0.05; done")
    assert duckweed("stop", "-t", "10", polite).stdout == f"{polite}\n"
    assert state(duckweed, polite) == "exited 11"


def test_stop_kills_who_does_not_listen(duckweed: Run, start: Start) -> None:
    deaf = start("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    duckweed("stop", "--time=0", deaf, check=True)
    assert state(duckweed, deaf) == "exited 137"


def test_kill_sends_any_signal(duckweed: Run, start: Start) -> None:
    name = start("sh", "-c", "trap 'exit 12' USR1; while :; do sleep 0.05; done")
    duckweed("kill", "-s", "USR1", name, check=True)
    assert duckweed("wait", name).stdout == "12\n"
    again = duckweed("kill", name)
    assert (again.returncode, "is not running" in again.stderr) == (1, True)


def test_restart_is_the_same_container_anew(duckweed: Run, start: Start) -> None:
    name = start("sh", "-c", "echo up; touch /kept; ls / | grep -c kept; exec sleep 100")
    before = duckweed("inspect", "-f", "{{.State.Pid}}", name).stdout
    assert duckweed("restart", "-t", "0", name).stdout == f"{name}\n"
    assert duckweed("inspect", "-f", "{{.State.Pid}}", name).stdout != before
    assert state(duckweed, name).startswith("running")


def test_names_that_fail_do_not_stop_the_others(duckweed: Run, start: Start) -> None:
    name = start("sleep", "100")
    done = duckweed("stop", "-t", "0", "nobody", name)
    assert (done.stdout, done.returncode) == (f"{name}\n", 1)
    assert done.stderr.startswith("Error: No such container: nobody\n")


def test_rename_moves_the_name(duckweed: Run, busybox: str, name: str) -> None:
    duckweed("create", "--name", name + "x", busybox, check=True)
    duckweed("rename", name + "x", name, check=True)
    assert duckweed("inspect", "-f", "{{.Name}}", name).stdout == f"/{name}\n"
    assert duckweed("inspect", name + "x").returncode == 1


def test_rm_wants_force_for_a_running_one(duckweed: Run, start: Start) -> None:
    name = start("sleep", "100")
    refused = duckweed("rm", name)
    assert (refused.returncode, refused.stderr.startswith("Error: ")) == (1, True)
    assert duckweed("rm", "-f", name).stdout == f"{name}\n"
    assert duckweed("inspect", name).returncode == 1


def test_rm_f_forgives_a_missing_one(duckweed: Run) -> None:
    assert duckweed("rm", "-f", "nobody").returncode == 0
    assert duckweed("rm", "nobody").stderr.startswith("Error: No such container: nobody\n")


def test_attach_joins_the_output(root: Path, duckweed: Run, start: Start) -> None:
    name = start("sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; echo seen; exit 8")
    env = {**os.environ, "DUCKWEED_ROOT": str(root)}
    joined = subprocess.Popen([*command(), "attach", name], stdout=subprocess.PIPE, text=True, env=env)
    duckweed("exec", name, "sh", "-c", "sleep 0.5; touch /go", check=True)
    assert joined.communicate(timeout=20)[0] == "seen\n"
    assert joined.returncode == 8


def test_top_lists_its_processes(duckweed: Run, start: Start) -> None:
    name = start("sleep", "100")
    header, line = duckweed("top", name).stdout.splitlines()
    assert "PID" in header.split()
    assert line.endswith("sleep 100")


def test_prune_removes_what_is_stopped(fresh: Run, archives: Path) -> None:
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    fresh("run", "-d", "--name", "up", "--stop-timeout", "0", "busybox", "sleep", "100", check=True)
    gone = fresh("create", "busybox", check=True).stdout.strip()
    assert fresh("container", "prune", input="n\n").stdout.endswith("[y/N] ")
    report = fresh("container", "prune", "-f").stdout
    assert report.startswith(f"Deleted Containers:\n{gone}\n\nTotal reclaimed space: ")
    assert fresh("ps", "-a", "--format", "{{.Names}}").stdout == "up\n"
    assert fresh("container", "prune", "-f").stdout == "Total reclaimed space: 0B\n"


def test_port_has_nothing_to_show_yet(duckweed: Run, start: Start) -> None:
    name = start("sleep", "100")
    assert duckweed("port", name).stdout == ""
    missing = duckweed("port", name, "80")
    assert (missing.returncode, f"No public port '80/tcp' published for {name}" in missing.stderr) == (
        1,
        True,
    )
