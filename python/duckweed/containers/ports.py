"""Ports: what `--publish` and `--expose` say, what the runtime is told, and what `inspect`, `ps` and `port`
show of it.
"""

from __future__ import annotations

import re

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

_PORTS = r"\d{1,5}(?:-\d{1,5})?"
_PUBLISH = re.compile(
    rf"(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<host>(?:{_PORTS})?):)?(?P<private>{_PORTS})(?:/(?P<protocol>\w+))?\Z"
)
_EXPOSE = re.compile(rf"(?P<ports>{_PORTS})(?:/(?P<protocol>\w+))?\Z")


def parse_publish(text: str) -> dict[str, str]:
    """`-p [[ip:][host port]:]container port[/protocol]`, checked. Raises UsageError."""
    match = _PUBLISH.match(text)
    protocol = (match.group("protocol") or "tcp").lower() if match else ""
    ports = (
        [int(port) for port in re.findall(r"\d+", f"{match.group('host') or ''}-{match.group('private')}")]
        if match
        else [0]
    )
    if match is None or any(port > 65535 for port in ports) or protocol not in ("tcp", "udp", "sctp"):
        raise UsageError(f'invalid argument "{text}" for "-p, --publish" flag: invalid containerPort: {text}')
    ip, host, private = match.group("ip") or "", match.group("host"), match.group("private")
    if host is None and (ip.isdigit() or re.fullmatch(_PORTS, ip)):
        ip, host = "", ip  # `8080:80` has no address: what looked like one is the port
    _check(text, ip.strip("[]"), host or "", private, protocol)
    return {"ip": ip.strip("[]"), "host": host or "", "private": private, "protocol": protocol}


def _check(text: str, ip: str, host: str, private: str, protocol: str) -> None:
    from duckweed.containers.network import is_address

    if ip and not is_address(ip):
        raise UsageError(f'invalid argument "{text}" for "-p, --publish" flag: invalid IP address: {ip}')
    if protocol == "sctp":
        raise UsageError(f"cannot publish `{text}`: SCTP is not supported", "publish a TCP or a UDP port")
    inner, outer = _span(private), _span(host) if host else None
    if inner[0] > inner[1] or inner[0] == 0 or (outer and outer[0] > outer[1]):
        raise UsageError(f'invalid argument "{text}" for "-p, --publish" flag: invalid port range')
    if outer and inner[0] != inner[1] and outer[1] - outer[0] != inner[1] - inner[0]:
        raise UsageError(
            f'invalid argument "{text}" for "-p, --publish" flag: '
            f"invalid ranges specified for container and host Ports: {private} and {host}"
        )


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def parse_expose(text: str) -> list[str]:
    """`80`, `80/udp`, `80-82/tcp` as Docker's keys. Raises UsageError."""
    match = _EXPOSE.match(text)
    protocol = (match.group("protocol") or "tcp").lower() if match else ""
    first, last = _span(match.group("ports")) if match else (1, 0)
    if first > last or last > 65535 or protocol not in ("tcp", "udp", "sctp"):
        raise UsageError(f"invalid range format for --expose: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def exposed(config: Mapping[str, Any], expose: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`Config.ExposedPorts`: the image's and those of `--expose`."""
    ports: dict[str, dict[str, Any]] = {}
    for text in [*(config.get("ExposedPorts") or ()), *expose]:
        for key in parse_expose(text):
            ports[key] = {}
    return ports


def bindings(publish: Sequence[Mapping[str, str]]) -> dict[str, list[dict[str, str]]]:
    """`HostConfig.PortBindings`: one entry a container port."""
    result: dict[str, list[dict[str, str]]] = {}
    for entry in publish:
        first, last = _span(entry["private"])
        start, end = _span(entry["host"]) if entry["host"] else (0, 0)
        for number in range(first, last + 1):
            host = ""
            if start:
                # A range for one port: any of it.
                host = str(start + number - first) if last > first or start == end else entry["host"]
            key = f"{number}/{entry['protocol']}"
            result.setdefault(key, []).append({"HostIp": entry["ip"], "HostPort": host})
    return result


def publish_requests(
    publish: Sequence[Mapping[str, str]], ports: Iterable[str], everything: bool, remap: bool
) -> list[dict[str, Any]]:
    """The annotation's `publish`: `ports` are the exposed ones, published on any port if `everything`."""
    given = bindings(publish)
    if everything:
        for key in ports:
            given.setdefault(key, [{"HostIp": "", "HostPort": ""}])
    requests = []
    for key, places in given.items():
        number, _, protocol = key.partition("/")
        for place in places:
            span = _span(place["HostPort"]) if place["HostPort"] else (0, 0)
            request: dict[str, Any] = {"container": int(number), "protocol": protocol, "host": span}
            if place["HostIp"] and place["HostIp"] != "0.0.0.0":
                request["ip"] = place["HostIp"]
            elif place["HostIp"]:
                request["ip"] = "0.0.0.0"
            if remap:
                request["remap"] = True
            requests.append(request)
    return requests


def published(ports: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """`NetworkSettings.Ports` of state.json's `ports`."""
    result: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        key = f"{port['container']}/{port['protocol']}"
        result.setdefault(key, []).append({"HostIp": port["ip"], "HostPort": str(port["host"])})
    return result


def listed(ports: Iterable[Mapping[str, Any]], exposed_ports: Iterable[str]) -> list[dict[str, Any]]:
    """`Ports` of Docker's container list: the published ones, then those only exposed."""
    result: list[dict[str, Any]] = []
    seen = set()
    for port in ports:
        seen.add(f"{port['container']}/{port['protocol']}")
        result.append(
            {
                "IP": port["ip"],
                "PrivatePort": port["container"],
                "PublicPort": port["host"],
                "Type": port["protocol"],
            }
        )
    for key in exposed_ports:
        if key not in seen:
            number, _, protocol = key.partition("/")
            result.append({"PrivatePort": int(number), "Type": protocol})
    return result
