"""What one `engine.run` hands on to the next: an overlay and a network, and nothing of the container before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import duckweed

# More than an engine keeps supervisors, so that each has had one like the last.
WARM = 8
# Nothing is handed on by a container whose calls somebody answers (an account with one uid).
QUIET = {"root_emulation": "off"}


@pytest.fixture
def engine(root: Path, busybox: str) -> Iterator[duckweed.Engine]:
    with duckweed.Engine(root=str(root)) as one:
        for _ in range(WARM):
            one.run("busybox", ["true"], check=True, **QUIET)
        yield one


def said(engine: duckweed.Engine, script: str, **options: object) -> str:
    options = {**QUIET, **options}
    return engine.run("busybox", ["sh", "-c", script], check=True, **options).stdout.decode()


TRACES = {
    "a file": ("echo secret > /left", "test ! -e /left"),
    "a file made and removed": ("echo secret > /left; rm /left", "test ! -e /left"),
    "a directory below": ("mkdir -p /etc/left", "test ! -e /etc/left"),
    "a removed file": ("rm /bin/true", "test -e /bin/true"),
    "the mode of the root": ("chmod 700 /", "test $(stat -c %a /) = 755"),
    "the mode of a file": ("chmod 700 /etc", "test $(stat -c %a /etc) = 755"),
    "a file in /dev": ("echo secret > /dev/left", "test ! -e /dev/left"),
    "a missing link in /dev": ("rm /dev/fd", "test -L /dev/fd"),
    "shared memory": ("echo secret > /dev/shm/left", "test ! -e /dev/shm/left"),
    "a host name": ("hostname left || true", "test $(hostname) = $(cat /etc/hostname)"),
    "a hosts entry": ("echo 10.0.0.1 left >> /etc/hosts", "! grep -q left /etc/hosts"),
    "a process": ("sleep 1000 & true", "! pgrep sleep"),
}


@pytest.mark.parametrize("trace", TRACES)
def test_no_trace_is_found_by_the_next(engine: duckweed.Engine, trace: str) -> None:
    leave, look = TRACES[trace]
    for _ in range(3):
        said(engine, leave)
        for _ in range(3):
            said(engine, look)


def test_a_used_network_is_not_handed_on(engine: duckweed.Engine) -> None:
    # A server that closes first leaves its port in TIME_WAIT: the next one could not have it.
    talk = "(echo hello | nc -l -p 7777 127.0.0.1) & sleep 0.2; nc 127.0.0.1 7777 < /dev/null; wait"
    for _ in range(3):
        assert "hello" in said(engine, talk)
        for _ in range(3):
            counters = said(engine, "tail -n +3 /proc/net/dev").split()
            assert counters[0] == "lo:" and set(counters[1:]) == {"0"}
            assert said(engine, "tail -n +2 /proc/net/tcp") == ""


def test_a_container_with_more_rights_gets_nothing_and_leaves_nothing(engine: duckweed.Engine) -> None:
    raised = "echo 1 > /proc/sys/net/ipv4/ip_forward 2>/dev/null; ip addr add 10.9.9.9/8 dev lo"
    for _ in range(3):
        said(engine, raised, cap_add=["NET_ADMIN"])
        assert "10.9.9.9" not in said(engine, "ip addr")
        assert said(engine, "cat /proc/sys/net/ipv4/ip_forward") == "0\n"


def test_a_quiet_container_hands_its_network_on(engine: duckweed.Engine) -> None:
    seen = [said(engine, "readlink /proc/self/ns/net", **QUIET) for _ in range(12)]
    if len(set(seen)) == len(seen):
        pytest.skip("this kernel cannot copy a detached mount (Linux 6.15)")
    assert len(set(seen)) < len(seen)


def test_containers_at_once_share_no_network(engine: duckweed.Engine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    script = "readlink /proc/self/ns/net; sleep 0.3"
    with ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            seen = list(pool.map(lambda _: said(engine, script), range(6)))
            assert len(set(seen)) == 6


def test_other_options_are_honoured_between_equal_ones(engine: duckweed.Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host")
    os.chmod(tmp_path, 0o755)
    for _ in range(3):
        assert said(engine, "cat /in/file", volume=f"{tmp_path}:/in:ro") == "host"
        assert said(engine, "hostname", hostname="named") == "named\n"
        said(engine, "grep -q '^[^ ]* / [^ ]* ro,' /proc/mounts", read_only=True)
        assert said(engine, "id -u", user="0") == "0\n"
        assert said(engine, "test ! -e /in; pwd", workdir="/made/here") == "/made/here\n"
        said(engine, "test ! -e /made; test ! -e /in")


def test_an_image_that_is_replaced_is_what_the_next_container_sees(tmp_path: Path, archives: Path) -> None:
    with duckweed.Engine(root=str(tmp_path / "store")) as engine:
        engine.images.load(str(archives / "busybox.tar"))
        for _ in range(WARM):
            said(engine, "true")
        engine.images.remove("busybox", force=True)
        with pytest.raises(duckweed.NoSuchImage):
            engine.run("busybox", ["true"], pull="never")
        engine.images.load(str(archives / "busybox.tar"))
        for _ in range(4):
            said(engine, "test -x /bin/sh")


def test_a_closed_engine_leaves_no_slot(root: Path, busybox: str) -> None:
    with duckweed.Engine(root=str(root)) as engine:
        # Those of other engines on this store, killed ones among them, are none of this one's business.
        others = set(os.listdir(engine.layout.tmp))
        for _ in range(WARM):
            engine.run("busybox", ["true"], check=True, **QUIET)
        slots = [name for name in os.listdir(engine.layout.tmp) if "-slot-" in name and name not in others]
        assert slots
    assert not [name for name in slots if os.path.exists(f"{root}/tmp/{name}")]


def test_an_engine_that_just_ends_leaves_no_slot(root: Path, busybox: str) -> None:
    import subprocess
    import sys
    import time

    script = (
        "import duckweed, os, sys\n"
        "engine = duckweed.Engine(sys.argv[1])\n"
        "before = set(os.listdir(engine.layout.tmp))\n"
        "for _ in range(6): engine.run('busybox', ['true'], check=True, root_emulation='off')\n"
        "print(*(set(os.listdir(engine.layout.tmp)) - before))\n"
        "sys.stdout.flush()\n"
        "if sys.argv[2] == 'kill': os.kill(os.getpid(), 9)\n"
    )
    for how in ("end", "kill"):
        told = subprocess.run(
            [sys.executable, "-c", script, str(root), how], stdout=subprocess.PIPE, check=False
        )
        slots = told.stdout.decode().split()
        assert slots
        deadline = time.monotonic() + 20
        while any(os.path.exists(f"{root}/tmp/{name}") for name in slots):
            assert time.monotonic() < deadline
            time.sleep(0.01)
