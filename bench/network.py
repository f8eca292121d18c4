#!/usr/bin/env python3
"""Networks against the peers, side by side: throughput each way, CPU of the helper, round trips and connections.

The other end is always a process on this machine's loopback, so no wire hides the cost. Cases are interleaved,
round by round; the table shows best and median, and only ratios of one run mean anything. `loopback` is the same
without any container, `duckweed gate` a container whose sockets are this machine's, `veth` two namespaces joined by the kernel (what containers of one network have, and the bound
for them). Peers that are missing or fail here are named and left out: pasta and slirp4netns need a /dev/net/tun that
users may open, which duckweed does not.

    bench/network.py [--rounds 5] [--seconds 2] [--json FILE]

Run it as an ordinary user with the installed duckweed in this interpreter; it needs iperf3.
What each number includes: iperf3 with one stream, its receiver's view; the CPU is that of the process between container
and host (supervisor, pasta, slirp4netns) per GB moved, the kernel's work on its behalf among it; a round trip is one byte
each way on an open connection; a connection is connect, one byte each way, close.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

PYTHON = "/usr/bin/python3"
PING_PONG = """
import socket, sys, time
host, port, what, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
def connect():
    s = socket.create_connection((host, port), 20); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); return s
if what == "trips":
    s = connect(); times = []
    for _ in range(count):
        begun = time.perf_counter(); s.send(b"x"); s.recv(1); times.append(time.perf_counter() - begun)
    print(sorted(times)[count // 2] * 1e6)
else:
    begun = time.perf_counter()
    for _ in range(count):
        with connect() as s: s.send(b"x"); s.recv(1)
    print(count / (time.perf_counter() - begun))
"""

ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
while True:
    try:
        with listener.accept()[0] as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while piece := client.recv(64): client.send(piece)
    except OSError: pass
"""

# Runs words where a case's network is; `helper` is the pid whose CPU counts, or 0; `target` is the host from there.
Enter = Callable[[], "contextlib.AbstractContextManager[tuple[list[str], int, str]]"]


@contextlib.contextmanager
def serve_echo() -> Iterator[int]:
    """The port of a process that says everything back, to one client after another: it costs less than what is measured."""
    server = subprocess.Popen([PYTHON, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def loopback() -> Iterator[tuple[list[str], int, str]]:
    yield [], 0, "127.0.0.1"


def duckweed(*words: str) -> subprocess.CompletedProcess[str]:
    command = [os.path.join(os.path.dirname(sys.executable), "duckweed"), *words]
    return subprocess.run(command, text=True, capture_output=True, check=True)


@contextlib.contextmanager
def container(*flags: str) -> Iterator[tuple[list[str], int, str]]:
    name = f"bench-{os.urandom(4).hex()}"
    duckweed("run", "-d", "--name", name, "--allow-host-loopback", *flags, "host", "sleep", "1000")
    try:
        attrs = json.loads(duckweed("inspect", name).stdout)[0]
        enter = [os.path.join(os.path.dirname(sys.executable), "duckweed"), "exec", name]
        yield enter, int(attrs["Duckweed"]["SupervisorPid"]), "10.0.2.2"
    finally:
        duckweed("rm", "-f", name)


@contextlib.contextmanager
def holder(command: list[str]) -> Iterator[int]:
    """A process with namespaces of its own; the pid of what runs in them."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} exited {process.returncode}")
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def join(pid: int) -> list[str]:
    return ["nsenter", "-t", str(pid), "-U", "-n", "--preserve-credentials"]


@contextlib.contextmanager
def pasta(mtu: str) -> Iterator[tuple[list[str], int, str]]:
    with holder(["unshare", "-Urn", "sleep", "1000"]) as inner:
        options = [
            "-f",
            "-q",
            "--config-net",
            "--mtu",
            mtu,
            "-t",
            "none",
            "-u",
            "none",
            "-T",
            "none",
            "-U",
            "none",
        ]
        with holder(["pasta", *options, str(inner)]) as helper:
            routes = subprocess.run(
                [*join(inner), "ip", "route"], text=True, capture_output=True, check=True
            ).stdout
            yield join(inner), helper, routes.split("default via ")[1].split()[0]


@contextlib.contextmanager
def slirp4netns(mtu: str) -> Iterator[tuple[list[str], int, str]]:
    with (
        holder(["unshare", "-Urn", "sleep", "1000"]) as inner,
        holder(["slirp4netns", "-c", "-m", mtu, str(inner), "tap0"]) as helper,
    ):
        yield join(inner), helper, "10.0.2.2"


def throughput(
    enter: list[str], helper: int, target: str, seconds: int, reverse: bool
) -> tuple[float, float]:
    """Gbit/s as received, and the helper's CPU seconds per GB."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        server = subprocess.Popen(
            ["iperf3", "-s", "-1", "-p", str(port), "-B", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            cwd=directory,
        )
        try:
            await_listener(port)
            before = cpu_s(helper)
            words = [
                "iperf3",
                "-c",
                target,
                "-p",
                str(port),
                "-t",
                str(seconds),
                "-J",
                *(["-R"] if reverse else []),
            ]
            done = subprocess.run(
                [*enter, *words], text=True, capture_output=True, check=True, timeout=seconds + 30
            )
            received = json.loads(done.stdout)["end"]["sum_received"]
            return received["bits_per_second"] / 1e9, (cpu_s(helper) - before) / (received["bytes"] / 1e9)
        finally:
            server.kill()
            server.wait()


def await_listener(port: int) -> None:
    """Until the port listens; looked up, because a connection would be the server's only one."""
    wanted = f":{port:04X} 00000000:0000 0A"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with open("/proc/net/tcp") as file:
            if wanted in file.read():
                return
        time.sleep(0.01)
    raise RuntimeError("iperf3 does not listen")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def cpu_s(pid: int) -> float:
    if not pid:
        return 0.0
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(enter: list[str], target: str, port: int, what: str, count: int) -> float:
    words = [PYTHON, "-c", PING_PONG, target, str(port), what, str(count)]
    done = subprocess.run([*enter, *words], text=True, capture_output=True, check=True, timeout=120)
    return float(done.stdout)


def between_containers(seconds: int) -> tuple[float, float]:
    """Gbit/s from one member of a network to another, and of the kernel's veth alone."""
    lan, server = f"bench-{os.urandom(4).hex()}", f"bench-{os.urandom(4).hex()}"
    duckweed("network", "create", lan)
    try:
        duckweed("run", "-d", "--name", server, "--network", lan, "host", "iperf3", "-s")
        time.sleep(0.5)
        with container("--network", lan) as (enter, _, _):
            ours = received(enter, server, seconds)
    finally:
        duckweed("rm", "-f", server)
        duckweed("network", "rm", lan)
    with holder(["unshare", "-Urn", "sleep", "1000"]) as one:
        enter_one = join(one)
        with holder([*enter_one[:4], "--preserve-credentials", "unshare", "-n", "sleep", "1000"]) as two:
            enter_two = join(two)
            for command in (
                [
                    *enter_one,
                    "ip",
                    "link",
                    "add",
                    "name",
                    "end0",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "end1",
                    "netns",
                    str(two),
                ],
                [*enter_one, "ip", "addr", "add", "10.9.9.1/24", "dev", "end0"],
                [*enter_one, "ip", "link", "set", "end0", "up"],
                [*enter_two, "ip", "addr", "add", "10.9.9.2/24", "dev", "end1"],
                [*enter_two, "ip", "link", "set", "end1", "up"],
            ):
                subprocess.run(command, check=True)
            with holder([*enter_two, "iperf3", "-s"]):
                return ours, received(enter_one, "10.9.9.2", seconds)


def received(enter: list[str], target: str, seconds: int) -> float:
    words = ["iperf3", "-c", target, "-t", str(seconds), "-J"]
    done = subprocess.run([*enter, *words], text=True, capture_output=True, check=True, timeout=seconds + 30)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def published(seconds: int) -> float:
    """Gbit/s from the host into a container by a published port."""
    name, port = f"bench-{os.urandom(4).hex()}", free_port()
    duckweed("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:5201", "host", "iperf3", "-s")
    try:
        time.sleep(0.5)
        words = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", str(seconds), "-J"]
        done = subprocess.run(words, text=True, capture_output=True, check=True, timeout=seconds + 30)
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
    finally:
        duckweed("rm", "-f", name)


CASES: dict[str, Enter] = {
    "loopback": loopback,
    "duckweed": container,
    "duckweed gate": lambda: container("--network", "gate"),
    "pasta 65520": lambda: pasta("65520"),
    "pasta 1500": lambda: pasta("1500"),
    "slirp4netns 65520": lambda: slirp4netns("65520"),
    "slirp4netns 1500": lambda: slirp4netns("1500"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json")
    given = parser.parse_args()
    if not shutil.which("iperf3"):
        sys.exit("iperf3 is missing")
    with serve_echo() as echo:
        results = measure(given.rounds, given.seconds, echo)
    show(results)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file)


def measure(rounds: int, seconds: int, echo: int) -> dict[str, dict[str, list[float]]]:
    """Case, then column, then a value a round."""
    results: dict[str, dict[str, list[float]]] = {}
    cases = dict(CASES)
    for _ in range(rounds):
        for name, enter in list(cases.items()):
            try:
                with enter() as (words, helper, target):
                    out, out_cpu = throughput(words, helper, target, seconds, False)
                    into, into_cpu = throughput(words, helper, target, seconds, True)
                    trip = measured(words, target, echo, "trips", 3000)
                    rate = measured(words, target, echo, "connections", 1000)
            except (OSError, RuntimeError, subprocess.SubprocessError, LookupError) as error:
                print(f"{name}: left out: {error}", file=sys.stderr)
                del cases[name]
                continue
            found = results.setdefault(name, {})
            row = {
                "out": out,
                "in": into,
                "out cpu": out_cpu,
                "in cpu": into_cpu,
                "trip us": trip,
                "conn/s": rate,
            }
            for key, value in row.items():
                found.setdefault(key, []).append(value)
        try:
            ours, veth = between_containers(seconds)
            results.setdefault("container to container", {}).setdefault("out", []).append(ours)
            results.setdefault("veth alone", {}).setdefault("out", []).append(veth)
            results.setdefault("published port", {}).setdefault("in", []).append(published(seconds))
        except (OSError, RuntimeError, subprocess.SubprocessError, LookupError) as error:
            print(f"between containers: left out: {error}", file=sys.stderr)
    return results


def show(results: dict[str, dict[str, list[float]]]) -> None:
    """Best / median: the highest for rates, the lowest for costs."""
    columns = ("out", "in", "out cpu", "in cpu", "trip us", "conn/s")
    heads = ("out Gbit/s", "in Gbit/s", "out CPU s/GB", "in CPU s/GB", "trip us", "conn/s")
    print(f"{'best / median':24}" + "".join(f"{head:>18}" for head in heads))
    for name, found in results.items():
        cells = []
        for column in columns:
            values = found.get(column)
            if not values:
                cells.append("-")
                continue
            best = min(values) if column in ("out cpu", "in cpu", "trip us") else max(values)
            digits = 0 if best >= 50 else 2
            cells.append(f"{best:.{digits}f} / {statistics.median(values):.{digits}f}")
        print(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
