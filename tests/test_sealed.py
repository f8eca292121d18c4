"""The runtime's own program: what a container gets hold of cannot be changed (the class of CVE-2019-5736).

An image whose command makes the runtime execute itself inside (`#!/proc/self/exe`, or an ELF file whose
interpreter is that), a container that lies in wait for it, and an accomplice that keeps a handle until
everything has ended: none may write a byte.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import duckweed
import images
from conftest import Run, command

RUNTIME = Path(duckweed.__file__).parent / "_bin" / "duckweed-runtime"
EVERY_SEAL = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE
F_GET_SEALS = 1034

#: Lies in wait for a process of the runtime, holds on to its program, and tries every way to write to it.
WAIT_AND_WRITE = r"""
try() { for way in "$1/exe" /proc/self/fd/8; do
    (echo x > $way) 2>/dev/null && echo WROTE; (echo x >> $way) 2>/dev/null && echo WROTE
    (echo x | dd of=$way conv=notrunc) 2>/dev/null && echo WROTE; done; }
while :; do for p in /proc/[0-9]*; do
    case "$(readlink $p/exe)" in *duckweed*)
        exec 8<$p/exe || continue
        echo caught; try $p
        while [ -d $p ]; do :; done
        try $p; echo done; exit;;
    esac; done; done 2>/dev/null
"""


def elf_with_interpreter() -> bytes:
    """The runtime itself, with `/proc/self/exe` as its interpreter in the place of a header that nobody needs."""
    body = bytearray(RUNTIME.read_bytes())
    (start,), (size, count) = struct.unpack_from("<Q", body, 32), struct.unpack_from("<HH", body, 54)
    for at in range(start, start + size * count, size):
        kind, where = struct.unpack_from("<I", body, at)[0], len(body)
        if kind == 0x6474E551:  # PT_GNU_STACK
            struct.pack_into("<IIQQQQQQ", body, at, 3, 4, where, 0, 0, 15, 15, 1)  # PT_INTERP
            return bytes(body + b"/proc/self/exe\0")
    pytest.skip("this build of the runtime has no PT_GNU_STACK to replace")
    raise AssertionError


@pytest.fixture(scope="module")
def evil(root: Path, duckweed: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of busybox, /bin/evil-script and /bin/evil-elf."""
    extra = images.layer(
        [
            (images.member("bin/evil-script", mode=0o755), b"#!/proc/self/exe\n"),
            (images.member("bin/evil-elf", mode=0o755), elf_with_interpreter()),
        ]
    )
    archive = tmp_path_factory.mktemp("evil") / "evil.tar"
    images.docker_archive(archive, ["evil:latest"], [images.busybox_layer(), extra])
    duckweed("load", "-i", str(archive), check=True)
    return "evil"


@pytest.fixture(autouse=True)
def runtime_is_unchanged() -> Iterator[None]:
    before = hashlib.sha256(RUNTIME.read_bytes()).hexdigest()
    yield
    assert hashlib.sha256(RUNTIME.read_bytes()).hexdigest() == before


def until(what: str, is_so: Callable[[], object]) -> object:
    deadline = time.monotonic() + 30
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"not so after 30 s: {what}"
        time.sleep(0.01)
    return found


