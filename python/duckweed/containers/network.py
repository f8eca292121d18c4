"""What a container knows of the network: which one it has, its hosts file and its resolv.conf.

`bridge` (the default; `slirp` and other engines' words for it mean the same) is a network of its own with a
way out through the supervisor. `none` has loopback alone, `host` is this machine's, `container:NAME` is
another container's, `gate` gives it sockets of this machine that are told where they may go (no interface,
and the machine's own speed), and any other word is a network made with `duckweed network create`.
"""

from __future__ import annotations

import re

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.containers.place import Place

DEFAULT = "default"
BRIDGE = "bridge"
NONE = "none"
HOST = "host"
GATE = "gate"
SHARED = "container:"
BUILT_IN = (BRIDGE, HOST, NONE, GATE)
_SAME = ("", DEFAULT, "slirp", "slirp4netns", "pasta", "private", "nat")

# The addresses of the supervisor's end and the container's (rust/net, `Addresses::default`).
ADDRESS = "10.0.2.100"
PREFIX = 24
GATEWAY = "10.0.2.2"
RESOLVER = "10.0.2.3"
MAC = "02:42:0a:00:02:64"
HOST_NAMES = ("host.docker.internal", "gateway.docker.internal", "host.containers.internal")

_IPV4 = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\Z")

_HOSTS = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def parse_network(text: str) -> str:
    """The mode in our words: `default`, `bridge`, `none`, `host`, `container:NAME`, or a network's name."""
    if text in _SAME:
        return DEFAULT if text in ("", DEFAULT) else BRIDGE
    if text in BUILT_IN:
        return text
    if text.startswith(SHARED):
        if text == SHARED:
            raise UsageError(
                "invalid container format container:<name|id>", "name a container after the colon"
            )
        return text
    from duckweed.store.networks import check_name

    return check_name(text)


def has_link(network: str) -> bool:
    """Whether containers with this mode have a way out of ours: policy, host names, published ports."""
    return network not in (NONE, HOST) and not network.startswith(SHARED)


def is_named(network: str) -> bool:
    """Whether this is a network that somebody made."""
    return has_link(network) and network not in (BRIDGE, DEFAULT, GATE)


def gate_of_none(place: Place) -> dict[str, Any] | None:
    """The annotation's `network` for `--network none`: without a namespace a gate that leads nowhere."""
    return {"socket_gate": True, "alone": True} if place.isolation == "trap" else None


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    match = _IPV4.match(text)
    if match is not None:
        return all(int(part) < 256 for part in match.groups())
    if ":" not in text:
        return False
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except OSError:
        return False
    return True


def parse_host(text: str) -> tuple[str, str]:
    """`(name, address)` of `--add-host name:address` or `name=address`; `host-gateway` stays as it is."""
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not name or not separator or any(character.isspace() for character in name):
        raise UsageError(f'bad format for add-host: "{text}"', "write `name:address`")
    if address == "host-gateway":
        return name, address
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if not is_address(address):
        raise UsageError(f'invalid IP address in add-host: "{address}"')
    return name, address


def host_address(network: str, address: str) -> str:
    """What `host-gateway` stands for: this machine, as the container reaches it."""
    if address != "host-gateway":
        return address
    return GATEWAY if has_link(network) else "127.0.0.1"


def parse_server(text: str) -> str:
    """An address for `--dns`."""
    if not is_address(text):
        raise UsageError(f'invalid argument "{text}" for "--dns" flag: {text} is not an ip address')
    return text


def hosts_file(
    hostname: str,
    domainname: str,
    network: str,
    extra: Sequence[tuple[str, str]],
    address: str = ADDRESS,
) -> str:
    """What /etc/hosts holds. On the host's network it begins with the machine's own file, as in Docker."""
    text = _HOSTS
    if network == HOST:
        try:
            with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError:
            pass
        if text and not text.endswith("\n"):
            text += "\n"
    else:
        full = f"{hostname}.{domainname} {hostname}" if domainname else hostname
        own = address if has_link(network) else "127.0.0.1"
        text += f"{own}\t{full}\n" if hostname != "localhost" else ""
        if has_link(network):
            given = {name for name, _ in extra}
            names = " ".join(name for name in HOST_NAMES if name not in given)
            text += f"{GATEWAY}\t{names}\n" if names else ""
    return text + "".join(f"{host_address(network, address)}\t{name}\n" for name, address in extra)


def resolver_file(
    network: str,
    dns: Sequence[str],
    search: Sequence[str],
    options: Sequence[str],
    *,
    has_name_server: bool = False,
) -> str:
    """What /etc/resolv.conf holds: our own name server, which asks the host's (or those of `--dns`), with the
    host's search list; on the host's network, and through the gate (unless `has_name_server` there), its
    file with `--dns*` laid over it; without a network `--dns*` alone.
    """
    lines: list[str] = []
    if (
        network != NONE
        and not network.startswith(SHARED)
        and not (network == HOST and dns and search and options)
    ):
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError:
            pass
    asks_us = has_link(network) and (network != GATE or has_name_server)
    if asks_us:
        lines = [line for line in lines if line.split(None, 1)[:1] in (["search"], ["domain"], ["options"])]
        dns = [RESOLVER]
    for keyword, values in (("nameserver", dns), ("search", search), ("options", options)):
        if values:
            skip = ("search", "domain") if keyword == "search" else (keyword,)
            lines = [line for line in lines if line.split(None, 1)[:1] not in ([word] for word in skip)]
    servers = [f"nameserver {server}" for server in dns]
    lines = servers + lines if asks_us else lines + servers
    if search and list(search) != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "".join(f"{line}\n" for line in lines)
