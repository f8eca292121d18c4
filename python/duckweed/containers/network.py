"""What a container knows of the network in this release: `none` or `host`, its hosts file and its
resolv.conf.
"""

from __future__ import annotations

import re

from duckweed.errors import Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_IPV4 = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\Z")
_PORTS = r"\d{1,5}(?:-\d{1,5})?"
_PUBLISH = re.compile(
    rf"(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<host>(?:{_PORTS})?):)?(?P<private>{_PORTS})(?:/(?P<protocol>\w+))?\Z"
)

_HOSTS = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def parse_network(text: str) -> str:
    """`none` or `host`; every other mode is refused with what to use instead."""
    if text in ("none", "host"):
        return text
    if text in ("", "default"):
        return "none"
    if text.startswith("container:"):
        raise Unsupported(
            "sharing the network of a container is not in this release",
            "use `--network none` or `--network host`",
        )
    if text in ("bridge", "slirp", "slirp4netns", "pasta", "private"):
        raise Unsupported(
            f"network `{text}` is not in this release",
            "use `--network host` to reach out, or `--network none`",
        )
    raise Unsupported(
        f"network {text} not found: named networks are not in this release",
        "use `--network none` or `--network host`",
    )


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
    """`(name, address)` of `--add-host name:address` or `name=address`; `host-gateway` is this machine."""
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not name or not separator or any(character.isspace() for character in name):
        raise UsageError(f'bad format for add-host: "{text}"', "write `name:address`")
    if address == "host-gateway":
        return name, "127.0.0.1"
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if not is_address(address):
        raise UsageError(f'invalid IP address in add-host: "{address}"')
    return name, address


def parse_server(text: str) -> str:
    """An address for `--dns`."""
    if not is_address(text):
        raise UsageError(f'invalid argument "{text}" for "--dns" flag: {text} is not an ip address')
    return text


def parse_publish(text: str) -> dict[str, str]:
    """`-p [[ip:]host port:]container port[/protocol]`; only checked, nothing can be published in this
    release.
    """
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
    if host is None and ip.isdigit():  # `8080:80` has no address: what looked like one is the port
        ip, host = "", ip
    return {"ip": ip, "host": host or "", "private": private, "protocol": protocol}


def hosts_file(hostname: str, domainname: str, network: str, extra: Sequence[tuple[str, str]]) -> str:
    """What /etc/hosts holds. On the host's network it begins with the machine's own file, as in Docker."""
    text = _HOSTS
    if network == "host":
        try:
            with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError:
            pass
        if text and not text.endswith("\n"):
            text += "\n"
    else:
        full = f"{hostname}.{domainname} {hostname}" if domainname else hostname
        text += f"127.0.0.1\t{full}\n" if hostname != "localhost" else ""
    return text + "".join(f"{address}\t{name}\n" for name, address in extra)


def resolver_file(network: str, dns: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    """What /etc/resolv.conf holds: the host's with `--dns*` laid over it; without one `--dns*` alone."""
    lines: list[str] = []
    if network == "host" and not (dns and search and options):
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError:
            pass
    for keyword, values in (("nameserver", dns), ("search", search), ("options", options)):
        if values:
            skip = ("search", "domain") if keyword == "search" else (keyword,)
            lines = [line for line in lines if line.split(None, 1)[:1] not in ([word] for word in skip)]
    lines += [f"nameserver {server}" for server in dns]
    if search and list(search) != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "".join(f"{line}\n" for line in lines)
