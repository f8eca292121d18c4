"""Recompression: the layers of an image packed in another way, for registries or tools that cannot read the
one they are kept in. Diff ids and config stay the same; the manifest is a new one.
"""

from __future__ import annotations

import os
import zlib

from duckweed import _core
from duckweed.errors import UsageError
from duckweed.oci.digest import is_digest
from duckweed.oci.manifest import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest
from duckweed.store import scratch
from duckweed.store.layout import cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.store.images import ImageStore

_CHUNK = 1 << 20
_LEVEL = 6
# RFC 1952: deflate, no name, no time, unknown system: the same bytes whenever and wherever it is done.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


def recompressed(store: ImageStore, content: bytes, wanted: str) -> bytes:
    """A manifest whose layers are `gzip`; new blobs are in the store. Raises UsageError, StoreError."""
    if wanted != "gzip":
        raise UsageError(f"unknown compression format `{wanted}`", "it is `gzip`", exit_code=1)
    manifest = Manifest.read(content, "manifest")
    if all(layer.media_type.endswith("gzip") for layer in manifest.layers):
        return content
    layers = [
        layer if layer.media_type.endswith("gzip") else _gzipped(store, layer) for layer in manifest.layers
    ]
    config = Descriptor(OCI_CONFIG, manifest.config.digest, manifest.config.size)
    return Manifest.compose(config, [_as_oci(layer) for layer in layers], manifest.annotations)


def _as_oci(layer: Descriptor) -> Descriptor:
    return Descriptor(f"{OCI_LAYER}+gzip", layer.digest, layer.size)


def _gzipped(store: ImageStore, layer: Descriptor) -> Descriptor:
    layout = store.layout
    plain, packed = scratch.new_path(layout, "plain"), scratch.new_path(layout, "gzip")
    try:
        with open(store.blobs.path(layer.digest), "rb") as source, open(plain, "x+b") as tar:
            if _core.decompress(source.fileno(), tar.fileno()) == "none":
                tar.close()
                size = _pack(store.blobs.path(layer.digest), packed)
            else:
                size = _pack(plain, packed)
        with open(packed, "rb") as file:
            digest, _ = _core.digest_file(file.fileno())
        assert is_digest(digest)
        store.blobs.adopt(packed, digest)
        return Descriptor(f"{OCI_LAYER}+gzip", digest, size)
    except OSError as error:
        raise cannot("write in", layout.tmp, error) from None
    finally:
        scratch.discard_file(plain)
        scratch.discard_file(packed)


def _pack(source: str, target: str) -> int:
    state = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    check = size = 0
    with open(source, "rb") as tar, open(target, "xb") as file:
        file.write(_HEADER)
        while True:
            chunk = tar.read(_CHUNK)
            if not chunk:
                break
            check, size = zlib.crc32(chunk, check), size + len(chunk)
            file.write(state.compress(chunk))
        file.write(state.flush())
        file.write(check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
        file.flush()
        return os.fstat(file.fileno()).st_size
