"""Networks without interfaces: members find each other by name and reach each other's sockets, nobody else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, runner
from net.conftest import Serve, Start
from net.test_gate import free_port, get
from trap.conftest import runner_in

SERVER = """
import socket, socketserver, threading
class Stream(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(99); self.request.sendall(f"HTTP/1.0 200 OK\\r\\n\\r\\n{NAME} {self.client_address[0]}".encode())
class Datagram(socketserver.BaseRequestHandler):
    def handle(self): self.request[1].sendto(f"{NAME} {self.client_address[0]}".encode(), self.client_address)
streams = socketserver.ThreadingTCPServer(("0.0.0.0", 80), Stream)
inner = socketserver.ThreadingTCPServer(("127.0.0.1", 81), Stream)
class Both(socketserver.ThreadingTCPServer): address_family = socket.AF_INET6
both = Both(("::", 82), Stream)
datagrams = socketserver.ThreadingUDPServer(("0.0.0.0", 53), Datagram)
for server in (streams, inner, both, datagrams): threading.Thread(target=server.serve_forever).start()
print("ready")
"""

ASK = """
import socket, sys
def tcp(name, port=80):
    try:
        with socket.create_connection((name, port), 10) as peer:
            peer.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); return peer.recv(999).decode().rpartition("\\n")[2]
    except OSError as error: return type(error).__name__
def udp(name, connects):
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(10)
        try:
            if connects: one.connect((name, 53)); one.send(b"?"); return one.recv(99).decode()
            one.sendto(b"?", (name, 53)); text, who = one.recvfrom(99)
            return text.decode() + ("" if SEES_PEERS == 0 or who == (socket.gethostbyname(name), 53) else f" from {who}")
        except OSError as error: return type(error).__name__
