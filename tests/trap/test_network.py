"""What the network of a container without namespaces is, and is not."""

from __future__ import annotations

import os
import socket

from conftest import Run


def test_the_network_none_reaches_nobody_but_the_container_itself(pod: Run) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        script = f"""
import socket
own = socket.create_server(("127.0.0.1", {server.getsockname()[1]}))
for family, address in ((2, "10.0.2.2"), (2, "192.0.2.1"), (10, "2001:db8::1"), (2, "{address_of_ours()}")):
    for kind in (1, 2):
        with socket.socket(family, kind) as one:
            try: one.connect((address, {server.getsockname()[1]})); print("reached", address)
            except OSError as error: assert error.errno in (101, 111, 113), error
one = socket.create_connection(own.getsockname()); print("alone", own.accept()[0].getsockname() == own.getsockname())
"""
        done = pod("run", "--rm", "--network", "none", "host", "/usr/bin/python3", "-c", script)
        assert done.stdout == "alone True\n", done.stderr
        server.settimeout(0.01)
        try:
            server.accept()
            raise AssertionError("somebody came")
        except TimeoutError:
            pass


def address_of_ours() -> str:
    """The machine's address to others, or its loopback's."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.254", 9))
        except OSError:
            return "127.0.0.1"
        return str(one.getsockname()[0])


def test_abstract_names_are_the_containers_own(pod: Run) -> None:
    name = f"duckweed-test-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(f"\0{name}")
        outside.listen()
        script = f"""
import socket
try: socket.socket(socket.AF_UNIX).connect("\\0{name}"); print("reached")
except ConnectionRefusedError: pass
own = socket.socket(socket.AF_UNIX); own.bind("\\0{name}"); own.listen()
assert own.getsockname() == b"\\0{name}", own.getsockname()
client = socket.socket(socket.AF_UNIX); client.connect("\\0{name}")
assert client.getpeername() == b"\\0{name}"
peer, who = own.accept()
one, two = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
one.bind(""); two.bind("\\0b-{name}"); two.connect(one.getsockname()); two.send(b"x")
assert one.recvfrom(9) == (b"x", b"\\0b-{name}"); one.sendto(b"y", b"\\0b-{name}"); assert two.recv(9) == b"y"
print("own")
"""
        done = pod("run", "--rm", "host", "/usr/bin/python3", "-c", script)
        assert done.stdout == "own\n", done.stderr


def test_kinds_of_sockets_that_nobody_models_are_refused(pod: Run) -> None:
    script = """
import socket
for what in ((17, 3, 0), (40, 1, 0), (2, 3, 1), (16, 3, 4), (16, 3, 9), (16, 3, 15), (38, 5, 0), (2, 5, 132), (1 << 16 | 2, 1, 0)):
    try: socket.socket(*what); print("leaked", what)
    except OSError: pass
assert socket.if_nameindex() and socket.socket(16, 3, 0); print("refused")
"""
    done = pod("run", "--rm", "host", "/usr/bin/python3", "-c", script)
    assert done.stdout == "refused\n", done.stderr


def test_the_machines_network_is_there_when_asked_for(pod: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        words = ("run", "--rm", "--network", "host", "host", "/usr/bin/python3", "-c", script)
        assert pod(*words).returncode == 0


def test_signals_do_not_tear_a_call_apart(pod: Run) -> None:
    script = """
import signal, socket
count = [0]
def heard(*_): count[0] += 1
signal.signal(signal.SIGALRM, heard); signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(300):
    with socket.socket() as one, socket.socket() as two:
        one.bind(("0.0.0.0", 0)); one.listen(); two.listen()
        for listener in (one, two):
            with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client:
                peer, who = listener.accept()
                assert who == client.getsockname() and peer.getsockname() == client.getpeername()
                peer.close()
assert count[0] > 10; print("whole")
"""
    done = pod("run", "--rm", "host", "/usr/bin/python3", "-c", script)
    assert done.stdout == "whole\n", done.stderr


def test_lists_of_sockets_are_about_the_containers_own(pod: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        script = """
import socket
own = socket.create_server(("0.0.0.0", 80)); client = socket.create_connection(("127.0.0.1", 80)); peer, _ = own.accept()
lines = [line.split()[1:4] for line in open("/proc/net/tcp").readlines()[1:]]
port = f"{client.getsockname()[1]:04X}"
assert sorted(lines) == sorted([
    ["00000000:0050", "00000000:0000", "0A"],
    [f"0100007F:{port}", "0100007F:0050", "01"], ["0100007F:0050", f"0100007F:{port}", "01"],
]), lines
assert len(open("/proc/net/unix").readlines()) == 1; print("own")
"""
        done = pod("run", "--rm", "host", "/usr/bin/python3", "-c", script)
        assert done.stdout == "own\n", done.stderr
        assert outside


def test_the_network_of_another_container_is_refused_with_what_to_do(pod: Run) -> None:
    pod("create", "--name", "holder", "host", "/bin/true", check=True)
    try:
        done = pod("run", "--rm", "--network", "container:holder", "host", "/bin/true")
        assert (
            done.returncode == 125
            and "no network namespaces" in done.stderr
            and "network create" in done.stderr
        )
    finally:
        pod("rm", "holder", check=True)
