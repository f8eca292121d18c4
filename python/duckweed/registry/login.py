"""`login` and `logout`: credentials are tried at the registry before they are kept."""

from __future__ import annotations

from duckweed.errors import AccessDenied
from duckweed.oci.reference import DEFAULT_REGISTRY
from duckweed.registry.connection import refusal
from duckweed.registry.credentials import Credential, CredentialStore, key_of
from duckweed.registry.endpoint import HUB_KEY, endpoint_of
from duckweed.registry.registries import Registries


def login(server: str, username: str, password: str, *, tls_verify: bool | None = None) -> str:
    """Checks a user name and password at a registry and keeps them.

    Returns the file that now has the password in the clear, or "" when a helper keeps it. Raises
    AccessDenied, RegistryError, UsageError, StoreError.
    """
    credential = Credential(username, password)
    check(server, credential, tls_verify=tls_verify)
    return CredentialStore().save(key_of(server), credential)


def check(server: str, credential: Credential, *, tls_verify: bool | None = None) -> None:
    """Asks a registry whether it accepts a credential. Raises AccessDenied, RegistryError."""
    registries = Registries(tls_verify, credential)
    key = key_of(server)
    registry = DEFAULT_REGISTRY if key == HUB_KEY else key
    connection = registries.connection(endpoint_of(registry, registries.settings, tls_verify))
    try:
        reply = connection.send("GET", "/v2/")
    except AccessDenied as error:
        raise AccessDenied(f'Get "{connection.base}/v2/": {error.message}') from None
    if reply.status != 200:
        raise refusal(reply.status, reply.body, f"registry `{connection.endpoint.authority}`")


def stored(server: str) -> Credential | None:
    """What is kept for a registry. Raises UsageError."""
    return CredentialStore().find(key_of(server))


def logout(server: str) -> bool:
    """Forgets a registry's credentials; false when there were none. Raises UsageError, StoreError."""
    return CredentialStore().remove(key_of(server))
