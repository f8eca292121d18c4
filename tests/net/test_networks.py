"""Named networks: members find and reach each other, others do not, and nothing is left of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from conftest import Run
from net.conftest import Start, wait_for

SERVER = (
    "import socket; l = socket.create_server(('', 80)); print('ready')\n"
    "while True: c, a = l.accept(); c.sendall(b'from ' + a[0].encode()); c.close()"
)
IDLE = "print('ready'); import time; time.sleep(600)"
Network = Callable[..., str]


def fetch(duckweed: Run, container: str, target: str) -> str:
    script = f"import socket; print(socket.create_connection(('{target}', 80), 5).recv(100).decode(), end='')"
    done = duckweed("exec", container, "/usr/bin/python3", "-c", script)
    return done.stdout if done.returncode == 0 else "unreachable"


def address(duckweed: Run, container: str, network: str) -> str:
    text = duckweed("inspect", container).stdout
    return str(json.loads(text)[0]["NetworkSettings"]["Networks"][network]["IPAddress"])


def test_members_reach_each_other_by_name_alias_and_short_id(
    duckweed: Run, network: Network, start: Start
) -> None:
    lan = network()
    server = start(SERVER, "--network", lan, "--network-alias", "www")
    client = start(IDLE, "--network", lan)
    came_from = f"from {address(duckweed, client, lan)}"
    short = duckweed("inspect", "-f", "{{.Id}}", server).stdout[:12]
    for name in (server, "www", short, f"{server}.{lan}", address(duckweed, server, lan)):
        assert fetch(duckweed, client, name) == came_from, name
    members = json.loads(duckweed("network", "inspect", lan).stdout)[0]["Containers"]
    assert {member["Name"] for member in members.values()} == {server, client}


def test_names_are_answered_over_tcp_several_on_one_connection(
    duckweed: Run, network: Network, start: Start
) -> None:
    lan = network()
    server = start(SERVER, "--network", lan)
    target = address(duckweed, server, lan)
    script = f"""
