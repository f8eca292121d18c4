"""Which networks a container is in, from what was asked for to what the runtime is told.

`Connection` is decided at create: the mode, the networks with their claimed addresses, and with that the
annotation's `network` (docs/contracts.md §4). container.json keeps the networks, so that `connect`,
`disconnect`, inspect and the name server read them there.
"""

from __future__ import annotations

from duckweed.containers import network as modes
from duckweed.containers import ports
from duckweed.errors import NotFound, Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from duckweed.containers.options import Options
    from duckweed.containers.place import Place
    from duckweed.engine import Engine


def decide_mode(options: Options, place: Place) -> str:
    """The mode for this place. Raises Unsupported for a network that was asked for and cannot be had."""
    mode = options.network
    if mode == modes.DEFAULT:
        poorer = modes.NONE if "network" in place.namespaces else modes.HOST
        mode = modes.BRIDGE if place.link else modes.GATE if place.gate else poorer
    elif mode == modes.BRIDGE and place.gate and not place.link:
        # What is asked for is a network of one's own with a way out, and that it is.
        mode = modes.GATE
    elif mode == modes.GATE and not place.gate:
        raise Unsupported(
            "cannot give the container the network `gate`: system calls cannot be answered from outside here",
            "`duckweed doctor` says more; leave `--network` out",
        )
    elif modes.has_link(mode) and mode != modes.GATE and not (place.link or place.gate):
        raise Unsupported(
            f"cannot give the container the network `{mode}`: network interfaces are refused here",
            f"use `--network {modes.HOST}`; `duckweed doctor` says more",
        )
    if mode.startswith(modes.SHARED) and place.isolation == "trap":
        raise Unsupported(
            "cannot share the network of another container: the trap isolation has no network namespaces",
            "put both into a network: `duckweed network create NAME`, and `--network NAME`",
        )
    if (options.publish or options.publish_all) and not modes.has_link(mode):
        raise UsageError(
            f"conflicting options: port publishing and the network `{mode}`",
            "leave `--network` out: the default network can publish",
        )
    return mode


def resolve_shared(engine: Engine, mode: str) -> str:
    """`container:NAME` with the id for the name. Raises NoSuchContainer, UsageError."""
    name = mode[len(modes.SHARED) :]
    holder = engine.containers.get(name)
    other = (holder.document.get("HostConfig") or {}).get("NetworkMode", "")
    if other.startswith(modes.SHARED):
        raise UsageError(f"cannot share the network of {name}: it shares another's", "name that one")
    return modes.SHARED + str(holder.id)


def join(engine: Engine, options: Options, mode: str, container_id: str) -> dict[str, dict[str, Any]]:
    """Claims addresses in the networks asked for; container.json's `networks`. Raises what `claim` raises."""
    joined: dict[str, dict[str, Any]] = {}
    if not modes.is_named(mode):
        if options.ip or options.ip6 or options.network_alias:
            raise UsageError(
                "user specified IP address and aliases are supported on user defined networks only",
                "make a network with `duckweed network create NAME`, and use `--network NAME`",
            )
        return joined
    try:
        for name in (mode, *options.more_networks):
            first = not joined
            joined[name] = claim(
                engine,
                name,
                container_id,
                interface=f"eth{len(joined)}",
                aliases=list(options.network_alias) if first else [],
                ip=options.ip if first else "",
                ip6=options.ip6 if first else "",
            )
    except BaseException:
        leave(engine, joined, container_id)
        raise
    return joined


def claim(
    engine: Engine,
    name: str,
    container_id: str,
    *,
    interface: str,
    aliases: list[str],
    ip: str = "",
    ip6: str = "",
) -> dict[str, Any]:
    """One entry of container.json's `networks`."""
    networks = engine.networks.store
    network = networks.get(name)
    if network.is_built_in:
        raise NotFound(
            f"network {name} cannot be combined with others", "make one: `duckweed network create`"
        )
    address = networks.claim(network, container_id, 4, ip)
    try:
        address6 = networks.claim(network, container_id, 6, ip6)
        if ip6 and not address6:
            raise UsageError(f"network {name} has no IPv6 subnet", "make it with `--ipv6`")
    except BaseException:
        networks.release(network.name, container_id)
        raise
    entry: dict[str, Any] = {
        "id": network.id,
        "interface": interface,
        "aliases": aliases,
        "address": address,
        "prefix": network.subnet(4).prefixlen,
        "gateway": network.gateway(4),
        "internal": network.attrs["Internal"],
        "mtu": network.mtu,
    }
    if address6:
        entry.update(address6=address6, prefix6=network.subnet(6).prefixlen, gateway6=network.gateway(6))
    return entry


