"""Resolution: from a reference and a platform to the one manifest that is to be pulled.

An index leads to the manifest that suits the platform best; what the user named, index or manifest, is what
the image is known by in the registry from then on.
"""

from __future__ import annotations

from duckweed.errors import BadImage, NotInRegistry
from duckweed.oci.manifest import INDEX_TYPES, Manifest, choose, is_attestation, read_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.oci.platform import Platform
    from duckweed.oci.reference import Reference
    from duckweed.registry.registries import Registries
    from duckweed.registry.repository import RemoteManifest, Repository

_NESTING_LIMIT = 4


class Resolved:
    """`named` is what the reference names, `manifest` the image's own manifest, maybe the same."""

    __slots__ = ("manifest", "named", "repository")

    def __init__(self, repository: Repository, named: RemoteManifest, manifest: RemoteManifest) -> None:
        self.repository = repository
        self.named = named
        self.manifest = manifest

    def config(self) -> bytes:
        """The image's config, fetched and checked."""
        return self.repository.document(Manifest.read(self.manifest.content, "manifest").config)


def resolve(registries: Registries, reference: Reference, wanted: Platform) -> Resolved:
    """Asks for the reference's manifest. Raises NotInRegistry, AccessDenied, RegistryError, BadImage."""
    repository, named = registries.find(reference, reference.digest or reference.tag or "latest")
    found = named
    for _ in range(_NESTING_LIMIT):
        if found.media_type not in INDEX_TYPES:
            return Resolved(repository, named, found)
        entries = read_index(found.content, f"index `{found.digest}`")
        best = choose(entries, wanted)
        if best is None:
            offered = [str(one.platform) for one in entries if one.platform and not is_attestation(one)]
            raise NotInRegistry(
                f"no matching manifest for {wanted} in the manifest list entries of {reference.familiar}",
                f"it has {', '.join(offered[:10])}: ask for one with `--platform`" if offered else "",
            )
        found = repository.manifest(best.digest)
    raise BadImage(f"index of {reference.familiar}: nested too deeply")
