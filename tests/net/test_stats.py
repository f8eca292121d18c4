"""`stats`: what a container uses."""

from __future__ import annotations

import json
import socket

from conftest import Run
from net.conftest import Serve, Start


def test_stats_count_what_crosses_the_way_out(duckweed: Run, serve: Serve, start: Start) -> None:
    def talk(client: socket.socket) -> None:
        client.sendall(bytes(5_000_000))

    script = f"""
import socket, time
with socket.create_connection(("10.0.2.2", {serve(talk)}), 20) as peer:
    while peer.recv(1 << 20): pass
kept = bytearray(b"x") * 50_000_000
print("ready"); time.sleep(600)
"""
    name = start(script, "--allow-host-loopback")
    row = json.loads(duckweed("stats", "--no-stream", "--format", "json", name, check=True).stdout)
    received, _, sent = row["NetIO"].partition(" / ")
    assert received.endswith("MB") and 5 <= float(received[:-2]) < 6, row
    assert sent.endswith("kB"), row
    usage = row["MemUsage"].partition(" / ")[0]
    assert usage.endswith("MiB") and 47 < float(usage[:-3]) < 100, row
    assert (row["Name"], row["PIDs"]) == (name, "1")
    table = duckweed("stats", "--no-stream").stdout.splitlines()
    assert table[0].split()[:3] == ["CONTAINER", "ID", "NAME"] and any(name in line for line in table[1:])


def test_a_stopped_container_uses_nothing(duckweed: Run) -> None:
    made = duckweed("create", "host", "true", check=True).stdout.strip()
    shown = duckweed("stats", "--no-stream", "--format", "{{.ID}} {{.CPUPerc}} {{.NetIO}}", made).stdout
    assert shown == f"{made[:12]} -- --\n"
    duckweed("rm", made, check=True)
