"""Ways out of a container that are tried where the tracer is all there is, and where it has been led astray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import Run

# Names of a host file that a container has no business with: `{}` is its absolute path.
NAMES = [
    "{}",
    "/proc/self/root{}",
    "/proc/self/cwd/..{}",
    "/proc/thread-self/root{}",
    "/proc/{supervisor}/root{}",
    "/proc/1/root{}",
    "/proc/{supervisor}/cwd{}",
    "/../../../..{}",
    "/proc/self/fd/../root{}",
    "/dev/fd/../root{}",
    "/link{}",
    "/tmp/../..{}",
    "//{}",
    "/proc/self/task/../root{}",
]

# The machine's own Python, in an image that has none.
PYTHON = [f"-v/usr{part}:{part or '/usr'}:ro" for part in ("", "/lib", "/lib64")]

PROGRAM = r"""
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
call.restype = ctypes.c_long
names = [name.encode() for name in sys.argv[1:]]
os.symlink("/", "/link")
down = os.open("/", os.O_PATH)
work = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
buffer = ctypes.create_string_buffer(4096)
HERE = -100
reached = []

def tried(what, name, result):
    global count
    count += 1
    if result >= 0:
        reached.append((what, name))
        if what.startswith("open") and os.read(result, 6) == b"secret":
            reached.append((what, name, "READ"))
    return result

count = 0
for name in names:
    for directory in (HERE, down, work):
        for path in (name, name.lstrip(b"/"), b"../../../.." + name, name + b"/", b"./" + name):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_PATH):
                if flags != os.O_PATH:
                    tried("openat", path, call(257, directory, path, flags, 0))
            for resolve in (0, 8, 16):
                how = struct.pack("QQQ", os.O_RDONLY, 0, resolve)
                tried("openat2", path, call(437, directory, path, how, 24))
            tried("newfstatat", path, call(262, directory, path, buffer, 0))
            tried("statx", path, call(332, directory, path, 0, 0x7FF, buffer))
            tried("faccessat2", path, call(439, directory, path, 0, 0))
            tried("readlinkat", path, call(267, directory, path, buffer, 4096))
            tried("unlinkat", path, call(263, directory, path, 0))
            tried("linkat", path, call(265, directory, path, HERE, b"/stolen", 0))
            tried("renameat2", path, call(316, directory, path, HERE, b"/stolen", 0))
            tried("fchmodat", path, call(268, directory, path, 0o777))
            tried("fchownat", path, call(260, directory, path, 1, 1, 0))
            tried("utimensat", path, call(280, directory, path, 0, 0))
            tried("name_to_handle_at", path, call(303, directory, path, buffer, buffer, 0))
            tried("open_tree", path, call(428, directory, path, 0))
            tried("execveat", path, call(322, directory, path, 0, 0, 0))
    for number, what in ((2, "open"), (4, "stat"), (6, "lstat"), (21, "access"), (76, "truncate"), (80, "chdir"),
                         (87, "unlink"), (89, "readlink"), (90, "chmod"), (92, "chown"), (137, "statfs"),
                         (161, "chroot"), (191, "getxattr"), (194, "listxattr"), (254, "inotify")):
        tried(what + "*", name, call(number, name, buffer, 4096, 0))
    tried("bind mount", name, call(165, name, b"/mnt", 0, 4096, 0))
    tried("uselib", name, call(134, name))
for number in (272, 308, 425, 430, 304, 310 + 128, 435, 448, 312, 321):
    tried("call %d" % number, b"", call(number, 0x10000000, 0, 0, 0, 0))
supervisor = int(os.environ["SUPERVISOR"])
for number, arguments in ((62, (supervisor, 0)), (200, (supervisor, 0)), (434, (supervisor, 0)), (101, (16, supervisor, 0, 0)),
                          (101, (0x4206, supervisor, 0, 0)), (310, (supervisor, 0, 0, 0, 0, 0)), (203, (supervisor, 8, buffer))):
    tried("process %d" % number, b"", call(number, *arguments))
print(count, reached)
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's that the same user may read and write."""
    path = tmp_path / "deep" / "secret"
    path.parent.mkdir()
    path.write_text("secret\n")
    return path


def test_no_way_of_naming_reaches_a_file_of_the_host(pod: Run, secret: Path) -> None:
    name = [name.replace("{supervisor}", str(os.getpid())).replace("{}", str(secret)) for name in NAMES]
    flags = ["-e", f"SUPERVISOR={os.getpid()}"]
    done = pod("run", "--rm", *flags, *PYTHON, "users", "/usr/bin/python3", "-c", PROGRAM, *name)
    assert done.returncode == 0, done.stderr
    count, _, reached = done.stdout.partition(" ")
    assert reached.strip() == "[]" and int(count) > 1000
    assert secret.read_text() == "secret\n" and secret.stat().st_mode & 0o777 != 0o777


def test_the_kernel_refuses_what_a_race_would_reach(pod: Run, secret: Path) -> None:
    """A thread changes the path of another's open all the time; what it opens now and then must not be the host's."""
    racing = r"""
import ctypes, os, sys, threading, time
secret = sys.argv[1].encode()
libc = ctypes.CDLL(None)
over = time.monotonic() + 4
def scratch():
    open("/etc/passwd").close()
    for line in open("/proc/self/maps"):
        if " rw-p 00000000 00:00 0" not in line or "[" in line:
            continue
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        bytes_ = ctypes.string_at(start, end - start)
        at = bytes_.find(b"/fs/etc/passwd\0")
        if at >= 0 and start + (bytes_.rfind(b"\0", 0, at) + 1) not in found:
            yield start + (bytes_.rfind(b"\0", 0, at) + 1)
found = []
places = list(scratch())
def write():
    while time.monotonic() < over:
        for place in places:
            ctypes.memmove(place, secret + b"\0", len(secret) + 1)
thread = threading.Thread(target=write)
thread.start()
read = 0
while time.monotonic() < over:
    try:
        with open("/etc/passwd", "rb") as file:
            read += file.read(6) == b"secret"
    except OSError:
        pass
thread.join()
print(len(places) > 0, read)
"""
    done = pod("run", "--rm", *PYTHON, "users", "/usr/bin/python3", "-c", racing, str(secret))
    assert done.stdout.split() == ["True", "0"], done.stdout + done.stderr
