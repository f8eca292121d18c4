"""What becomes of the result: an image of the store, or files.

`image` is the store's own (and `push` sends it on), `docker` and `oci` are archives, `local` a directory and
`tar` a tar of the result's files. Without any output the image is kept in the store. Results for several
platforms become one index where an index can be: in an `oci` archive and in a registry (several.py).
"""

from __future__ import annotations

import json
import os

from duckweed.build.annotations import Annotations
from duckweed.build.state import dated_history
from duckweed.dockerfile.mount import split_fields
from duckweed.errors import BuildError, StoreError, UsageError
from duckweed.oci import timestamp
from duckweed.oci.manifest import OCI_MANIFEST, Descriptor
from duckweed.store import composing, references, saving, scratch
from duckweed.store.output_file import open_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from duckweed.build.progress import Vertex
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState
    from duckweed.oci.reference import Reference
    from duckweed.store.image import Image

_KINDS = ("image", "registry", "local", "tar", "oci", "docker", "cacheonly")
_ATTEMPTS = 8
_CONFIG_ORDER = (
    "Hostname",
    "Domainname",
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Healthcheck",
    "ArgsEscaped",
    "Volumes",
    "WorkingDir",
    "OnBuild",
    "Labels",
    "StopSignal",
    "Shell",
)


class Output:
    """One `--output`: its kind, where it goes ("-" is stdout, "" the store), and the rest of the options."""

    __slots__ = ("destination", "kind", "options")

    def __init__(self, kind: str, destination: str, options: dict[str, str]) -> None:
        self.kind = kind
        self.destination = destination
        self.options = options

    @classmethod
    def parse(cls, text: str) -> Output:
        """Reads `type=tar,dest=FILE`, a directory, or `-`. Raises UsageError."""
        if text == "-":
            return cls("tar", "-", {})
        fields = split_fields(text)
        if len(fields) == 1 and "=" not in text:
            return cls("local", text, {})
        options: dict[str, str] = {}
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                raise UsageError(f"invalid output `{text}`: `{field}` is not KEY=VALUE")
            options[key.strip().lower()] = value
        kind = options.pop("type", "")
        if kind not in _KINDS:
            raise UsageError(
                f"invalid output `{text}`: " + (f"unknown type `{kind}`" if kind else "type is required"),
                f"types are {', '.join(_KINDS)}",
            )
        destination = options.pop("dest", "")
        if kind in ("local", "tar", "oci") and not destination:
            raise UsageError(f"invalid output `{text}`: dest is required for {kind}")
        packing = options.get("compression", "")
        if packing not in ("", "gzip", "zstd", "uncompressed"):
            raise UsageError(
                f"invalid output `{text}`: unsupported compression `{packing}`",
                "it is gzip, zstd or uncompressed",
            )
        output = cls(kind, destination, options)
        if output.wants_push and packing == "uncompressed":
            raise UsageError(f"invalid output `{text}`: layers are pushed as gzip or zstd")
        return output

    @property
    def is_files(self) -> bool:
        """Whether it is made of files alone, and needs no image."""
        return self.kind in ("local", "tar", "cacheonly")

    @property
    def wants_push(self) -> bool:
        """Whether it goes to a registry."""
        return self.kind == "registry" or self.options.get("push", "").lower() in ("true", "1")

    @property
    def compression(self) -> str:
        """How layers are to be packed; "" for as they are."""
        return self.options.get("compression", "")


def compose_config(build: Build, state: StageState) -> dict[str, Any]:
    """The image config of a state, its members in the order that Docker writes them."""
    epoch = None if build.epoch is None else timestamp.from_unix_ns(build.epoch * 10**9)
    history, last = dated_history(state, _short(epoch))
    config = dict(state.config)
    if build.request.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **build.request.labels}
    known = {name: config[name] for name in _CONFIG_ORDER if config.get(name) is not None}
    rest = {name: value for name, value in config.items() if name not in known and value is not None}
    created = _short(epoch) or last or _short(timestamp.now())
    document: dict[str, Any] = {"created": created}
    document.update({name: value for name, value in state.document.items() if value})
    document["config"] = {**known, **rest}
    document["rootfs"] = {"type": "layers", "diff_ids": state.diff_ids}
    document["history"] = history
    if build.request.inline_cache:
        from duckweed.build.cache_export import inline_records
        from duckweed.build.cache_places import INLINE, compose_document

        document[INLINE] = compose_document(inline_records(build, state))
    return document


