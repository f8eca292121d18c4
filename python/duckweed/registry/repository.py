"""A repository: its manifests, blobs and tags, read (distribution-spec, "Pull" and "Content Discovery")."""

from __future__ import annotations

from duckweed.errors import AccessDenied, BadImage, NotInRegistry, RegistryError
from duckweed.oci.digest import digest_of, is_digest
from duckweed.oci.document import LIMIT_BYTES, read_object
from duckweed.oci.manifest import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from duckweed.registry.connection import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckweed._core import Part, Reply
    from duckweed.oci.manifest import Descriptor
    from duckweed.oci.reference import Reference
    from duckweed.registry.connection import Connection

_ACCEPTED = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
_OK, _NOT_FOUND = 200, 404
_PAGES = 1000


class RemoteManifest:
    """A manifest or index as the registry has it: `content` byte for byte, its `digest` and `media_type`."""

    __slots__ = ("content", "digest", "media_type")

    def __init__(self, content: bytes, digest: str, media_type: str) -> None:
        self.content = content
        self.digest = digest
        self.media_type = media_type


class Repository:
    """One repository at one endpoint."""

    def __init__(self, connection: Connection, reference: Reference) -> None:
        self.connection = connection
        self.reference = reference
        self.path = f"/v2/{reference.repository}"
        self.scopes = (f"repository:{reference.repository}:pull",)

    def manifest(self, name: str) -> RemoteManifest:
        """The manifest or index of a tag or digest; a digest is checked. Raises NotInRegistry, AccessDenied,
        RegistryError, BadImage.
        """
        shown = self._shown(name)
        headers = [("Accept", _ACCEPTED)]
        reply = self._ask("GET", f"{self.path}/manifests/{name}", headers, limit=LIMIT_BYTES)
        if reply.status != _OK:
            raise self._refused(reply, f"manifest for {shown} not found")
        digest = digest_of(reply.body)
        if is_digest(name) and digest != name:
            raise BadImage(f"manifest of {shown}: its bytes have the digest `{digest}`")
        return RemoteManifest(reply.body, digest, _media_type(reply, shown))

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, such as a config; size and digest are checked."""
        if descriptor.size > LIMIT_BYTES:
            raise BadImage(f"blob `{descriptor.digest}`: larger than {LIMIT_BYTES >> 20} MiB")
        reply = self._ask("GET", f"{self.path}/blobs/{descriptor.digest}", limit=LIMIT_BYTES)
        if reply.status != _OK:
            raise self._refused(reply, f"blob {descriptor.digest} not found")
        if digest_of(reply.body) != descriptor.digest:
            raise BadImage(f"blob `{descriptor.digest}`: its bytes have the digest `{digest_of(reply.body)}`")
        return reply.body

    def download(self, digest: str, part: Part) -> None:
        """Brings a blob into its part. Raises TransferError, OSError."""
        self.connection.download(f"{self.path}/blobs/{digest}", self.scopes, part)

    def has_blob(self, digest: str, scopes: tuple[str, ...] = ()) -> bool:
        """Whether the repository has this blob."""
        reply = self.connection.send("HEAD", f"{self.path}/blobs/{digest}", scopes or self.scopes)
        return reply.status == _OK

    def tags(self) -> Iterator[str]:
        """All tags, a page at a time. Raises NotInRegistry, AccessDenied, RegistryError."""
        yield from paged(
            self.connection, f"{self.path}/tags/list", self.scopes, "tags", self.reference.familiar_name
        )

    def _ask(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]] | None = None,
        *,
        limit: int = LIMIT_BYTES,
    ) -> Reply:
        try:
            return self.connection.send(method, path, self.scopes, headers or [], limit=limit)
        except AccessDenied as error:
            raise self._denied(error.message) from None

    def _denied(self, said: str) -> AccessDenied:
        # Docker's words, which scripts look for.
        return AccessDenied(
            f"pull access denied for {self.reference.familiar_name}, repository does not exist"
            f" or may require 'duckweed login': {said}"
        )

    def _refused(self, reply: Reply, missing: str) -> RegistryError:
        error = refusal(reply.status, reply.body, "")
        said = error.message[2:]
        if isinstance(error, AccessDenied):
            return self._denied(said)
        if isinstance(error, NotInRegistry):
            if said.startswith("name unknown"):
                return NotInRegistry(
                    f"pull access denied for {self.reference.familiar_name}, repository does not exist"
                    f" or may require 'duckweed login': {said}"
                )
            return NotInRegistry(f"{missing}: {said}")
        return RegistryError(f"{self.reference.familiar_name}: {said}", error.hint)

    def _shown(self, name: str) -> str:
        mark = "@" if is_digest(name) else ":"
        return f"{self.reference.familiar_name}{mark}{name}"


def _media_type(reply: Reply, shown: str) -> str:
    """What the registry says it is, else what the document says of itself."""
    stated = (reply.header("content-type") or "").partition(";")[0].strip().lower()
    if stated in (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST):
        return stated
    if "manifest.v1+" in stated:
        raise BadImage(
            f"manifest of {shown}: schema version 1 is not supported: registries and Docker have given it up",
            "push the image again with a newer tool",
        )
    document = read_object(reply.body, f"manifest of {shown}")
    inner = document.get("mediaType")
    if isinstance(inner, str) and inner:
        return inner
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def paged(
    connection: Connection, path: str, scopes: tuple[str, ...], member: str, shown: str
) -> Iterator[str]:
    """The names in a list that a registry gives a page at a time (`Link: <...>; rel="next"`)."""
    from urllib.parse import urljoin

    for _ in range(_PAGES):
        reply = connection.send("GET", path, scopes, limit=64 << 20)
        if reply.status != _OK:
            raise refusal(reply.status, reply.body, shown)
        import json

        try:
            names = json.loads(reply.body).get(member) or []
        except (ValueError, AttributeError):
            raise RegistryError(f"{shown}: the registry's list cannot be read") from None
        yield from (name for name in names if isinstance(name, str))
        link = reply.header("link") or ""
        if 'rel="next"' not in link or not link.startswith("<"):
            return
        # A whole address only as far as it is the registry's own.
        target = urljoin(reply.url, link[1:].partition(">")[0])
        if not target.startswith(connection.base + "/"):
            return
        path = target[len(connection.base) :]
