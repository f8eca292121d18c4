"""Registries as one engine sees them: settings and credentials read once, connections kept.

The way in for everything that asks a registry: which endpoints a reference leads to, as whom.
"""

from __future__ import annotations

import threading

from duckweed.errors import BadImage, RegistryError
from duckweed.registry.connection import Connection
from duckweed.registry.credentials import CredentialStore
from duckweed.registry.endpoint import Endpoint, endpoint_of, mirrors_of
from duckweed.registry.repository import Repository
from duckweed.registry.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckweed.oci.reference import Reference
    from duckweed.registry.credentials import Credential
    from duckweed.registry.repository import RemoteManifest


class Registries:
    """What a command knows of registries. `tls_verify` overrides the settings: False accepts any certificate
    and plain http, True neither.
    """

    def __init__(self, tls_verify: bool | None = None, credential: Credential | None = None) -> None:
        self.settings = Settings()
        self.credentials = CredentialStore()
        self._tls_verify = tls_verify
        self._credential = credential
        self._connections: dict[tuple[str, str], Connection] = {}
        self._lock = threading.Lock()

    def connection(self, endpoint: Endpoint, repository: str = "") -> Connection:
        """The connection to an endpoint, with the user's credentials for it."""
        credential = self._credential
        if credential is None:
            credential = self.credentials.find(endpoint.credential_key, repository)
        elif endpoint.is_mirror:
            # What was given for the registry is not for its mirrors.
            credential = self.credentials.find(endpoint.credential_key, repository)
        # One registry can know several users, by repository.
        key = (endpoint.bases[0], credential.identity_token or credential.basic() if credential else "")
        with self._lock:
            found = self._connections.get(key)
            if found is None:
                found = self._connections[key] = Connection(endpoint, self.settings, credential)
            return found

    def repository(self, reference: Reference) -> Repository:
        """The repository at the registry itself, as for a push."""
        endpoint = endpoint_of(reference.registry, self.settings, self._tls_verify)
        return Repository(self.connection(endpoint, reference.repository), reference)

    def sources(self, reference: Reference) -> Iterator[Repository]:
        """The repository at each mirror, then at the registry."""
        for endpoint in mirrors_of(reference.registry, self.settings):
            yield Repository(self.connection(endpoint, reference.repository), reference)
        yield self.repository(reference)

    def find(self, reference: Reference, name: str) -> tuple[Repository, RemoteManifest]:
        """The first source that has the manifest `name`, and that manifest.

        What a mirror says no to, or cannot be asked, the next one is asked for; the registry's own no counts.
        """
        *mirrors, own = self.sources(reference)
        for repository in mirrors:
            try:
                return repository, repository.manifest(name)
            except (RegistryError, BadImage):
                continue
        return own, own.manifest(name)

    def cancel(self) -> None:
        """Ends every request under way."""
        for connection in list(self._connections.values()):
            connection.cancel()
