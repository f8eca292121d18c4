"""The union of trees: the kernel's overlay must find and commit the same as we."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import images
from conftest import Run, runner

from .conftest import Shell

# Each is run in a container of both backends; what it prints and the layer it leaves must be the same.
CHANGES = {
    "write": "echo a > /a; echo more >> /etc/passwd; mkdir -p /d/e/f; echo x > /d/e/f/g; ln -s /a /d/l; mkfifo /d/p",
    "remove": "rm /etc/shadow; rm -r /home/ann; rm /etc/twice; rmdir /var/mail; ls /home /etc; cat /etc/twice.link",
    "again": "rm -r /home; mkdir /home; touch /home/new; rm /etc/passwd; mkdir /etc/passwd; ls -A /home /etc/passwd",
    "rename": "mv /etc/passwd /etc/p; mv /etc/group /tmp/g; mkdir /n; mv /n /m; mv /m /etc/m; ls /etc /tmp",
    "directory": "mv /home /h; ls / /h; mkdir /x; mv -T /x /tmp/y; ls /tmp",
    "replace": "echo new > /t; mv /t /etc/shadow; cat /etc/shadow; ln /etc/shadow /etc/sh; mv /etc/sh /etc/group; cat /etc/group",
    "links": "ln /etc/passwd /etc/pw; echo x >> /etc/pw; tail -1 /etc/passwd; ln -s nowhere /s; ln /s /s2; readlink /s2",
    "moved": "mv /etc/twice /etc/once; stat -c '%u %g' /etc/once /etc/twice.link; mv /etc/shadow /tmp/s; stat -c %g /tmp/s",
    "modes": "chmod 600 /etc/passwd; chmod 4755 /bin; chown 3:4 /etc/shadow /home; touch -t 202001010000.00 /etc/twice",
    "closed": "mkdir -m 500 /c; touch /c/a; ls /c; echo y > /c/b; chmod 444 /etc/group; echo z >> /etc/group",
    "users": "su ann -c 'cat /etc/shadow; touch /home/ann/n; touch /no; stat -c %U,%s,%n /home/ann/*'; su bob -c 'ls /home/ann'",
    "devices": "mknod /n c 1 3; mknod /b b 7 0; echo x > /n; cat /n; stat -c '%F %t %T' /n /b; rm /b; cat /b",
}


def _outcome(run: Run, flags: list[str], script: str) -> tuple[str, str]:
    image = f"o{os.urandom(4).hex()}"
    created = run("create", *flags, "users", "sh", "-c", f"exec 2>&1; {script}", check=True)
    container = created.stdout.strip()
    try:
        told = run("start", "-a", container)
        run("commit", container, image, check=True, env={"SOURCE_DATE_EPOCH": str(images.EPOCH)})
        layers = json.loads(run("image", "inspect", image, check=True).stdout)[0]["RootFS"]["Layers"]
        return told.stdout + told.stderr, layers[-1]
    finally:
        run("rm", "-f", container)
        run("rmi", "-f", image)


@pytest.mark.parametrize("case", CHANGES)
def test_both_backends_leave_the_same_layer(case: str, pod: Run, trap_root: Path) -> None:
    by_kernel = runner(trap_root, {"DUCKWEED_PRETEND": "no-subid"})
    ours = _outcome(pod, [], CHANGES[case])
    theirs = _outcome(by_kernel, ["--network", "none"], CHANGES[case])
    assert ours == theirs


def test_names_lead_where_they_lead_in_the_container(shell: Shell) -> None:
    script = """cd /etc/../../..; pwd; cd /home/ann; ls ..; cat ../../etc/twice
    ln -s / /root/up; cat /root/up/etc/twice; cat /proc/self/root/etc/twice; cd /proc/self/cwd; /bin/pwd
    ln -s loop /loop; cat /loop; cat /etc/passwd/x; cat /etc/twice/; ls /proc/1 2>&1; exec 3</etc/twice; cat /proc/self/fd/3"""
    told = shell(script)
    assert told.startswith("/\nann\n") and "two names\ntwo names\ntwo names\n/home/ann\n" in told
    assert "Too many levels" in told or "Symbolic link loop" in told
    assert told.count("Not a directory") == 2 and told.endswith("two names\n")


def test_a_merged_directory_is_listed_whole_and_once(shell: Shell) -> None:
    script = """for i in $(seq 3000); do : > /etc/f$i; done; rm /etc/f7 /etc/shadow; ls -a /etc > /l
    sort -u /l | wc -l; wc -l < /l; grep -c '^f' /l; grep -E '^(shadow|f7|passwd)$' /l; rm -r /etc/f*; ls /etc | wc -l"""
    lines = shell(script).split()
    assert lines[0] == lines[1] and lines[2] == "2999" and lines[3] == "passwd"
    assert int(lines[4]) < 20


def test_scripts_and_static_programs_run(shell: Shell) -> None:
    script = r"""printf '#!/bin/sh -e\necho "$0 $*"\n' > /s; chmod 755 /s; /s a b; printf '#! /s   two words \n' > /s2
    chmod 755 /s2; /s2 c; cd /tmp; printf '#!/none\n' > n; chmod 755 n; ./n; printf 'x' > e; chmod 755 e; ./e"""
    told = shell(script)
    assert told.startswith(("/s a b\n/s two words  /s2 c\n", "/s a b\n/s two words /s2 c\n"))
    assert "not found" in told


def test_sockets_in_the_file_system_have_their_names(pod: Run, trap_root: Path) -> None:
    program = """
import os, socket, threading
deep = '/tmp/' + 'd' * 60
os.makedirs(deep)
server = socket.socket(socket.AF_UNIX); server.bind(deep + '/s'); server.listen()
assert server.getsockname() == deep + '/s', server.getsockname()
client = socket.socket(socket.AF_UNIX); client.connect(deep + '/s')
peer, _ = server.accept()
assert client.getpeername() == deep + '/s'
import struct
pid, uid, gid = struct.unpack('3i', peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
assert (pid, uid, gid) == (os.getpid(), 0, 0)
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind('/tmp/d')
e = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); e.sendto(b'1', '/tmp/d'); e.sendmsg([b'2'], [], 0, '/tmp/d')
print(d.recv(9) + d.recv(9))
"""
    done = pod("run", "--rm", "host", "/usr/bin/python3", "-c", program)
    assert done.stdout == "b'12'\n", done.stderr


def test_who_sent_a_message_is_told_by_the_ids_inside(pod: Run) -> None:
    program = """
import os, socket, struct
a, b = socket.socketpair(socket.AF_UNIX)
b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
mine = os.getpid(), os.getuid(), os.getgid()

def told():
    return [struct.unpack('3i', data) == mine for level, kind, data in b.recvmsg(9, 99)[1] if kind == 2]

a.send(b'x'); print(told())
a.sendmsg([b'y'], [(socket.SOL_SOCKET, 2, struct.pack('3i', *mine))]); print(told())
try:
    a.sendmsg([b'z'], [(socket.SOL_SOCKET, 2, struct.pack('3i', os.getpid(), 77, 77))]); print('sent')
except PermissionError:
    print('refused')
"""
    for user, last in (("0:0", "sent"), ("1234:1234", "refused")):
        done = pod("run", "--rm", "-u", user, "host", "/usr/bin/python3", "-c", program)
        assert done.stdout.split() == ["[True]", "[True]", last], done.stderr
