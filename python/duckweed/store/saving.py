"""Saving: images of the store as one archive that other engines read, always in the same bytes.

`docker-archive` is what Docker writes since version 25: an OCI image layout, and beside its index the
`manifest.json` that every older reader wants (Docker, Podman, skopeo, Buildah). `oci-archive` is the layout
alone. Not every reader knows zstd (umoci and older Docker do not), so such layers are written as plain tars
and the manifest is composed anew; but a manifest that came with its image stays as it is in an
`oci-archive`, digest and all.
"""

from __future__ import annotations

import json

from duckweed import _core
from duckweed.errors import BadImage, Conflict, UsageError
from duckweed.oci.digest import digest_of
from duckweed.oci.manifest import (
    CONTAINERD_NAME,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
    Manifest,
)
from duckweed.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore

    Part = tuple[str, "bytes | str", int, bool]

DOCKER_ARCHIVE, OCI_ARCHIVE = "docker-archive", "oci-archive"


class Saved:
    """One image on its way into an archive: its documents, its layers, the names it is saved under."""

    __slots__ = ("config", "image", "layers", "manifest", "manifest_type", "references")

    def __init__(self, store: ImageStore, image: Image, docker: bool, compression: str = "") -> None:
        self.image = image
        self.references: list[Reference] = []
        self.manifest = store.blobs.read(image.manifest)
        if compression == "gzip":
            from duckweed.store.recompression import recompressed

            self.manifest = recompressed(store, self.manifest, compression)
        self.manifest_type = str(json.loads(self.manifest).get("mediaType") or OCI_MANIFEST)
        self.config = store.blobs.read(image.id)
        record = store.records.image(image.id) or {}
        came = bool(record.get("original")) and record.get("manifest") == image.manifest
        is_open = (docker or not came) and compression != "zstd"
        read = Manifest.read(self.manifest, f"manifest `{image.manifest}`")
        packings = ("zstd", "gzip") if compression == "uncompressed" else ("zstd",)
        self.layers = [
            _Layer(store, image, index, layer, is_open and layer.media_type.endswith(packings))
            for index, layer in enumerate(read.layers)
        ]
        if any(layer.is_unpacked for layer in self.layers):
            config = Descriptor(OCI_CONFIG, image.id, len(self.config))
            self.manifest = Manifest.compose(
                config, [layer.descriptor for layer in self.layers], read.annotations
            )
            self.manifest_type = OCI_MANIFEST


class _Layer:
    """One layer: what it is called in the archive, and where it comes from."""

    __slots__ = ("descriptor", "diff_id", "is_unpacked", "path")

    def __init__(
        self, store: ImageStore, image: Image, index: int, stated: Descriptor, is_unpacked: bool
    ) -> None:
        self.descriptor = stated
        self.is_unpacked = is_unpacked
        self.diff_id = image.diff_ids[index]
        self.path = store.blobs.path(stated.digest)
        if store.blobs.size(stated.digest) is None:
            raise BadImage(
                f"cannot save `{image.asked}`: blob `{stated.digest}` is not in the store",
                "load or pull the image again",
            )
        if is_unpacked:
            record = store.layers.any_record(image.chain_ids[index], store.flavour.name) or {}
            if not isinstance(record.get("size"), int):
                store.ensure_layers(image)
                record = store.layers.any_record(image.chain_ids[index], store.flavour.name) or {}
            self.descriptor = Descriptor(OCI_LAYER, self.diff_id, int(record["size"]))


def save(store: ImageStore, names: Iterable[str], out_fd: int, archive_format: str) -> None:
    """Writes the images to a descriptor. Raises NoSuchImage, UsageError, Conflict, BadImage, StoreError;
    BrokenPipeError when nobody reads any more.
    """
    if archive_format not in (DOCKER_ARCHIVE, OCI_ARCHIVE):
        raise UsageError(
            f"unknown archive format `{archive_format}`",
            f"use `{DOCKER_ARCHIVE}` or `{OCI_ARCHIVE}`",
            exit_code=1,
        )
    docker = archive_format == DOCKER_ARCHIVE
    saved = _choose(store, names, docker)
    _core.write_archive(out_fd, _parts(saved, docker))


def save_built(
    store: ImageStore,
    images: Sequence[Image],
    references: Sequence[Reference],
    out_fd: int,
    *,
    docker: bool,
    compression: str = "",
    index: Callable[[list[Descriptor]], bytes] | None = None,
    annotations: dict[str, str] | None = None,
) -> str:
    """Writes what a build made, under its names; with `index`, which composes one over the images' manifests,
    they are one image of several platforms. `compression` is how the layers are packed (`gzip`, `zstd`,
    `uncompressed`, or as `save` does), `annotations` go beside the name. Returns the digest of what the names
    mean. Raises as `save`.
    """
    saved = [Saved(store, image, docker, compression) for image in images]
    if index is None:
        saved[0].references = list(references)
        _core.write_archive(out_fd, _parts(saved, docker, annotations))
        return digest_of(saved[0].manifest)
    content = index(
        [Descriptor(one.manifest_type, digest_of(one.manifest), len(one.manifest)) for one in saved]
    )
    blobs = _blobs(saved)
    _put(blobs, content)
    entry = Descriptor(OCI_INDEX, digest_of(content), len(content)).as_dict()
    entries = [
        {**entry, "annotations": {**(annotations or {}), **_annotations(reference)}}
        for reference in references
    ]
    _core.write_archive(out_fd, _layout(blobs, entries or [entry], []))
    return digest_of(content)