import socket, struct
def question(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    message = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!2H", 1, 1)
    return struct.pack("!H", len(message)) + message
with socket.create_connection(("10.0.2.3", 53), 10) as peer:
    peer.settimeout(10); reader = peer.makefile("rb")
    text = question("{server}") + question("{server}.{lan}")
    peer.sendall(text[:5]); peer.sendall(text[5:]); peer.shutdown(1)
    for _ in range(2):
        answer = reader.read(struct.unpack("!H", reader.read(2))[0])
        print(socket.inet_ntoa(answer[-4:]))
    assert reader.read() == b""
"""
    client = start(IDLE, "--network", lan)
    done = duckweed("exec", client, "/usr/bin/python3", "-c", script)
    assert done.stdout == f"{target}\n" * 2, done.stderr


def test_other_networks_and_the_default_network_do_not_reach_in(
    duckweed: Run, network: Network, start: Start
) -> None:
    lan, other = network(), network()
    server = start(SERVER, "--network", lan)
    target = address(duckweed, server, lan)
    for flags in (("--network", other), ()):
        client = start(IDLE, *flags)
        assert fetch(duckweed, client, target) == "unreachable"
        assert fetch(duckweed, client, server) == "unreachable"


def test_a_container_in_two_networks_is_in_both(duckweed: Run, network: Network, start: Start) -> None:
    one, two = network(), network()
    server = start(SERVER, "--network", one, "--network", two)
    for lan in (one, two):
        client = start(IDLE, "--network", lan)
        assert fetch(duckweed, client, server) == f"from {address(duckweed, client, lan)}"


def test_members_may_die_in_any_way_and_the_network_goes_on(
    duckweed: Run, network: Network, start: Start
) -> None:
    lan = network()
    first, second = start(SERVER, "--network", lan), start(IDLE, "--network", lan)
    supervisor = int(duckweed("inspect", "-f", "{{.Duckweed.SupervisorPid}}", first).stdout)
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: duckweed("inspect", "-f", "{{.State.Status}}", first).stdout == "exited\n")
    assert fetch(duckweed, second, first) == "unreachable"
    third = start(SERVER, "--network", lan)
    assert fetch(duckweed, second, third).startswith("from ")
    duckweed("start", first, check=True)
    wait_for(lambda: duckweed("logs", first).stdout.count("ready") == 2)
    assert fetch(duckweed, second, first).startswith("from ")


def test_an_internal_network_has_names_and_no_way_out(duckweed: Run, network: Network, start: Start) -> None:
    lan = network("--internal")
    server, client = start(SERVER, "--network", lan), start(IDLE, "--network", lan)
    assert fetch(duckweed, client, server).startswith("from ")
    script = "import socket; print(socket.socket().connect_ex(('192.0.2.1', 80)))"
    assert duckweed("exec", client, "/usr/bin/python3", "-c", script).stdout == "101\n"


def test_the_network_of_another_container_is_shared_with_its_commands(duckweed: Run, start: Start) -> None:
    server = start(SERVER)
    guest = start(IDLE, "--network", f"container:{server}")
    assert fetch(duckweed, guest, "127.0.0.1") == "from 127.0.0.1"
    done = duckweed("run", "--rm", "--network", "container:no-such", "host", "true")
    assert done.returncode != 0 and "No such container: no-such" in done.stderr


def test_addresses_can_be_chosen_and_are_given_once(duckweed: Run, network: Network, start: Start) -> None:
    lan = network("--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254")
    one = start(IDLE, "--network", lan, "--ip", "10.77.0.9")
    assert address(duckweed, one, lan) == "10.77.0.9"
    for wanted in ("10.77.0.9", "10.78.0.1"):
        assert duckweed("run", "--rm", "--network", lan, "--ip", wanted, "host", "true").returncode == 125
    duckweed("rm", "-f", one, check=True)
    assert duckweed("run", "--rm", "--network", lan, "--ip", "10.77.0.9", "host", "true").returncode == 0


def test_a_stopped_container_can_be_connected_and_disconnected(
    duckweed: Run, network: Network, start: Start
) -> None:
    lan = network()
    server, client = start(SERVER, "--network", lan), start(IDLE)
    assert fetch(duckweed, client, server) == "unreachable"
    assert "while it runs" in duckweed("network", "connect", lan, client).stderr
    duckweed("stop", "-t", "1", client, check=True)
    duckweed("network", "connect", lan, client, check=True)
    duckweed("start", client, check=True)
    assert fetch(duckweed, client, server).startswith("from ")
    duckweed("stop", "-t", "1", client, check=True)
    duckweed("network", "disconnect", lan, client, check=True)
    duckweed("start", client, check=True)
    assert fetch(duckweed, client, server) == "unreachable"


def test_a_running_member_joins_and_leaves_other_networks(
    duckweed: Run, network: Network, start: Start
) -> None:
    lan, new, full = network(), network(), network()
    member, server = start(SERVER, "--network", lan), start(SERVER, "--network", full)
    # A network that nobody is in yet, and one whose namespace another member keeps.
    for name in (new, full):
        done = duckweed("network", "connect", "--alias", "late", name, member)
        assert done.returncode == 0, done.stderr
    assert fetch(duckweed, member, server) == f"from {address(duckweed, member, full)}"
    assert fetch(duckweed, server, "late") == f"from {address(duckweed, server, full)}"
    client = start(IDLE, "--network", new)
    assert fetch(duckweed, client, member).startswith("from ")
    done = duckweed("network", "disconnect", full, member)
    assert done.returncode == 0, done.stderr
    assert fetch(duckweed, member, server) == "unreachable"
    assert fetch(duckweed, server, "late") == "unreachable"
    duckweed("stop", "-t", "1", member, check=True)
    duckweed("start", member, check=True)
    wait_for(lambda: fetch(duckweed, client, member).startswith("from "))


def test_a_network_in_use_stays_and_an_unused_one_goes(duckweed: Run, network: Network, start: Start) -> None:
    lan = network("--label", "who=me")
    one = start(IDLE, "--network", lan)
    done = duckweed("network", "rm", lan)
    assert done.returncode == 1 and "has active endpoints" in done.stderr
    assert lan in duckweed("network", "ls", "--filter", "label=who=me", "--format", "{{.Name}}").stdout
    duckweed("rm", "-f", one, check=True)
    assert duckweed("network", "rm", lan).stdout == f"{lan}\n"
    assert duckweed("network", "inspect", lan).returncode == 1
    assert "not found" in duckweed("run", "--rm", "--network", lan, "host", "true").stderr


def test_predefined_networks_are_there_and_stay(duckweed: Run) -> None:
    assert duckweed("network", "ls", "--format", "{{.Name}} {{.Driver}}").stdout.splitlines()[:3] == [
        "bridge bridge",
        "host host",
        "none null",
    ]
    assert duckweed("network", "rm", "bridge").returncode == 1
    assert duckweed("network", "create", "host").returncode == 1
