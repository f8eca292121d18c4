"""`manifest inspect`: manifests and indexes as a registry has them, nothing pulled."""

from __future__ import annotations

import base64

from duckweed.oci.document import read_object
from duckweed.oci.manifest import INDEX_TYPES, OCI_MANIFEST, Descriptor, Manifest, read_index
from duckweed.oci.reference import Reference
from duckweed.registry.registries import Registries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.oci.platform import Platform
    from duckweed.registry.repository import RemoteManifest, Repository


def manifest_document(name: str, *, tls_verify: bool | None = None) -> dict[str, Any]:
    """The document of a manifest or index. Raises NotInRegistry, AccessDenied, RegistryError, BadImage."""
    _, found = _find(name, tls_verify)
    return read_object(found.content, f"manifest of {name}")


def manifest_details(name: str, *, tls_verify: bool | None = None) -> list[dict[str, Any]]:
    """For each image of a manifest or index: Ref, Descriptor, Raw (base64) and the document. Raises as
    `manifest_document`.
    """
    repository, found = _find(name, tls_verify)
    reference = repository.reference
    if found.media_type not in INDEX_TYPES:
        return [_details(repository, found, str(reference), None)]
    details = []
    for entry in read_index(found.content, f"index of {name}"):
        if entry.media_type in INDEX_TYPES:
            continue
        inner = repository.manifest(entry.digest)
        shown = f"{reference}@{entry.digest}" if not reference.digest else str(reference)
        details.append(_details(repository, inner, shown, entry.platform))
    return details


def _find(name: str, tls_verify: bool | None) -> tuple[Repository, RemoteManifest]:
    reference = Reference.parse(name)
    return Registries(tls_verify).find(reference, reference.digest or reference.tag or "latest")


def _details(
    repository: Repository, found: RemoteManifest, shown: str, platform: Platform | None
) -> dict[str, Any]:
    descriptor = Descriptor(found.media_type, found.digest, len(found.content)).as_dict()
    facts = _platform(platform) if platform is not None else _platform_of_config(repository, found)
    if facts:
        descriptor["platform"] = facts
    kind = "OCIManifest" if found.media_type == OCI_MANIFEST else "SchemaV2Manifest"
    return {
        "Ref": shown,
        "Descriptor": descriptor,
        "Raw": base64.b64encode(found.content).decode(),
        kind: read_object(found.content, f"manifest {found.digest}"),
    }


def _platform(platform: Platform) -> dict[str, str]:
    facts = {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant}
    return {key: value for key, value in facts.items() if value}


def _platform_of_config(repository: Repository, found: RemoteManifest) -> dict[str, str]:
    config = Manifest.read(found.content, f"manifest {found.digest}").config
    document = read_object(repository.document(config), "config")
    names = ("architecture", "os", "variant")
    return {name: document[name] for name in names if isinstance(document.get(name), str)}
