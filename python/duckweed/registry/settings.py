"""The user's settings about registries: mirrors, insecure ones, certificates. Read once an engine.

    $XDG_CONFIG_HOME/duckweed/registries.json (~/.config/duckweed/registries.json)
        {"mirrors": {"docker.io": ["https://mirror.example"]}, "insecure": ["r.example:5000", "10.0.0.0/8"]}
    DUCKWEED_MIRRORS              docker.io=https://mirror.example,https://other.example;other.example=http://cache:5000
                                  (without `NAME=`, mirrors of docker.io)
    DUCKWEED_INSECURE_REGISTRIES  registry.example:5000,10.0.0.0/8
    certs.d/HOST[:PORT]/ in ~/.docker, ~/.config/containers, /etc/docker and /etc/containers
        *.crt: CAs beside the system's; NAME.cert with NAME.key: the client's certificate

The environment comes before the file. The machine itself (localhost, 127.0.0.0/8, ::1) is always insecure,
as in Docker: https without looking at the certificate, then plain http.
"""

from __future__ import annotations

import os

from duckweed.errors import UsageError
from duckweed.oci.reference import DEFAULT_REGISTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_LIMIT_BYTES = 1 << 20


class Settings:
    """`mirrors`: base URLs by registry; `insecure`: hosts, `host:port`s and networks."""

    __slots__ = ("_environ", "insecure", "mirrors")

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        document = read_document(_file(environ))
        self.mirrors: dict[str, list[str]] = {}
        for registry, urls in (document.get("mirrors") or {}).items():
            self.mirrors[registry] = [_checked_url(url, registry) for url in urls or ()]
        self.mirrors.update(_mirrors_of(environ.get("DUCKWEED_MIRRORS", "")))
        self.insecure = [str(one) for one in document.get("insecure") or ()]
        self.insecure += [
            one.strip() for one in environ.get("DUCKWEED_INSECURE_REGISTRIES", "").split(",") if one.strip()
        ]

    def is_insecure(self, authority: str) -> bool:
        """Whether plain http and unknown certificates are accepted from `host[:port]`."""
        host = host_of(authority)
        if host == "localhost":
            return True
        address = _address(host)
        if address is not None and address.is_loopback:
            return True
        return any(_covers(one, authority, host, address) for one in self.insecure)

    def certificates(self, authority: str) -> tuple[list[str], tuple[str, str] | None]:
        """The CA files, and the client's certificate and key, that certs.d has for `host[:port]`."""
        authorities: list[str] = []
        client: tuple[str, str] | None = None
        for top in self._certificate_directories():
            directory = f"{top}/{authority}"
            try:
                names = sorted(os.listdir(directory))
            except OSError:
                continue
            authorities += [f"{directory}/{name}" for name in names if name.endswith(".crt")]
            for name in names:
                key = name[: -len(".cert")] + ".key"
                if client is None and name.endswith(".cert") and key in names:
                    client = (f"{directory}/{name}", f"{directory}/{key}")
        return authorities, client

    def _certificate_directories(self) -> list[str]:
        home = self._environ.get("HOME") or os.path.expanduser("~")
        config = _config_home(self._environ)
        docker = self._environ.get("DOCKER_CONFIG") or home + "/.docker"
        return [
            docker + "/certs.d",
            config + "/containers/certs.d",
            "/etc/docker/certs.d",
            "/etc/containers/certs.d",
        ]


def _config_home(environ: Mapping[str, str]) -> str:
    config = environ.get("XDG_CONFIG_HOME", "")
    return config if config.startswith("/") else (environ.get("HOME") or os.path.expanduser("~")) + "/.config"


def _file(environ: Mapping[str, str]) -> str:
    return _config_home(environ) + "/duckweed/registries.json"


def read_document(path: str) -> dict[str, Any]:
    """A JSON object of a file; the empty one when there is no file. Raises UsageError naming it."""
    import json

    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(_LIMIT_BYTES) or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise UsageError(f"cannot read `{path}`: not JSON: {error}", f"repair `{path}`") from None
    if not isinstance(document, dict):
        raise UsageError(f"cannot read `{path}`: not a JSON object", f"repair `{path}`")
    return document


def _mirrors_of(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group in text.split(";"):
        registry, equals, urls = group.strip().partition("=")
        if not equals or "/" in registry:
            registry, urls = DEFAULT_REGISTRY, group.strip()
        named = [_checked_url(url.strip(), registry) for url in urls.split(",") if url.strip()]
        if named:
            found[registry] = named
    return found


def _checked_url(url: object, registry: str) -> str:
    if isinstance(url, str) and url.startswith(("http://", "https://")) and "@" not in url:
        return url.rstrip("/")
    raise UsageError(
        f"bad mirror `{url}` for `{registry}`", "write it as `https://mirror.example` or `http://host:5000`"
    )


def host_of(authority: str) -> str:
    """The host of `host[:port]`, in lower case and without the brackets of IPv6."""
    head, colon, port = authority.rpartition(":")
    host = head if colon and port.isdigit() and not head.endswith(":") else authority
    return host.strip("[]").lower()


def _address(host: str) -> Any:
    if not (host[:1].isdigit() or ":" in host):
        return None
    import ipaddress

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _covers(entry: str, authority: str, host: str, address: Any) -> bool:
    if entry.lower() in (authority.lower(), host):
        return True
    if address is None or "/" not in entry:
        return False
    import ipaddress

    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except (ValueError, TypeError):
        return False
