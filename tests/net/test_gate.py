"""The network `gate`: sockets of this machine, told where they may go; with namespaces, and in a pod without."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from conftest import Run, runner
from net.conftest import Start, wait_for
from trap.conftest import runner_in

GATE = ("--network", "gate")

SERVER = """
import http.server, socketserver
class Talk(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{NAME} {self.client_address[0]} {self.connection.getsockname()[1]}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = socketserver.ThreadingTCPServer(("0.0.0.0", 80), Talk)
assert server.socket.getsockname() == ("0.0.0.0", 80)
print("ready"); server.serve_forever()
"""


@pytest.fixture(params=["userns", "trap"])
def duckweed(request: pytest.FixtureRequest, root: Path) -> Run:
    """A runner with each isolation."""
    return runner_in("pod", root) if request.param == "trap" else runner(root)


@pytest.fixture(autouse=True)
def _can_answer_calls(duckweed: Run) -> None:
    tried = duckweed("run", "--rm", *GATE, "host", "/bin/true")
    if "cannot be answered from outside" in tried.stderr:
        pytest.skip("system calls cannot be answered from outside here")


def get(port: int, path: str = "/") -> str:
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        heard = b""
        while piece := peer.recv(4096):
            heard += piece
    return heard.partition(b"\r\n\r\n")[2].decode()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_two_containers_listen_on_80_and_each_has_its_own(duckweed: Run, start: Start) -> None:
    port = free_port()
    one = start(f"NAME = 'one'\n{SERVER}", *GATE, "-p", f"127.0.0.1:{port}:80")
    two = start(f"NAME = 'two'\n{SERVER}", *GATE)
    assert get(port) == "one 127.0.0.1 80"
    script = "import urllib.request as u, sys; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
    for name, word in ((one, "one"), (two, "two")):
        for url in ("http://127.0.0.1/", "http://localhost/", "http://10.0.2.100/"):
            done = duckweed("exec", name, "/usr/bin/python3", "-c", script, url)
            assert done.stdout.startswith(f"{word} 127.0.0.1 80"), done.stderr
    assert f"{port}" in duckweed("port", one).stdout


def test_only_the_gateway_is_the_host_and_its_loopback_only_when_asked_for(
    duckweed: Run, serve: object
) -> None:
    port = serve(lambda client: client.sendall(b"host"))  # type: ignore[operator]
    script = f"""
import socket
def ask(address):
    try:
        with socket.create_connection((address, {port}), 10) as peer:
            return peer.recv(9).decode() + " " + peer.getpeername()[0]
    except ConnectionRefusedError:
        return "refused"
print(ask("127.0.0.1"), ask("::1"), ask("::ffff:127.0.0.1"), ask("0.0.0.0"), ask("127.9.9.9"), ask("10.0.2.2"), sep=";")
"""
    words = ("host", "/usr/bin/python3", "-c", script)
    closed = duckweed("run", "--rm", *GATE, *words)
    assert closed.stdout == ";".join(["refused"] * 6) + "\n", closed.stderr
    opened = duckweed("run", "--rm", *GATE, "--allow-host-loopback", *words)
    assert opened.stdout == ";".join(["refused"] * 5) + ";host 127.0.0.1\n", opened.stderr


def test_sockets_of_every_shape_work_inside(duckweed: Run) -> None:
    script = """
import asyncio, select, socket, threading
# Blocking and not, both families, a port of one's own, epoll before connect, duplicates, datagrams.
for family, here in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind((here, 0)); listener.listen()
        assert listener.getsockname()[0] == here
        poll = select.epoll(); poll.register(client, select.EPOLLOUT)
        twin = client.dup(); client.setblocking(False)
        assert client.connect_ex(listener.getsockname()) in (0, 115)
        assert poll.poll(10); peer, _ = listener.accept()
        twin.sendall(b"x"); assert peer.recv(1) == b"x"
        assert twin.getpeername()[:2] == listener.getsockname()[:2], (twin.getpeername(), listener.getsockname())
with socket.socket() as one, socket.socket() as two:
    one.bind(("0.0.0.0", 8080)); one.listen()
    try: two.bind(("0.0.0.0", 8080)); print("bound twice")
    except OSError as error: assert error.errno == 98, error
a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
a.bind(("0.0.0.0", 5353)); a.settimeout(10); b.settimeout(10)
b.sendto(b"question", ("127.0.0.1", 5353)); text, who = a.recvfrom(99); a.sendto(b"answer", who)
assert b.recv(99) == b"answer"
b.sendmsg([b"que", b"stion"], [], 0, ("127.0.0.1", 5353)); assert a.recv(99) == b"question"
for what in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_DGRAM, 0), (40, socket.SOCK_STREAM, 0)):
    try: socket.socket(*what); print("leaked", what)
    except OSError: pass
try: a.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + bytes(4)); print("joined")
except OSError: pass
async def main():
    async def talk(reader, writer): writer.write(await reader.read(9)); writer.close()
    server = await asyncio.start_server(talk, "localhost", 8000)
    reader, writer = await asyncio.open_connection("localhost", 8000)
    writer.write(b"hello"); assert await reader.read(9) == b"hello"
asyncio.run(main())
threads = [threading.Thread(target=lambda: socket.create_connection(("127.0.0.1", 9000), 10).close()) for _ in range(8)]
with socket.create_server(("127.0.0.1", 9000)) as server:
    for thread in threads: thread.start()
    for _ in threads: server.accept()
    for thread in threads: thread.join()
print("all")
"""
    done = duckweed("run", "--rm", *GATE, "host", "/usr/bin/python3", "-c", script)
    assert (done.stdout, done.stderr) == ("all\n", "")


def test_a_port_in_use_is_refused_before_the_start_and_free_after_the_end(
    duckweed: Run, start: Start
) -> None:
    port = free_port()
    name = start(f"NAME = 'one'\n{SERVER}", *GATE, "-p", f"127.0.0.1:{port}:80")
    refused = duckweed("run", "--rm", *GATE, "-p", f"127.0.0.1:{port}:80", "host", "/bin/true")
    assert refused.returncode == 125 and "port is already allocated" in refused.stderr
    duckweed("stop", "-t", "0", name, check=True)
    wait_for(
        lambda: (
            duckweed("run", "--rm", *GATE, "-p", f"127.0.0.1:{port}:80", "host", "/bin/true").returncode == 0
        )
    )


def test_where_interfaces_are_refused_the_gate_is_the_default(
    duckweed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUCKWEED_PRETEND", "no-link")
    script = "import socket; s = socket.create_server(('0.0.0.0', 80)); print(s.getsockname())"
    done = duckweed("run", "--rm", "host", "/usr/bin/python3", "-c", script)
    assert done.stdout == "('0.0.0.0', 80)\n", done.stderr
    monkeypatch.setenv("DUCKWEED_PRETEND", "no-netns")
    done = duckweed("run", "--rm", "host", "/usr/bin/python3", "-c", script)
    assert done.stdout == "('0.0.0.0', 80)\n", done.stderr
    named = duckweed("run", "--rm", "--network", "bridge", "host", "/usr/bin/python3", "-c", script)
    assert named.stdout == "('0.0.0.0', 80)\n", named.stderr
