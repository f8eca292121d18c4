"""What a container must not reach: the checklist of the userns isolation, from inside, in every place.

Expected lists are Docker's documented defaults (capabilities, masked and
read-only paths) and the runtime-spec's; they are written out here so that a
change of ours is noticed.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from conftest import Run

# Docker's default capabilities, as bits: chown dac_override fowner fsetid kill setgid setuid setpcap
# net_bind_service net_raw sys_chroot mknod audit_write setfcap.
DOCKER_CAPS = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
MASKED_FILES = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug"]
MASKED_DIRECTORIES = ["/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def inside(place: Run, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return place("run", "--rm", "--network", "none", *options, "busybox", "sh", "-c", script)


def test_capabilities_are_dockers_default_set(place: Run) -> None:
    status = inside(place, "cat /proc/self/status").stdout
    sets = dict(re.findall(r"^(Cap\w+|NoNewPrivs|Seccomp):\s*(\w+)", status, re.M))
    assert int(sets["CapBnd"], 16) == DOCKER_CAPS
    assert int(sets["CapEff"], 16) == int(sets["CapPrm"], 16) == DOCKER_CAPS
    assert int(sets["CapAmb"], 16) == 0
    assert (sets["NoNewPrivs"], sets["Seccomp"]) == ("1", "2")


def test_dropped_capabilities_cannot_come_back(place: Run) -> None:
    status = inside(place, "cat /proc/self/status", "--cap-drop", "ALL", "--cap-add", "CHOWN").stdout
    assert {int(value, 16) for value in re.findall(r"^Cap(?:Bnd|Eff|Prm):\s*(\w+)", status, re.M)} == {1}


def test_host_processes_are_invisible_and_unreachable(place: Run) -> None:
    listed = inside(place, f"ls /proc | grep -E '^[0-9]+$'; kill -0 {os.getpid()} 2>&1; echo end").stdout
    pids = [int(line) for line in listed.split() if line.isdigit()]
    assert pids and max(pids) < 50 and "end" in listed
    assert str(os.getpid()) not in pids


def test_host_paths_are_gone(place: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("host")
    tries = [str(secret), f"/proc/1/root{secret}", f"/proc/self/cwd{secret}", "/.." * 20 + str(secret)]
    tries += [f"/proc/self/fd/{n}{secret}" for n in range(12)] + [
        f"/proc/1/fd/{n}/..{secret}" for n in range(12)
    ]
    out = inside(place, "cat " + " ".join(tries) + " 2>/dev/null; echo done").stdout
    assert out == "done\n"


def test_no_descriptor_of_ours_is_left_open(place: Run) -> None:
    out = inside(place, "for f in /proc/self/fd/* /proc/1/fd/*; do readlink $f; done").stdout.split()
    allowed = re.compile(r"^(pipe:|socket:|/dev/(null|pts/\d+|console)$|/proc/\d+/fd$|/proc/self/fd$)")
    assert [path for path in out if not allowed.match(path)] == []


def test_only_the_container_s_own_mounts_are_seen(place: Run, root: Path) -> None:
    table = inside(place, "cat /proc/self/mountinfo").stdout
    roots = {line.split()[4]: line.split()[3] for line in table.splitlines()}
    assert "/" in roots
    home = os.path.expanduser("~")
    for target, source in roots.items():
        assert not target.startswith("/oldroot"), target
        if target not in ("/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
            assert not source.startswith((home, str(root))), (target, source)


@pytest.mark.parametrize("path", MASKED_FILES)
def test_masked_files_are_empty(place: Run, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert inside(place, f"head -c 16 {path} | wc -c").stdout.strip() == "0"


@pytest.mark.parametrize("path", MASKED_DIRECTORIES)
def test_masked_directories_are_empty(place: Run, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert inside(place, f"ls {path} | wc -l").stdout.strip() == "0"


@pytest.mark.parametrize("path", READ_ONLY)
def test_read_only_paths_refuse_writes(place: Run, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    probe = path if not os.path.isdir(path) else f"{path}/duckweed-test"
    done = inside(place, f"echo x > {probe}")
    assert done.returncode != 0
    # A name of /proc/sys that exists, so that it is the mount that refuses.
    if path == "/proc/sys":
        assert "Read-only" in inside(place, "echo 1 > /proc/sys/kernel/shm_rmid_forced").stderr


def test_abstract_sockets_of_the_host_are_unreachable(place: Run) -> None:
    if "no-" in place.name and not sys.platform.startswith("linux"):  # type: ignore[attr-defined]
        pytest.skip("Linux only")
    name = f"duckweed-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as control:
            control.connect("\0" + name)  # the test itself works
        listed = inside(place, "cat /proc/net/unix").stdout
        assert name not in listed


def test_the_network_is_a_loopback_of_its_own(place: Run) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        out = inside(place, f"ls /sys/class/net; nc -w 1 127.0.0.1 {port} </dev/null; echo $?")
    assert out.stdout.split()[0] == "lo" and out.stdout.split()[-1] != "0"


def test_system_v_ipc_is_separate(place: Run) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x6475636B
    segment = libc.shmget(key, 4096, 0o1000 | 0o600)
    if segment < 0:
        pytest.skip("this place allows no System V shared memory")
    try:
        assert (
            "6475636b" in Path("/proc/sysvipc/shm").read_text()
            or str(key) in Path("/proc/sysvipc/shm").read_text()
        )
        assert str(key) not in inside(place, "cat /proc/sysvipc/shm").stdout
    finally:
        libc.shmctl(segment, 0, None)


def test_devices_are_the_few_of_dockers_list(place: Run) -> None:
    found = set(inside(place, "ls /dev").stdout.split())
    expected = {
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
    }
    assert (
        found <= expected | {"urandom", "zero", "console"}
        and {"null", "zero", "full", "random", "urandom", "tty"} <= found
    )


@pytest.mark.parametrize(
    "script",
    [
        "mount -t tmpfs none /mnt",
        "mount -o remount,rw /proc/sys",
        "umount /proc/kcore",
        "unshare -Ur true",
        "unshare -m true",
        "chroot / mount -t proc none /mnt",
        'mknod /tmp/disk b 8 0 2>/dev/null; test -n "$(head -c 1 /tmp/disk)"',
        "echo x > /proc/sysrq-trigger",
        "hostname other",
        "insmod /bin/busybox",
    ],
)
def test_what_docker_refuses_is_refused(place: Run, script: str) -> None:
    assert inside(place, script).returncode != 0


def test_writes_stay_in_the_container(place: Run) -> None:
    assert inside(place, "echo changed > /etc/passwd; rm -rf /bin/vi; echo mine > /new").returncode == 0
    out = inside(place, "head -n 1 /etc/passwd; ls /bin/vi; ls /new 2>&1")
    assert out.stdout.startswith("root:x:0:0:") and "/bin/vi" in out.stdout and "No such file" in out.stdout


def test_the_runtime_itself_cannot_be_overwritten_from_inside(place: Run) -> None:
    place("rm", "-f", "escape-exec")
    place("run", "-d", "--name", "escape-exec", "busybox", "sleep", "100", check=True)
    try:
        script = 'for p in /proc/[0-9]*; do for n in exe; do (: > $p/$n) 2>/dev/null && echo "wrote $(readlink $p/exe)"; done; done; echo end'
        out = place("exec", "escape-exec", "sh", "-c", script).stdout
        written = [line for line in out.splitlines() if line.startswith("wrote") and "duckweed" in line]
        assert written == [] and out.endswith("end\n")
        assert place("run", "--rm", "busybox", "true").returncode == 0
    finally:
        place("rm", "-f", "escape-exec")


def test_devices_are_refused_where_nothing_remembers_them(place: Run) -> None:
    assert inside(place, "mknod /tmp/disk b 8 0", "--root-emulation", "off").returncode != 0


def test_privileged_means_all_of_the_namespace_and_no_masks(place: Run) -> None:
    # Root emulation is a seccomp filter of its own; without it there is none.
    out = inside(
        place,
        "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs none /mnt && echo mounted",
        "--privileged",
        "--root-emulation",
        "off",
    )
    assert "mounted" in out.stdout
    assert re.search(r"CapEff:\s*0000(01ff|003f)ffffffff", out.stdout) and re.search(
        r"Seccomp:\s*0", out.stdout
    )
