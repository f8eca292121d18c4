"""Published ports: there while the container runs, led to the right place, and said to be where they are."""

from __future__ import annotations

import json
import socket
import urllib.request

from conftest import Run
from net.conftest import Start

ECHO_PEER = (
    "import socket; l = socket.create_server(('', {port})); print('ready')\n"
    "while True: c, a = l.accept(); c.sendall(a[0].encode()); c.close()"
)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def hear(address: str, port: int) -> str:
    with socket.create_connection((address, port), 20) as client:
        return client.recv(100).decode()


def own_address() -> str:
    """This machine's address towards others, or its loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.254", 9))
        except OSError:
            return "127.0.0.1"
        return str(one.getsockname()[0])


def test_a_port_leads_in_and_the_client_is_seen_as_it_is(start: Start) -> None:
    port = free_port()
    start(ECHO_PEER.format(port=80), "-p", f"{port}:80")
    assert hear("127.0.0.1", port) == "10.0.2.2"  # "here" means something else inside
    other = own_address()
    assert hear(other, port) == ("10.0.2.2" if other == "127.0.0.1" else other)


def test_a_web_server_below_1024_serves_files(duckweed: Run, start: Start) -> None:
    port = free_port()
    serve = (
        "print('ready'); import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=80)"
    )
    start(serve, "-p", f"127.0.0.1:{port}:80", "-w", "/usr/share")

    def is_there() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                return b"Directory listing" in answer.read()
        except OSError:
            return False

    from net.conftest import wait_for

    wait_for(is_there)


def test_udp_is_published_and_answered(start: Start) -> None:
    port = free_port()
    start(
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53)); print('ready')\n"
        "while True: d, a = s.recvfrom(9000); s.sendto(d[::-1], a)",
        "-p",
        f"127.0.0.1:{port}:53/udp",
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        for text in (b"abc", b"x" * 5000 + b"y"):
            client.sendto(text, ("127.0.0.1", port))
            assert client.recv(9000) == text[::-1]


def test_port_ps_and_inspect_say_where(duckweed: Run, start: Start) -> None:
    port = free_port()
    name = start(
        "print('ready'); import time; time.sleep(600)",
        "-p",
        f"127.0.0.1:{port}:80",
        "-p",
        "7",
        "--expose",
        "9/udp",
    )
    lines = duckweed("port", name).stdout.splitlines()
    assert f"80/tcp -> 127.0.0.1:{port}" in lines and any(
        line.startswith("7/tcp -> 0.0.0.0:") for line in lines
    )
    assert duckweed("port", name, "80").stdout == f"127.0.0.1:{port}\n"
    assert duckweed("port", name, "81").returncode == 1
    assert f"127.0.0.1:{port}->80/tcp" in duckweed("ps", "--format", "{{.Ports}}", "--no-trunc").stdout
    document = json.loads(duckweed("inspect", name).stdout)[0]
    assert document["HostConfig"]["PortBindings"]["80/tcp"] == [
        {"HostIp": "127.0.0.1", "HostPort": str(port)}
    ]
    assert document["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
    assert document["NetworkSettings"]["Ports"]["9/udp"] is None
    assert document["NetworkSettings"]["IPAddress"] == "10.0.2.100"


def test_a_port_in_use_is_one_line_and_remap_ports_takes_another(duckweed: Run, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = duckweed("run", "--rm", "-p", f"127.0.0.1:{port}:80", "host", "true")
        assert done.returncode == 125
        assert f"Bind for 127.0.0.1:{port}/tcp failed: port is already allocated (EADDRINUSE)" in done.stderr
        hint = "hint: publish another port, or let `--remap-ports` choose one"
        assert done.stderr.strip().splitlines()[1:] == [hint]
        name = start(ECHO_PEER.format(port=80), "--remap-ports", "-p", f"127.0.0.1:{port}:80")
    told = duckweed("port", name, "80").stdout.strip()
    assert told != f"127.0.0.1:{port}"
    assert hear("127.0.0.1", int(told.rpartition(":")[2])) == "10.0.2.2"


def test_a_range_is_published_one_to_one(duckweed: Run, start: Start) -> None:
    first = free_port()
    name = start(ECHO_PEER.format(port=81), "--remap-ports", "-p", f"127.0.0.1:{first}-{first + 2}:80-82")
    told = [int(duckweed("port", name, str(port)).stdout.rpartition(":")[2]) for port in (80, 81, 82)]
    # One that somebody else has had since is published elsewhere; the others keep their places.
    assert sum(port == first + at for at, port in enumerate(told)) >= 1
    assert hear("127.0.0.1", told[1]) == "10.0.2.2"


def test_ports_of_a_stopped_container_are_free_at_once_and_come_back(duckweed: Run, start: Start) -> None:
    port = free_port()
    name = start(ECHO_PEER.format(port=80), "-p", f"127.0.0.1:{port}:80")
    hear("127.0.0.1", port)
    duckweed("stop", "-t", "1", name, check=True)
    socket.create_server(("127.0.0.1", port)).close()
    assert json.loads(duckweed("inspect", name).stdout)[0]["NetworkSettings"]["Ports"] == {}
    duckweed("start", name, check=True)
    from net.conftest import wait_for

    wait_for(lambda: duckweed("logs", name).stdout.count("ready") == 2)
    assert hear("127.0.0.1", port) == "10.0.2.2"


def test_nonsense_is_refused_before_anything_is_made(duckweed: Run) -> None:
    for words in (
        ["-p", "80:x"],
        ["-p", "1-3:5-6"],
        ["-p", "70000:1"],
        ["-p", "1.2.3:1:1"],
        ["-p", "5/sctp"],
    ):
        done = duckweed("run", "--rm", *words, "host", "true")
        assert done.returncode == 125 and "Traceback" not in done.stderr, words
