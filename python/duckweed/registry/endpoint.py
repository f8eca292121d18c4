"""Endpoints: where a registry is to be asked, best first: its mirrors, then itself.

`docker.io` is a name and not a host; everything else is asked where it says. A registry that may be insecure
is asked by https first and by plain http when that cannot be spoken there.
"""

from __future__ import annotations

from duckweed.oci.reference import DEFAULT_REGISTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.registry.settings import Settings

HUB_HOST = "registry-1.docker.io"
HUB_KEY = "https://index.docker.io/v1/"
"""The key of Docker Hub's credentials in config.json, older than the API it is used for."""


class Endpoint:
    """One place: `authority` is `host[:port]`, `bases` the addresses to try, `verify` whether its
    certificate must be good. `credential_key` is whose credentials it gets.
    """

    __slots__ = ("authority", "bases", "credential_key", "is_mirror", "verify")

    def __init__(
        self, authority: str, bases: list[str], credential_key: str, *, verify: bool, is_mirror: bool = False
    ) -> None:
        self.authority = authority
        self.bases = bases
        self.credential_key = credential_key
        self.verify = verify
        self.is_mirror = is_mirror


def endpoint_of(registry: str, settings: Settings, tls_verify: bool | None = None) -> Endpoint:
    """The registry itself. `tls_verify` overrides what the settings say of it."""
    authority = HUB_HOST if registry == DEFAULT_REGISTRY else registry
    key = HUB_KEY if registry == DEFAULT_REGISTRY else registry
    is_insecure = settings.is_insecure(authority) if tls_verify is None else not tls_verify
    bases = [f"https://{authority}"] + ([f"http://{authority}"] if is_insecure else [])
    return Endpoint(authority, bases, key, verify=not is_insecure)


def mirrors_of(registry: str, settings: Settings) -> list[Endpoint]:
    """The registry's mirrors, in the user's order."""
    found = []
    for url in settings.mirrors.get(registry, ()):
        authority = url.split("://", 1)[1].split("/", 1)[0]
        verify = not settings.is_insecure(authority)
        found.append(Endpoint(authority, [url], authority, verify=verify, is_mirror=True))
    return found