"""


@pytest.fixture(params=["userns", "trap"])
def duckweed(request: pytest.FixtureRequest, root: Path) -> Run:
    """A runner with each isolation, where interfaces are refused."""
    plain = (
        runner_in("pod", root) if request.param == "trap" else runner(root, {"DUCKWEED_PRETEND": "no-link"})
    )
    if (
        "cannot be answered from outside"
        in plain("run", "--rm", "--network", "gate", "host", "/bin/true").stderr
    ):
        pytest.skip("system calls cannot be answered from outside here")
    plain.sees_peers = int(request.param == "trap")  # type: ignore[attr-defined]
    return plain


@pytest.fixture(autouse=True)
def _has_link() -> None:
    """No link is needed here."""


def ask(duckweed: Run, name: str, script: str) -> str:
    """What a script in a container says."""
    script = f"SEES_PEERS = {duckweed.sees_peers}\n{ASK}\n{script}"  # type: ignore[attr-defined]
    done = duckweed("exec", name, "/usr/bin/python3", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ask_all(duckweed: Run, name: str, *questions: str) -> list[str]:
    """The answers to several."""
    return ask(duckweed, name, f"print({', '.join(questions)}, sep='\\n')").splitlines()


def test_members_find_each_other_by_name_alias_and_short_id_and_others_do_not(
    duckweed: Run, network: Callable[..., str], start: Start
) -> None:
    lan, away = network(), network()
    port = free_port()
    one = start(f"NAME = 'one'\n{SERVER}", "--network", lan, "--network-alias", "web")
    two = start(f"NAME = 'two'\n{SERVER}", "--network", lan, "-p", f"127.0.0.1:{port}:80", "-p", "82")
    other = start(f"NAME = 'other'\n{SERVER}", "--network", away)
    addresses = {
        name: duckweed(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name
        ).stdout.strip()
        for name in (one, two, other)
    }
    short = duckweed("inspect", "-f", "{{.Id}}", one).stdout[:12]
    # With a user namespace nobody looks at what accept and recvfrom tell.
    by = addresses if duckweed.sees_peers else dict.fromkeys(addresses, "127.")  # type: ignore[attr-defined]
    heard = ask_all(
        duckweed,
        two,
        *(f"tcp('{name}')" for name in (one, "web", short, f"{one}.{lan}", addresses[one])),
        *(f"udp('{one}', {connects})" for connects in (True, False)),
    )
    assert all(word.startswith(f"one {by[two]}") for word in heard), heard
    heard = ask_all(duckweed, one, f"tcp('{two}')", f"udp('{two}', True)", f"udp('{two}', False)")
    assert all(word.startswith(f"two {by[one]}") for word in heard), heard
    assert get(port) == "two 127.0.0.1"
    # A listener for both families, at its own port and at one that is published; and a loopback that is one's own.
    heard = ask_all(duckweed, one, f"tcp('{two}', 82)", "tcp('127.0.0.1', 81)")
    assert heard[0].startswith(f"two ::ffff:{by[one]}") and heard[1] == "one 127.0.0.1", heard
    heard = ask_all(
        duckweed,
        two,
        *(f"tcp('{one}', 82)", f"tcp('{one}', 81)", f"tcp('{other}')", f"tcp('{addresses[other]}')"),
    )
    assert heard[0].startswith(f"one ::ffff:{by[two]}"), heard
    assert heard[1:] == ["ConnectionRefusedError", "gaierror", "OSError"]
    duckweed("rm", "-f", other, check=True)


def test_a_running_container_joins_and_leaves(
    duckweed: Run, network: Callable[..., str], start: Start
) -> None:
    lan, away = network(), network()
    one = start(f"NAME = 'one'\n{SERVER}", "--network", lan)
    two = start(f"NAME = 'two'\n{SERVER}", "--network", away)
    assert ask(duckweed, two, f"print(tcp('{one}'))") == "gaierror"
    duckweed("network", "connect", "--alias", "guest", lan, two, check=True)
    assert ask(duckweed, two, f"print(tcp('{one}').split()[0])") == "one"
    assert ask(duckweed, one, "print(tcp('guest').split()[0])") == "two"
    duckweed("network", "disconnect", lan, two, check=True)
    assert ask(duckweed, two, f"print(tcp('{one}'))") == "gaierror"
    assert ask(duckweed, one, "print(tcp('guest'))") == "gaierror"


def test_a_container_without_networks_joins_one_while_it_runs_where_a_tracer_answers(
    duckweed: Run, network: Callable[..., str], start: Start
) -> None:
    lan = network()
    one = start(f"NAME = 'one'\n{SERVER}", "--network", lan)
    two = start(f"NAME = 'two'\n{SERVER}", "--network", "gate")
    joined = duckweed("network", "connect", lan, two)
    if not duckweed.sees_peers:  # type: ignore[attr-defined]
        assert joined.returncode == 1 and "cannot be combined" in joined.stderr
        return
    assert joined.returncode == 0, joined.stderr
    assert ask_all(duckweed, two, f"tcp('{one}')[:4]", "tcp('127.0.0.1')") == ["one ", "two 127.0.0.1"]
    assert ask(duckweed, one, f"print(tcp('{two}')[:3])") == "two"
    duckweed("network", "disconnect", lan, two, check=True)
    assert ask(duckweed, two, f"print(tcp('{one}'))") == "gaierror"
    assert duckweed("inspect", "-f", "{{.HostConfig.NetworkMode}}", two).stdout == "gate\n"


def test_names_are_asked_over_tcp_too_and_the_host_is_there(
    duckweed: Run, network: Callable[..., str], start: Start, serve: Serve
) -> None:
    lan = network()
    one = start(f"NAME = 'one'\n{SERVER}", "--network", lan, "--allow-host-loopback")
    port = serve(lambda client: client.sendall(b"host"))
    script = f"""
question = b"\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0" + bytes([len("{one}")]) + b"{one}" + b"\\0\\0\\x01\\0\\x01"
with socket.create_connection(("10.0.2.3", 53), 10) as peer:
    peer.sendall(len(question).to_bytes(2, "big") + question); answer = peer.recv(999)
assert peer and answer[2:4] == question[:2] and answer[-4:] == socket.inet_aton(socket.gethostbyname("{one}")), answer
print(tcp("host.docker.internal", {port}))
"""
    assert ask(duckweed, one, script) == "host"


def test_an_internal_network_leads_nowhere_else(
    duckweed: Run, network: Callable[..., str], start: Start
) -> None:
    lan = network("--internal")
    one = start(f"NAME = 'one'\n{SERVER}", "--network", lan)
    two = start(f"NAME = 'two'\n{SERVER}", "--network", lan)
    assert (
        ask(duckweed, two, f"print(tcp('{one}').split()[0], tcp('192.0.2.1'), tcp('example.invalid'))")
        == "one OSError gaierror"
    )
