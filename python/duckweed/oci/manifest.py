"""Manifests and indexes: which blobs make an image, and which image suits this machine.

OCI's and Docker's documents differ in media types only, so one reader serves both (image-spec, manifest.md
and image-index.md). A descriptor is media type, digest and size.
"""

from __future__ import annotations

import json

from duckweed.errors import BadImage
from duckweed.oci.digest import check_digest
from duckweed.oci.document import list_field, object_field, read_object
from duckweed.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
_CONFIG_TYPES = frozenset((OCI_CONFIG, DOCKER_CONFIG))

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
LAYER_LIMIT = 500
"""overlay takes 500 lower directories at most (fs/overlayfs, OVL_MAX_STACK; measured)."""


class Descriptor:
    """What a document says of a blob: `media_type`, `digest`, `size`, and for an index also `platform` and
    `annotations`.
    """

    __slots__ = ("annotations", "digest", "media_type", "platform", "size")

    def __init__(
        self,
        media_type: str,
        digest: str,
        size: int,
        platform: Platform | None = None,
        annotations: dict[str, str] | None = None,
    ) -> None:
        self.media_type = media_type
        self.digest = digest
        self.size = size
        self.platform = platform
        self.annotations = annotations or {}

    @classmethod
    def read(cls, document: object, what: str) -> Descriptor:
        """Checks one descriptor. Raises BadImage."""
        if not isinstance(document, dict):
            raise BadImage(f"{what}: a descriptor is not an object")
        digest = check_digest(document.get("digest"), what)
        size = document.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BadImage(f"{what}: descriptor of `{digest}` has no size")
        media_type = document.get("mediaType") or ""
        if not isinstance(media_type, str):
            raise BadImage(f"{what}: descriptor of `{digest}` has no media type")
        platform = object_field(document, "platform", what)
        annotations = object_field(document, "annotations", what)
        return cls(
            media_type,
            digest,
            size,
            Platform.of(platform) if platform else None,
            {key: value for key, value in annotations.items() if isinstance(value, str)},
        )

    def as_dict(self) -> dict[str, Any]:
        """The descriptor as it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Manifest:
    """One image's manifest: `config`, `layers` (bottom first) and `annotations`."""

    __slots__ = ("annotations", "config", "layers")

    def __init__(
        self, config: Descriptor, layers: list[Descriptor], annotations: dict[str, str] | None = None
    ) -> None:
        self.config = config
        self.layers = layers
        self.annotations = annotations or {}

    @classmethod
    def read(cls, content: bytes, what: str) -> Manifest:
        """Reads an image manifest, OCI's or Docker's schema 2. Raises BadImage."""
        document = read_object(content, what)
        if document.get("schemaVersion") != 2:
            raise BadImage(f"{what}: not a manifest of schema version 2")
        if "config" not in document:
            raise BadImage(f"{what}: no `config`")
        config = Descriptor.read(document["config"], what)
        if config.media_type and config.media_type not in _CONFIG_TYPES:
            raise BadImage(f"{what}: not a container image but `{config.media_type[:80]}`")
        layers = [Descriptor.read(layer, what) for layer in list_field(document, "layers", what)]
        if len(layers) > LAYER_LIMIT:
            raise BadImage(f"{what}: {len(layers)} layers, more than {LAYER_LIMIT}")
        for layer in layers:
            if layer.media_type.endswith("+encrypted"):
                raise BadImage(f"{what}: layer `{layer.digest}` is encrypted")
        annotations = object_field(document, "annotations", what)
        return cls(
            config, layers, {key: value for key, value in annotations.items() if isinstance(value, str)}
        )

    @staticmethod
    def compose(
        config: Descriptor, layers: list[Descriptor], annotations: dict[str, str] | None = None
    ) -> bytes:
        """The bytes of a new OCI manifest: the same parts give the same bytes, hence the same digest."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.as_dict(),
            "layers": [layer.as_dict() for layer in layers],
        }
        if annotations:
            document["annotations"] = annotations
        return json.dumps(document, separators=(",", ":")).encode()


def compose_index(
    entries: list[tuple[Descriptor, Platform]], annotations: dict[str, str] | None = None
) -> bytes:
    """The bytes of an OCI index over images and the platforms they are for."""
    manifests = []
    for entry, platform in entries:
        named: dict[str, Any] = {**entry.as_dict(), "platform": platform.as_dict()}
        if entry.annotations:
            named["annotations"] = entry.annotations
        manifests.append(named)
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    if annotations:
        document["annotations"] = annotations
    return json.dumps(document, separators=(",", ":")).encode()


def read_index(content: bytes, what: str) -> list[Descriptor]:
    """The entries of an index, in order. Raises BadImage."""
    document = read_object(content, what)
    if "manifests" not in document:
        raise BadImage(f"{what}: not an index (no `manifests`)")
    return [Descriptor.read(entry, what) for entry in list_field(document, "manifests", what)]


def is_attestation(entry: Descriptor) -> bool:
    """BuildKit puts provenance beside images as manifests for the platform `unknown/unknown`."""
    if "vnd.docker.reference.type" in entry.annotations:
        return True
    return entry.platform is not None and entry.platform.os == "unknown"


def choose(entries: list[Descriptor], wanted: Platform) -> Descriptor | None:
    """The entry that suits `wanted` best; the first of equals; one without a platform only if nothing else
    fits.
    """
    best: tuple[int, Descriptor] | None = None
    for entry in entries:
        if is_attestation(entry):
            continue
        if entry.media_type and entry.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            continue
        rank = 1000 if entry.platform is None else entry.platform.rank(wanted)
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, entry)
    return best[1] if best else None
