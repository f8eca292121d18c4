"""Peers on this machine's loopback, and containers of the machine's own files that talk to them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from conftest import Run

Serve = Callable[[Callable[[socket.socket], None]], int]
Start = Callable[..., str]


@pytest.fixture(autouse=True)
def _has_link(duckweed: Run) -> None:
    """Skips where no network of a container's own can be connected to the outside."""
    notes = json.loads(duckweed("info", "--format", "json").stdout)
    if "network interfaces are refused here" in json.dumps(notes):
        pytest.skip("network interfaces are refused here")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(talk)` listens on 127.0.0.1 and calls `talk(socket)` for each client; returns the port."""
    listeners: list[socket.socket] = []

    def start(talk: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listeners.append(listener)

        def meet(client: socket.socket) -> None:
            with client:
                client.settimeout(60)
                talk(client)

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=meet, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def python(duckweed: Run) -> Callable[..., str]:
    """`python(script, *flags)` runs a script in a container of the machine's own files; its output."""

    def run(script: str, *flags: str) -> str:
        done = duckweed("run", "--rm", *flags, "host", "/usr/bin/python3", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def start(duckweed: Run) -> Iterator[Start]:
    """`start(script, *flags)` runs a script in the background and returns the container's name. The script
    prints `ready` when it is; then this returns.
    """
    names: list[str] = []

    def run(script: str, *flags: str) -> str:
        names.append(f"t{os.urandom(6).hex()}")
        words = [
            "--stop-timeout",
            "1",
            "--name",
            names[-1],
            *flags,
            "host",
            "/usr/bin/python3",
            "-uc",
            script,
        ]
        duckweed("run", "-d", *words, check=True)
        wait_for(lambda: "ready" in duckweed("logs", names[-1]).stdout)
        return names[-1]

    yield run
    if names:
        duckweed("rm", "-f", "-v", *names)


def wait_for(claim: Callable[[], bool], seconds: float = 20) -> None:
    """Returns when the claim is true; fails when that takes too long."""
    import time

    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def network(duckweed: Run) -> Iterator[Callable[..., str]]:
    """`network(*flags)` makes a network and returns its name; removed afterwards."""
    names: list[str] = []

    def make(*flags: str) -> str:
        names.append(f"n{os.urandom(6).hex()}")
        duckweed("network", "create", *flags, names[-1], check=True)
        return names[-1]

    yield make
    for name in names:
        duckweed("network", "rm", name)
