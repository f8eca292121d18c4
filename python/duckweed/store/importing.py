"""`import`: an image of one layer, from a tar of a root file system and a few Dockerfile instructions."""

from __future__ import annotations

import json
import os

from duckweed.errors import BadImage
from duckweed.oci import timestamp
from duckweed.oci.change import apply_changes
from duckweed.oci.digest import digest_of
from duckweed.oci.manifest import OCI_CONFIG, Descriptor, Manifest
from duckweed.oci.platform import Platform
from duckweed.oci.reference import Reference
from duckweed.store import references
from duckweed.store.archive import open_source
from duckweed.store.image import Image
from duckweed.store.layers import LayerBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.store.archive import Source
    from duckweed.store.images import ImageStore

_ATTEMPTS = 8


def import_rootfs(
    store: ImageStore,
    source: Source,
    name: str | None,
    changes: Sequence[str],
    message: str,
    platform: str | None,
) -> Image:
    """Extracts the tar (plain, gzip or zstd), which may be at an http address, as the only layer and records
    the image. Raises BadImage, UsageError, StoreError, RegistryError.
    """
    names = [Reference.parse(name)] if name else []
    config = _config(
        changes, message or "Imported from -", Platform.parse(platform) if platform else Platform.host()
    )
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        from duckweed.registry.fetching import fetch

        fd = fetch(store.layout, source)
    else:
        fd = open_source(store.layout, source)
    written: list[str] = []
    try:
        for _ in range(_ATTEMPTS):
            image = _keep(store, fd, config, names, written)
            if image is not None:
                return image
        raise BadImage("it is being removed at the same time")
    except BaseException as error:
        references.collect(store.layout, written)
        if isinstance(error, BadImage):
            shown = f"`{source}`" if isinstance(source, str) else "the archive"
            raise BadImage(f"cannot import {shown}: {error.message}", error.hint) from None
        raise
    finally:
        os.close(fd)


def _config(changes: Sequence[str], message: str, platform: Platform) -> dict[str, Any]:
    stamp = timestamp.now()
    run_config: dict[str, Any] = {}
    apply_changes(run_config, changes)
    document = {"created": stamp, "architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    return {**document, "config": run_config, "history": [{"created": stamp, "comment": message}]}


def _keep(
    store: ImageStore, fd: int, config: dict[str, Any], names: list[Reference], written: list[str]
) -> Image | None:
    """Takes in, records and confirms, as `loading` does; None when a remover came between."""
    if not os.pread(fd, 1, 0):
        raise BadImage("it is empty")
    record = store.layers.extract_new(LayerBytes(fd), [], store.flavour)
    written += [f"{record['chain_id'][7:]}.{store.flavour.name}", record["blob"][7:]]
    content = json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": [record["diff_id"]]}}).encode()
    layer = Descriptor(record["blob_media_type"], record["blob"], record["blob_size"])
    manifest = Manifest.compose(Descriptor(OCI_CONFIG, digest_of(content), len(content)), [layer])
    image_id, manifest_digest = store.blobs.put(content), store.blobs.put(manifest)
    written += [image_id[7:], manifest_digest[7:]]
    store.records.add(manifest_digest, image_id, False, names, [record["chain_id"]])
    if store.records.image(image_id) is None:
        return None
    blobs = (image_id, manifest_digest, record["blob"])
    if all(map(store.blobs.exists, blobs)) and store.layers.exists(record["chain_id"], store.flavour.name):
        return Image(
            store, names[0].familiar if names else image_id, image_id, manifest_digest, store.config(image_id)
        )
    return None