def leave(engine: Engine, joined: Mapping[str, Any], container_id: str) -> None:
    """Gives all claimed addresses back."""
    for name in joined:
        engine.networks.store.release(name, container_id)


def claims(engine: Engine, joined: Mapping[str, Any]) -> list[str]:
    """The links that are the claims: what the supervisor of a `--rm` container removes."""
    store = engine.networks.store
    return [
        f"{store.path(name)}/addresses/{entry[key]}"
        for name, entry in joined.items()
        for key in ("address", "address6")
        if entry.get(key)
    ]


def wishes(options: Options, exposed: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for besides the networks: container.json's `link`."""
    result: dict[str, Any] = {}
    # Who asks for the host by name wants what listens there, wherever it listens.
    if options.allow_host_loopback or any(address == "host-gateway" for _, address in options.add_host):
        result["host_loopback"] = True
    if options.dns:
        result["servers"] = list(options.dns)
    publish = ports.publish_requests(options.publish, exposed, options.publish_all, options.remap_ports)
    if publish:
        result["publish"] = publish
    return result


def annotation(
    engine: Engine, mode: str, link: Mapping[str, Any], joined: Mapping[str, Any]
) -> dict[str, Any]:
    """The annotation's `network`. `link` is what `wishes` said, `joined` container.json's `networks`."""
    if mode.startswith(modes.SHARED):
        return {"shares": engine.layout.container(mode[len(modes.SHARED) :])}
    result = dict(link)
    if mode == modes.GATE:
        result["socket_gate"] = True
    if joined:
        result["interface"] = "uplink0"
        # Out of a container that is in one open network there is a way, as in Docker.
        result["internal"] = all(entry["internal"] for entry in joined.values())
        result["networks"] = [membership(engine, name, entry) for name, entry in joined.items()]
    return result


def membership(engine: Engine, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """One of the annotation's `networks`."""
    member = {
        "name": name,
        "id": entry["id"],
        "directory": engine.networks.store.path(name),
        "interface": entry["interface"],
        "address": entry["address"],
        "prefix": entry["prefix"],
        "mtu": entry["mtu"],
    }
    if entry.get("address6"):
        member["address6"] = [entry["address6"], entry["prefix6"]]
    return member


def mac_of(address: str) -> str:
    """Docker's rule, and the runtime's: a local hardware address that has the IPv4 address in it."""
    return "02:42:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def settings(
    mode: str,
    joined: Mapping[str, Any],
    running: bool,
    published: list[Mapping[str, Any]],
    exposed: Mapping[str, Any],
    container_id: str,
) -> dict[str, Any]:
    """`NetworkSettings` of `docker inspect`."""
    ports_shown: dict[str, Any] = {key: None for key in exposed} if running else {}
    ports_shown.update(ports.published(published))
    result: dict[str, Any] = {
        "SandboxID": container_id if running and modes.has_link(mode) else "",
        "Ports": ports_shown,
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "MacAddress": "",
        "GlobalIPv6Address": "",
        "Networks": {},
    }
    if joined:
        for name, entry in joined.items():
            result["Networks"][name] = _endpoint(entry, running, container_id)
    elif mode in (modes.BRIDGE, modes.GATE) and running:
        own = {
            "address": modes.ADDRESS,
            "prefix": modes.PREFIX,
            "gateway": modes.GATEWAY,
            "aliases": [],
            "id": "",
        }
        result["Networks"][mode] = _endpoint(own, running, container_id)
        for key in ("Gateway", "IPAddress", "IPPrefixLen", "MacAddress"):
            result[key] = result["Networks"][mode][key]
    elif not mode.startswith(modes.SHARED):
        nothing = {"address": "", "prefix": 0, "gateway": "", "aliases": [], "id": ""}
        result["Networks"][mode] = _endpoint(nothing, False, container_id)
    return result


def _endpoint(entry: Mapping[str, Any], running: bool, container_id: str) -> dict[str, Any]:
    names = [*entry["aliases"], container_id[:12]]
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": list(entry["aliases"]) or None,
        "MacAddress": mac_of(entry["address"]) if running and entry["address"] else "",
        "NetworkID": entry["id"],
        "EndpointID": container_id if running and entry["id"] else "",
        "Gateway": entry["gateway"] if running else "",
        "IPAddress": entry["address"] if running else "",
        "IPPrefixLen": entry["prefix"] if running else 0,
        "IPv6Gateway": entry.get("gateway6", "") if running else "",
        "GlobalIPv6Address": entry.get("address6", "") if running else "",
        "GlobalIPv6PrefixLen": entry.get("prefix6", 0) if running else 0,
        "DNSNames": names if entry["id"] else None,
    }