def process(word: str) -> int:
    """The host's pid of a process that has `word` among its arguments and is no client of ours."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if arguments[1:2] == [word.encode()] or arguments[:1] == [word.encode()]:
                return int(name)
        except OSError:
            continue
    return 0


def assert_sealed(handle: int) -> None:
    """What the descriptor means is a sealed memfd; no way to write to it works, through a new handle neither."""
    assert os.readlink(f"/proc/self/fd/{handle}").startswith("/memfd:duckweed-runtime")
    assert fcntl.fcntl(handle, F_GET_SEALS) & EVERY_SEAL == EVERY_SEAL
    before = os.pread(handle, 1 << 26, 0)
    assert hashlib.sha256(before).digest() == hashlib.sha256(RUNTIME.read_bytes()).digest()
    os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)
    again = os.open(f"/proc/self/fd/{handle}", os.O_RDWR)
    for attempt in (
        lambda: os.write(again, b"x"),
        lambda: os.ftruncate(again, 0),
        lambda: os.ftruncate(again, 1 << 26),
        lambda: fcntl.fcntl(again, 1033, 0x10),
        lambda: os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_TRUNC),
    ):
        with pytest.raises(PermissionError):
            attempt()
    assert os.pread(handle, 1 << 26, 0) == before
    os.close(again)


@pytest.mark.parametrize("name", ["evil-script", "evil-elf"])
def test_a_program_that_runs_the_runtime_inside_gives_no_way_to_change_it(
    place: Run, evil: str, name: str
) -> None:
    container = f"sealed-{name}"
    place("rm", "-f", container)
    place("run", "-d", "--name", container, "--network", "none", evil, "sh", "-c", WAIT_AND_WRITE, check=True)
    # Its complaint goes to a pipe that nobody reads: it stays where it can be looked at.
    reader, full = os.pipe()
    os.set_blocking(full, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    environment = {
        **os.environ,
        "DUCKWEED_ROOT": place("info", "--format", "{{.DockerRootDir}}").stdout.strip(),
    }
    client = subprocess.Popen(
        [*command(), "exec", container, f"/bin/{name}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=full,
        env=environment,
    )
    os.close(full)
    try:
        pid = until("the runtime runs inside", lambda: process(f"/bin/{name}"))
        if name == "evil-elf":
            assert "/memfd:duckweed-runtime" in Path(f"/proc/{pid}/maps").read_text()
            return
        until("the container has caught it", lambda: "caught" in place("logs", container).stdout)
        handle = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    finally:
        os.close(reader)
        client.wait(30)
        if name == "evil-elf":
            place("rm", "-f", container)
    until("the container has tried", lambda: "done" in place("logs", container).stdout)
    assert place("logs", container).stdout == "caught\ndone\n"
    place("rm", "-f", container)
    assert_sealed(handle)
    os.close(handle)
    assert place("run", "--rm", evil, "true").returncode == 0


def test_init_of_a_privileged_container_gives_no_way_to_change_the_runtime(place: Run, evil: str) -> None:
    script = """readlink /proc/1/exe; exec 8</proc/1/exe || exit 3
        for way in /proc/1/exe /proc/self/fd/8; do echo x > $way || echo x >> $way || dd if=/dev/zero of=$way count=1
        [ $? = 0 ] && echo WROTE; done; echo done; sleep 100"""
    place("rm", "-f", "sealed-init")
    options = ["--init", "--privileged", "--network", "none", "--name", "sealed-init"]
    place("run", "-d", *options, evil, "sh", "-c", script, check=True)
    until("the container has tried", lambda: "done" in place("logs", "sealed-init").stdout)
    out = place("logs", "sealed-init").stdout
    init = int(place("inspect", "--format", "{{.State.Pid}}", "sealed-init").stdout)
    handle = os.open(f"/proc/{init}/exe", os.O_RDONLY)
    place("rm", "-f", "sealed-init")
    assert out == "/memfd:duckweed-runtime (deleted)\ndone\n"
    assert_sealed(handle)
    os.close(handle)


def test_a_plain_bundle_is_run_from_a_sealed_copy_too(tmp_path: Path) -> None:
    spec = {
        "ociVersion": "1.2.0",
        "process": {"args": ["/busybox", "cat"], "cwd": "/"},
        "root": {"path": "."},
    }
    spec["linux"] = {"namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "pid"}]}
    (tmp_path / "busybox").write_bytes(Path(images.static_busybox()).read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps(spec))
    run = subprocess.Popen([str(RUNTIME), "run", "--bundle", str(tmp_path), "x"], stdin=subprocess.PIPE)
    try:
        exe = until("it runs", lambda: (link := os.readlink(f"/proc/{run.pid}/exe")) != str(RUNTIME) and link)
        assert exe == "/memfd:duckweed-runtime (deleted)"
        handle = os.open(f"/proc/{run.pid}/exe", os.O_RDONLY)
    finally:
        assert run.stdin is not None
        run.stdin.close()
    assert run.wait(30) == 0
    assert_sealed(handle)
    os.close(handle)
