"""A container's life where user namespaces are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest

from conftest import Run, runner


def test_a_command_runs_as_root_in_the_image(trap: Run) -> None:
    script = "id -u; cat /etc/passwd | head -1; pwd; readlink /proc/self/exe; ls / | tr '\\n' ' '"
    done = trap("run", "--rm", "users", "sh", "-c", script, check=True)
    words = done.stdout.splitlines()
    assert words[:3] == ["0", "root:x:0:0:root:/root:/bin/sh", "/"]
    assert words[3].startswith("/bin/") and "data" in words[4].split() and "proc" in words[4].split()


def test_auto_takes_it_and_says_why_once(tmp_path: Path, pod: Run, archives: Path) -> None:
    env = {"DUCKWEED_ROOT": str(tmp_path / "store")}
    first = pod("load", "-i", str(archives / "busybox.tar"), env=env, check=True)
    again = pod("run", "--rm", "busybox", "true", env=env, check=True)
    assert "using the trap isolation" in first.stderr and first.stderr.count("\n") == 1
    assert again.stderr == ""
    assert pod("info", "--format", "{{.Isolation}}", env=env).stdout.strip() == "trap"
    refused = pod("run", "--rm", "--isolation", "userns", "busybox", "true", env=env)
    assert refused.returncode == 125 and "cannot run containers here" in refused.stderr


def test_exit_codes_are_dockers(trap: Run) -> None:
    for command, code in ((["false"], 1), (["sh", "-c", "exit 42"], 42), (["nope"], 127), (["/etc"], 126)):
        assert trap("run", "--rm", "users", *command).returncode == code
    assert trap("run", "--rm", "users", "sh", "-c", "kill -9 $$").returncode == 137


def test_a_detached_container_is_logged_entered_copied_and_committed(trap: Run, tmp_path: Path) -> None:
    image = f"trapped{os.urandom(4).hex()}"
    script = "echo begun; trap 'exit 7' TERM; while :; do sleep 0.1; done"
    name = trap("run", "-d", "users", "sh", "-c", script, check=True).stdout.strip()
    try:
        while "begun" not in trap("logs", name).stdout:
            time.sleep(0.05)
        assert trap("exec", name, "sh", "-c", "echo $((6*7)); touch /made; chown 5:6 /made").stdout == "42\n"
        assert trap("exec", "-u", "ann", name, "id", "-un").stdout == "ann\n"
        (tmp_path / "file").write_text("from outside\n")
        trap("cp", str(tmp_path / "file"), f"{name}:/tmp/in", check=True)
        assert trap("exec", name, "cat", "/tmp/in").stdout == "from outside\n"
        trap("cp", f"{name}:/etc/passwd", str(tmp_path / "out"), check=True)
        assert (tmp_path / "out").read_text().startswith("root:x:0:0")
        assert trap("diff", name, check=True).stdout.splitlines() == ["A /made", "C /tmp", "A /tmp/in"]
        trap("commit", name, image, check=True)
        trap("stop", name, check=True)
        assert trap("inspect", "-f", "{{.State.ExitCode}}", name).stdout == "7\n"
        trap("cp", f"{name}:/tmp/in", str(tmp_path / "after"), check=True)
        assert (tmp_path / "after").read_text() == "from outside\n"
    finally:
        trap("rm", "-f", name)
    assert trap("run", "--rm", image, "stat", "-c", "%u %g", "/made").stdout == "5 6\n"


def test_signals_reach_the_containers_processes_alone(pod: Run) -> None:
    script = "trap 'echo heard; exit 3' HUP; while :; do sleep 0.1; done"
    name = pod("run", "-d", "users", "sh", "-c", script, check=True).stdout.strip()
    try:
        outside = pod("exec", name, "kill", "-0", str(os.getpid()))
        assert outside.returncode != 0 and "No such process" in outside.stderr
        assert pod("exec", "-u", "ann", name, "kill", "-HUP", "1").returncode != 0
        assert pod("exec", name, "kill", "-HUP", "1").returncode == 0
        assert pod("wait", name).stdout == "3\n" and "heard" in pod("logs", name).stdout
    finally:
        pod("rm", "-f", name)


def test_volumes_and_binds_are_there(trap: Run, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("host\n")
    volume = f"v{os.urandom(4).hex()}"
    flags = [
        "-v",
        f"{tmp_path}:/var/bound",
        "-v",
        f"{tmp_path}:/ro:ro",
        "-v",
        f"{volume}:/kept",
        "--tmpfs",
        "/t",
    ]
    script = "cat /var/bound/seen /ro/seen; echo w > /var/bound/written; echo k > /kept/k; echo t > /t/t; echo x > /ro/x"
    done = trap("run", "--rm", *flags, "users", "sh", "-c", script)
    assert done.stdout == "host\nhost\n" and "Read-only file system" in done.stderr
    assert (tmp_path / "written").read_text() == "w\n" and not (tmp_path / "x").exists()
    assert trap("run", "--rm", "-v", f"{volume}:/kept", "users", "cat", "/kept/k").stdout == "k\n"
    trap("volume", "rm", volume, check=True)


def test_a_read_only_root_stays_as_it_is(pod: Run) -> None:
    done = pod(
        "run",
        "--rm",
        "--read-only",
        "users",
        "sh",
        "-c",
        "touch /a; mkdir /b; rm /etc/passwd; echo x > /dev/null",
    )
    assert done.stderr.count("Read-only file system") == 3 and done.returncode == 0


def test_a_terminal_is_the_containers(pod: Run, trap_root: Path) -> None:
    name = pod("run", "-dt", "users", "sh", "-c", "tty; stty size; sleep 100", check=True).stdout.strip()
    try:
        while pod("logs", name).stdout.count("\n") < 2:
            time.sleep(0.05)
        assert pod("logs", name).stdout.startswith("/dev/pts/")
        # Other terminals of the same user are not there.
        assert (
            pod(
                "exec",
                name,
                "sh",
                "-c",
                "cd /dev/pts; for t in *; do test -c $t && test $t != ptmx && echo $t; done",
            ).stdout.count("\n")
            <= 2
        )
    finally:
        pod("rm", "-f", name)


def test_the_machines_own_tree_is_an_image(pod: Run) -> None:
    script = "echo changed >> /etc/passwd; tail -1 /etc/passwd; mkdir /made; ls -d /made; rm -r /etc/apt; ls -d /etc/apt"
    done = pod("run", "--rm", "host", "sh", "-c", script)
    assert done.stdout == "changed\n/made\n" and "No such file" in done.stderr
    assert Path("/etc/passwd").read_text().splitlines()[-1] != "changed" and not Path("/made").exists()


def _living(directory: Path) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and str(directory) in Path(f"/proc/{entry}/environ").read_text():
                found.append(int(entry))
        except OSError:
            pass
    return found


def test_nothing_outlives_the_supervisor(pod: Run, trap_root: Path) -> None:
    mark = f"MARK=/{os.urandom(8).hex()}"
    script = "sh -c 'setsid sleep 1000 & sleep 1000' & sleep 1000"
    name = pod("run", "-d", "-e", mark, "users", "sh", "-c", script, check=True).stdout.strip()
    try:
        while len(_living(Path(mark))) < 3:
            time.sleep(0.05)
        state = json.loads(pod("inspect", name).stdout)[0]
        os.kill(state["Duckweed"]["SupervisorPid"], signal.SIGKILL)
        deadline = time.monotonic() + 20
        while _living(Path(mark)):
            assert time.monotonic() < deadline, "processes are left"
            time.sleep(0.05)
    finally:
        pod("rm", "-f", name)


def test_python_programs_run_containers(trap_root: Path, pod: Run) -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    program = (
        "import duckweed\nengine = duckweed.Engine()\n"
        "result = engine.run('users', ['cat'], input=b'in', timeout=20)\n"
        "assert (result.exit_code, result.stdout) == (0, b'in'), result\n"
        "with engine.containers.run('users', ['sleep', '100']) as box:\n"
        "    print(box.exec(['id', '-u']).stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, f"{here}/restricted.py", "pod", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "DUCKWEED_ROOT": str(trap_root)},
        timeout=60,
    )
    assert done.stdout == "b'0\\n'\n", done.stderr


@pytest.fixture
def exported(pod: Run) -> list[str]:
    """The names in an exported container that has lost one."""
    name = pod("create", "users", "sh", "-c", "rm /etc/shadow; echo > /new", check=True).stdout.strip()
    pod("start", "-a", name, check=True)
    pod("export", "-o", f"/tmp/{name}.tar", name, check=True)
    try:
        with tarfile.open(fileobj=BytesIO(Path(f"/tmp/{name}.tar").read_bytes())) as tar:
            return tar.getnames()
    finally:
        os.unlink(f"/tmp/{name}.tar")
        pod("rm", name)


def test_export_shows_what_is_there(exported: list[str]) -> None:
    assert "etc/passwd" in exported and "new" in exported and "etc/shadow" not in exported


def test_init_keeps_no_signals_back_from_the_command(pod: Run) -> None:
    script = "grep SigBlk /proc/self/status; trap 'exit 9' TERM; sleep 100 & wait"
    name = pod("run", "-d", "--init", "users", "sh", "-c", script, check=True).stdout.strip()
    try:
        while not pod("logs", name).stdout:
            time.sleep(0.05)
        assert pod("logs", name).stdout == "SigBlk:\t0000000000000000\n"
        assert "SigBlk:\t0000000000000000" in pod("exec", name, "cat", "/proc/self/status").stdout
        pod("stop", name, check=True)
        assert pod("inspect", "-f", "{{.State.ExitCode}}", name).stdout == "9\n"
    finally:
        pod("rm", "-f", name)


def test_the_first_process_is_found_as_1(pod: Run) -> None:
    script = "cut -d ' ' -f 1 /proc/1/stat | grep -qx $$ && echo same; echo told > /proc/1/fd/1; cat /proc/1/comm; :"
    done = pod("run", "--rm", "users", "sh", "-c", script)
    assert done.stdout == "same\ntold\nsh\n", done.stderr


IDS = """chown 1:1 /a 2>/dev/null; echo $?; stat -c %u /a /etc/twice; mknod /n c 1 3 2>/dev/null; echo $?; chown 0:0 /a; echo $?
su ann -c id >/dev/null 2>&1; echo $?; id -u"""


@pytest.mark.parametrize("level", ["off", "owners", "full"])
def test_as_much_is_emulated_as_is_asked_for(level: str, pod: Run, trap_root: Path) -> None:
    flags = ["--rm", "--network", "host", "--root-emulation", level, "users", "sh", "-c", f"touch /a; {IDS}"]
    ours = pod("run", *flags).stdout.split()
    theirs = runner(trap_root, {"DUCKWEED_PRETEND": "no-subid"})("run", *flags).stdout.split()
    assert ours == theirs
    other = pod("run", "--rm", "--root-emulation", level, "-u", "ann", "users", "id", "-u")
    expected = (0, "1000\n") if level == "full" else (125, "")
    assert (other.returncode, other.stdout) == expected, other.stderr
    assert level == "full" or "has no id here" in other.stderr


def test_a_process_that_must_not_be_dumped_goes_on(pod: Run) -> None:
    """What sudo, sshd and agents do: the kernel would hide their memory from us."""
    program = (
        "import ctypes, os; libc = ctypes.CDLL(None); print(libc.prctl(4, 0, 0, 0, 0), libc.prctl(3, 0, 0, 0, 0)); "
        "print(len(open('/etc/hostname').read()) > 0, os.stat('/proc/self/').st_uid, libc.prctl(4, 5, 0, 0, 0)); "
        "os.fork() or os._exit(libc.prctl(3, 0, 0, 0, 0)); print(os.wait()[1])"
    )
    done = pod("run", "--rm", "host", "/usr/bin/python3", "-c", program)
    assert done.stdout == "0 0\nTrue 0 -1\n0\n", done.stderr


def test_programs_that_may_be_executed_but_not_read_run(pod: Run) -> None:
    script = "mkdir /b; cp /bin/busybox /b/echo; chmod 111 /b/echo; /b/echo static; cp /bin/cat /c; chmod 111 /c; echo dynamic | /c; stat -c %a /b/echo /c"
    done = pod("run", "--rm", "host", "sh", "-c", script)
    assert done.stdout == "static\ndynamic\n111\n111\n", done.stderr


def test_a_directory_that_nobody_may_enter_is_committed(pod: Run, trap_root: Path) -> None:
    image = f"closed{os.urandom(4).hex()}"
    script = "mkdir -p /x/y; echo in > /x/y/f; chmod 0 /x/y/f /x/y /x; mkdir -m 111 /z"
    name = pod("create", "users", "sh", "-c", script, check=True).stdout.strip()
    try:
        pod("start", "-a", name, check=True)
        assert pod("diff", name, check=True).stdout.split()[1::2] == ["/x", "/x/y", "/x/y/f", "/z"]
        pod("commit", name, image, check=True)
        told = runner(trap_root, {"DUCKWEED_PRETEND": "no-subid"})(
            "run", "--rm", image, "sh", "-c", "cat /x/y/f; stat -c %a /x /x/y /x/y/f /z"
        )
        assert told.stdout == "in\n0\n0\n0\n111\n", told.stderr
        again = pod("diff", name, check=True).stdout.split()
        assert "/x/y/f" in again
    finally:
        pod("rm", "-f", name)
        pod("rmi", "-f", image)


@pytest.mark.parametrize("outside", ["trap", "userns"])
def test_a_container_in_a_container(outside: str, pod: Run, trap_root: Path) -> None:
    """In a user namespace the trap isolation works again; in the trap isolation nobody can trace, and that is said."""
    run = pod if outside == "trap" else runner(trap_root)
    inner = f"{sys.executable} -m duckweed run --rm --network host host sh -c 'echo inside; cat /srv/mark'"
    script = f"export HOME=/root DUCKWEED_ROOT=/srv/store; echo mark > /srv/mark; {inner}"
    done = run("run", "--rm", "--network", "host", "host", "sh", "-c", script, timeout=100)
    if outside == "userns":
        assert done.stdout == "inside\nmark\n", done.stderr
    else:
        assert done.returncode == 125 and "cannot run containers here" in done.stderr
