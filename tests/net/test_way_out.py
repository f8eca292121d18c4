"""What a container's connections to the outside are worth: TCP and UDP, both ways, to the end."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable

from conftest import Run
from net.conftest import Serve

LOOPBACK = "--allow-host-loopback"
CONNECT = "import socket, hashlib; s = socket.create_connection(('host.docker.internal', {port}), 20); "


def test_tcp_to_container_a_large_download_arrives_whole(serve: Serve, python: Callable[..., str]) -> None:
    data = bytes(range(256)) * 4096 * 64  # 64 MiB
    port = serve(lambda client: client.sendall(data))
    script = (
        CONNECT + "h = hashlib.sha256()\nwhile True:\n b = s.recv(1 << 20)\n if not b: break\n h.update(b)\n"
    )
    assert (
        python(script.format(port=port) + "print(h.hexdigest())", LOOPBACK).strip()
        == hashlib.sha256(data).hexdigest()
    )


def test_tcp_from_container_an_upload_ends_with_a_half_close_and_is_answered(
    serve: Serve, python: Callable[..., str]
) -> None:
    def talk(client: socket.socket) -> None:
        digest = hashlib.sha256()
        while piece := client.recv(1 << 20):
            digest.update(piece)
        client.sendall(digest.hexdigest().encode())

    data = b"up" * (16 << 20)
    script = (
        CONNECT + "s.sendall(b'up' * (16 << 20)); s.shutdown(socket.SHUT_WR); print(s.recv(100).decode())"
    )
    assert python(script.format(port=serve(talk)), LOOPBACK).strip() == hashlib.sha256(data).hexdigest()


def test_tcp_an_end_that_comes_with_the_last_bytes_is_seen(serve: Serve, python: Callable[..., str]) -> None:
    """Said and hung up before anybody looked: the bytes and the end are one event for who waits."""

    def talk(client: socket.socket) -> None:
        client.sendall(b"all there is")

    script = f"""
import socket
for _ in range(300):
    with socket.create_connection(("10.0.2.2", {serve(talk)}), 20) as peer:
        peer.settimeout(20)
        heard = b""
        while piece := peer.recv(100):
            heard += piece
        assert heard == b"all there is", heard
print("seen")
"""
    assert python(script, "--network", "bridge", "--allow-host-loopback") == "seen\n"


def test_tcp_a_peer_that_stops_reading_stops_the_sender_and_loses_nothing(
    serve: Serve, python: Callable[..., str]
) -> None:
    stuck = threading.Event()

    def slow(client: socket.socket) -> None:
        stuck.wait(30)
        count = 0
        while piece := client.recv(1 << 20):
            count += len(piece)
        client.sendall(str(count).encode())

    def tell(client: socket.socket) -> None:
        stuck.set()

    script = (
        CONNECT
        + "s.settimeout(1); sent = 0; more = True\n"
        + "while more:\n"
        + " try: sent += s.send(b'x' * 65536)\n"
        + " except TimeoutError: more = False\n"
        + "socket.create_connection(('host.docker.internal', {other}), 20)\n"
        + "s.settimeout(30); s.shutdown(socket.SHUT_WR); print(sent, s.recv(100).decode())"
    )
    sent, received = python(script.format(port=serve(slow), other=serve(tell)), LOOPBACK).split()
    assert sent == received and int(sent) > 65536


def test_tcp_a_peer_that_breaks_off_is_seen_to_break_off(serve: Serve, python: Callable[..., str]) -> None:
    def break_off(client: socket.socket) -> None:
        client.recv(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    script = (
        CONNECT
        + "s.sendall(b'x')\ntry: print('end', s.recv(10))\nexcept ConnectionResetError: print('reset')"
    )
    assert python(script.format(port=serve(break_off)), LOOPBACK) == "reset\n"


def test_tcp_a_refused_connection_is_refused(python: Callable[..., str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        script = f"import socket\nprint(socket.socket().connect_ex(('10.0.2.2', {port})))"
        assert python(script, LOOPBACK) == "111\n"


def test_tcp_hundreds_of_connections_at_once_and_one_after_another(
    serve: Serve, python: Callable[..., str]
) -> None:
    def echo(client: socket.socket) -> None:
        while piece := client.recv(100):
            client.sendall(piece)

    script = (
        "import socket\n"
        "def connect(): return socket.create_connection(('10.0.2.2', {port}), 20)\n"
        "at_once = [connect() for _ in range(400)]\n"
        "for n, s in enumerate(at_once): s.sendall(b'%d' % n)\n"
        "assert [s.recv(100) for s in at_once] == [b'%d' % n for n in range(400)]\n"
        "for s in at_once: s.close()\n"
        "for n in range(500):\n with connect() as s: s.sendall(b'x'); assert s.recv(1) == b'x'\n"
        "print('all')"
    )
    assert python(script.format(port=serve(echo)), LOOPBACK) == "all\n"


def test_udp_datagrams_come_back_small_and_in_fragments(python: Callable[..., str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)

        def echo() -> None:
            for _ in range(3):
                data, peer = server.recvfrom(65536)
                server.sendto(data, peer)

        thread = threading.Thread(target=echo)
        thread.start()
        script = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)\n"
            f"s.connect(('10.0.2.2', {server.getsockname()[1]}))\n"
            "for n in (1, 1400, 9000): s.send(b'u' * n); assert s.recv(65536) == b'u' * n\n"
            "print('all')"
        )
        assert python(script, LOOPBACK) == "all\n"
        thread.join()


def test_the_hosts_loopback_is_out_of_reach_unless_asked_for(
    serve: Serve, python: Callable[..., str]
) -> None:
    port = serve(lambda client: client.sendall(b"secret"))
    script = (
        "import socket, errno\n"
        "for host in ('10.0.2.2', '127.0.0.1', 'host.docker.internal'):\n"
        f" s = socket.socket(); s.settimeout(5); print(s.connect_ex((host, {port})) != 0)"
    )
    assert python(script) == "True\n" * 3
    reach = CONNECT.format(port=port).replace("host.docker.internal", "box") + "print(s.recv(100))"
    assert python(reach, "--add-host", "box:host-gateway") == "b'secret'\n"


def test_abstract_sockets_of_the_host_are_out_of_reach(python: Callable[..., str]) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0duckweed-test-abstract")
        server.listen()
        script = "import socket; print(socket.socket(socket.AF_UNIX).connect_ex('\\0duckweed-test-abstract'))"
        assert python(script) == "111\n"


def test_without_a_network_there_is_loopback_and_nothing_else(python: Callable[..., str]) -> None:
    script = (
        "import socket; print([name for _, name in socket.if_nameindex()]);"
        " print(socket.socket().connect_ex(('10.0.2.2', 80)))"
    )
    assert python(script, "--network", "none") == "['lo']\n101\n"


def test_the_gateway_answers_ping_without_privilege(python: Callable[..., str]) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.settimeout(10)\n"
        "s.sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\1' + b'p' * 20, ('10.0.2.2', 0)); print(s.recv(100)[-20:])"
    )
    assert python(script) == f"{b'p' * 20!r}\n"


def test_the_engine_runs_without_a_network_unless_asked(duckweed: Run) -> None:
    """`engine.run` is for thousands of short commands."""
    import os
    import subprocess
    import sys

    script = (
        "import duckweed; e = duckweed.Engine()\n"
        "for flags in ({}, {'network': 'bridge'}):\n"
        " print('eth0' in e.run('host', ['cat', '/proc/net/dev'], **flags).stdout.decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False\nTrue\n", done.stderr