def _choose(store: ImageStore, names: Iterable[str], docker: bool) -> list[Saved]:
    """The images meant, each once. A repository without a tag means all its tags, as in Docker."""
    chosen: dict[str, Saved] = {}
    for name in names:
        for image, reference in _meant(store, name):
            if image.is_host:
                raise Conflict("cannot save `host`: it is the machine itself, not an image of the store")
            if image.id not in chosen:
                chosen[image.id] = Saved(store, image, docker)
            if reference is not None and reference not in chosen[image.id].references:
                chosen[image.id].references.append(reference)
    return list(chosen.values())


def _meant(store: ImageStore, name: str) -> list[tuple[Image, Reference | None]]:
    try:
        reference = Reference.parse(name)
    except UsageError:
        return [(store.get(name), None)]
    if ":" not in name.rpartition("/")[2] and not reference.digest:
        tagged = [
            (record, Reference.parse(record["reference"]))
            for record in store.records.all_tags()
            if Reference.parse(record["reference"]).name == reference.name
        ]
        if tagged:
            return [(store.get(other.familiar), other) for _, other in tagged]
    image = store.get(name)
    names = {str(Reference.parse(tag)) for tag in image.tags} if not image.is_host else set()
    for candidate in (reference, *_local(reference)):
        if not reference.digest and str(candidate) in names:
            return [(image, candidate)]
    return [(image, None)]


def _local(reference: Reference) -> list[Reference]:
    """The name that tools without a registry of their own give (`localhost/...`), under which it may be
    kept.
    """
    try:
        return [Reference.parse(f"localhost/{reference.familiar}")]
    except UsageError:
        return []


def _blobs(saved: list[Saved]) -> dict[str, Part]:
    blobs: dict[str, Part] = {}
    for one in saved:
        _put(blobs, one.manifest)
        _put(blobs, one.config)
        for layer in one.layers:
            digest, size = layer.descriptor.digest, layer.descriptor.size
            blobs.setdefault(digest, (_member(digest), layer.path, size, layer.is_unpacked))
    return blobs


def _parts(saved: list[Saved], docker: bool, annotations: dict[str, str] | None = None) -> list[Part]:
    entries: list[dict[str, Any]] = []
    for one in saved:
        digest, size = digest_of(one.manifest), len(one.manifest)
        entry: dict[str, Any] = {"mediaType": one.manifest_type, "digest": digest, "size": size}
        if annotations:
            entry["annotations"] = annotations
        entries += [
            {**entry, "annotations": {**(annotations or {}), **_annotations(reference)}}
            for reference in one.references
        ] or [entry]
    return _layout(_blobs(saved), entries, saved if docker else [])


def _layout(blobs: dict[str, Part], entries: list[dict[str, Any]], docker: list[Saved]) -> list[Part]:
    """The members of the archive; `docker` are the images that older readers look for."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    parts: list[Part] = [("blobs/", b"", 0, False), ("blobs/sha256/", b"", 0, False)]
    parts += [blobs[digest] for digest in sorted(blobs)]
    parts.append(_document("index.json", index))
    if docker:
        parts.append(_document("manifest.json", [_docker_entry(one) for one in docker]))
    parts.append(_document("oci-layout", {"imageLayoutVersion": "1.0.0"}))
    if docker:
        parts.append(_document("repositories", _repositories(docker)))
    return parts


def _put(blobs: dict[str, Part], content: bytes) -> str:
    digest = digest_of(content)
    blobs[digest] = (_member(digest), content, len(content), False)
    return digest


def _member(digest: str) -> str:
    return "blobs/sha256/" + digest[7:]


def _document(name: str, document: object) -> Part:
    content = json.dumps(document, separators=(",", ":")).encode()
    return (name, content, len(content), False)


def _annotations(reference: Reference) -> dict[str, str]:
    return {CONTAINERD_NAME: str(reference), REF_NAME: reference.tag or "latest"}


def _docker_entry(one: Saved) -> dict[str, Any]:
    return {
        "Config": _member(one.image.id),
        "RepoTags": [reference.familiar for reference in one.references] or None,
        "Layers": [_member(layer.descriptor.digest) for layer in one.layers],
        "LayerSources": {layer.diff_id: layer.descriptor.as_dict() for layer in one.layers},
    }


def _repositories(saved: list[Saved]) -> dict[str, dict[str, str]]:
    """What Docker's oldest readers look for: the topmost layer of each name."""
    found: dict[str, dict[str, str]] = {}
    for one in saved:
        for reference in one.references:
            if one.layers:
                top = one.layers[-1].descriptor.digest[7:]
                found.setdefault(reference.familiar_name, {})[reference.tag or "latest"] = top
    return found
