"""Images made here: a config, the layers it names, and a manifest over both, taken into the store.

As a load, it is written first and looked at after: whoever removes images may have seen the parts
unreferenced in between.
"""

from __future__ import annotations

import json
import os

from duckweed.errors import BadImage, NoSuchImage
from duckweed.oci.digest import chain_ids, digest_of
from duckweed.oci.manifest import OCI_CONFIG, Descriptor, Manifest
from duckweed.store.image import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.oci.reference import Reference
    from duckweed.store.images import ImageStore

_DOCKER_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}


def layers_of(store: ImageStore, image: Image) -> list[Descriptor]:
    """The descriptors of an image's layers, bottom first, with OCI's media types. Raises BadImage,
    StoreError.
    """
    if image.is_host:
        return []
    manifest = Manifest.read(store.blobs.read(image.manifest), f"manifest `{image.manifest}`")
    return [
        Descriptor(_DOCKER_LAYERS.get(layer.media_type, layer.media_type), layer.digest, layer.size)
        for layer in manifest.layers
    ]


def keep(
    store: ImageStore,
    config: dict[str, Any],
    layers: Sequence[Descriptor],
    names: Sequence[Reference],
    written: list[str],
    annotations: dict[str, str] | None = None,
) -> Image | None:
    """Puts the documents into the store, records the image under `names` (or none), and confirms that all is
    there: None when a remover came between. What is written is added to `written`, for `references.collect`.
    """
    content = json.dumps(config, separators=(",", ":")).encode()
    manifest = Manifest.compose(
        Descriptor(OCI_CONFIG, digest_of(content), len(content)), list(layers), annotations
    )
    chain = chain_ids(config["rootfs"]["diff_ids"])
    own = store.own
    image_id, manifest_digest = own.blobs.put(content), own.blobs.put(manifest)
    written += [image_id[7:], manifest_digest[7:]]
    own.records.add(manifest_digest, image_id, False, list(names), chain)
    if own.records.image(image_id) is None:
        return None
    # The parts of a base image may be in a read-only store.
    blobs = (image_id, manifest_digest, *(layer.digest for layer in layers))
    if any(store.blobs.size(digest) is None for digest in blobs):
        return None
    asked = names[0].familiar if names else image_id
    image = Image(store, asked, image_id, manifest_digest, store.config(image_id))
    return image if all(map(os.path.isdir, image.lower)) else None


def base_image(store: ImageStore, image_id: str) -> Image:
    """The image that a container was made of, by its id, its layers made. Raises BadImage when it is gone."""
    try:
        image = store.get(image_id)
    except NoSuchImage:
        raise BadImage(
            f"the container's image {image_id[7:19]} was removed", "load or pull it again, then commit"
        ) from None
    store.ensure_layers(image)
    return image
