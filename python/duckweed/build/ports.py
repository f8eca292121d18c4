"""EXPOSE: `80`, `80/udp`, `8000-8010/tcp`; an address or a port of the host in front is read past."""

from __future__ import annotations

_PROTOCOLS = ("tcp", "udp", "sctp")


def exposed_ports(word: str) -> list[str]:
    """The ports of one word as `80/tcp`. Raises ValueError."""
    numbers, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f'invalid port: "{word}": invalid proto: {protocol}')
    host, _, container = numbers.rpartition(":")
    first, last = _range(container, f"invalid containerPort: {container}")
    _, _, host_port = host.rpartition(":") if not host.endswith("]") else ("", "", "")
    if host_port and "." not in host_port:
        low, high = _range(host_port, f"invalid hostPort: {host_port}")
        if high - low != last - first and last != first:
            raise ValueError(
                f"invalid ranges specified for container and host Ports: {container} and {host_port}"
            )
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _range(text: str, message: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [first, last if dash else first]
    if not all(number.isascii() and number.isdigit() and int(number) <= 65535 for number in numbers):
        raise ValueError(message)
    low, high = map(int, numbers)
    if high < low:
        raise ValueError(message)
    return low, high