def _short(stamp: str | None) -> str | None:
    """Go writes no fraction that is nothing."""
    return stamp.replace(".000000000Z", "Z") if stamp else stamp


def keep_image(
    build: Build, state: StageState, names: list[Reference], annotations: dict[str, str] | None = None
) -> Image:
    """Puts the image into the store under its names. Raises StoreError."""
    images = build.engine.images
    build.layering.ensure(state.chain, state.diff_ids)
    layers = layer_descriptors(build, state)
    config = compose_config(build, state)
    written: list[str] = []
    for _ in range(_ATTEMPTS):
        image = composing.keep(images, config, layers, names, written, annotations)
        if image is not None:
            return image
        build.layering.ensure(state.chain, state.diff_ids)
    references.collect(build.layout, written)
    raise StoreError("cannot keep the image: it is being removed at the same time")


def layer_descriptors(build: Build, state: StageState) -> list[Descriptor]:
    """The blobs of the state's layers, bottom first. Raises StoreError."""
    images = build.engine.images
    found = []
    for chain_id in state.chain:
        record = images.layers.any_record(chain_id, images.flavour.name)
        if record is None or not images.blobs.exists(record["blob"]):
            raise StoreError(
                f"layer `{chain_id}` is not in the store any more", "build again with `--no-cache`"
            )
        found.append(Descriptor(record["blob_media_type"], record["blob"], record["blob_size"]))
    return found


def export(build: Build, state: StageState, output: Output, image: Image | None, vertex: Vertex) -> None:
    """Writes one output that is not the store's image. Raises BuildError, StoreError, Unsupported."""
    if output.kind == "cacheonly":
        return
    if output.kind in ("oci", "docker"):
        assert image is not None
        annotations = Annotations.parse(build.request.annotation, output.options)

        def write(target: str) -> None:
            with open_output(target) as fd:
                saving.save_built(
                    build.engine.images,
                    [image],
                    build.request.tags,
                    fd,
                    docker=output.kind == "docker",
                    compression=output.compression,
                    annotations=annotations.at("manifest-descriptor"),
                )

        write_archive(build, output, write)
        return
    if output.kind in ("local", "tar"):
        from duckweed.build.files_out import export_files

        export_files(build, state, output)
        vertex.status("copying files done")


def write_archive(build: Build, output: Output, write: Callable[[str], None]) -> None:
    """Writes an archive, or with `tar=false` its members into a directory. Raises BuildError, StoreError."""
    if not output.destination:
        return  # `type=docker` alone is what --load means: it is in the store
    if output.options.get("tar", "true").lower() not in ("false", "0"):
        write(output.destination)
        return
    from duckweed.build.unpack import unpack_context

    whole = scratch.new_path(build.layout, "output")
    try:
        write(whole)
        os.makedirs(output.destination, exist_ok=True)
        unpack_context(build.layout, whole, output.destination)
    except OSError as error:
        raise BuildError(
            f"cannot write `{output.destination}`: {(error.strerror or str(error)).lower()}"
        ) from None
    finally:
        scratch.discard_file(whole)


def write_results(build: Build, image: Image | None, index: Descriptor | None = None) -> None:
    """`--iidfile` and `--metadata-file`; `index` is over the images of several platforms.

    Raises BuildError.
    """
    request = build.request
    try:
        if request.iidfile and image is not None:
            with open(request.iidfile, "w") as file:
                file.write(index.digest if index else image.id)
        if request.metadata_file:
            with open(request.metadata_file, "w") as file:
                file.write(json.dumps(metadata(build, image, index), indent=2))
    except OSError as error:
        raise BuildError(
            f"cannot write `{error.filename}`: {(error.strerror or str(error)).lower()}"
        ) from None


def metadata(build: Build, image: Image | None, index: Descriptor | None = None) -> dict[str, Any]:
    """What `--metadata-file` says, by buildx's names."""
    document: dict[str, Any] = {"buildx.build.ref": f"duckweed/{os.urandom(12).hex()}"}
    if image is None:
        return document
    if index is None:
        size = build.engine.images.blobs.size(image.manifest) or 0
        index = Descriptor(OCI_MANIFEST, image.manifest, size)
        document["containerimage.config.digest"] = image.id
    document["containerimage.descriptor"] = index.as_dict()
    document["containerimage.digest"] = index.digest
    if build.request.tags:
        document["image.name"] = ",".join(str(reference) for reference in build.request.tags)
    return document
