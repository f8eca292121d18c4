"""Results for several platforms: an image each in the store, and one index over them where that can be.

The store has one image under a name, so the names mean the machine's own platform there (or the first one).
An `oci` archive and a registry get the index; `local` and `tar` get a directory for each platform.
"""

from __future__ import annotations

import copy
import os
import tarfile

from duckweed.build.annotations import Annotations, with_annotations
from duckweed.build.export import Output, export, keep_image, write_archive, write_results
from duckweed.errors import BuildError
from duckweed.oci.digest import digest_of
from duckweed.oci.manifest import OCI_INDEX, Descriptor, Manifest, compose_index
from duckweed.oci.platform import Platform
from duckweed.store import saving, scratch
from duckweed.store.output_file import open_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckweed.build.progress import Vertex
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState
    from duckweed.oci.reference import Reference
    from duckweed.store.image import Image

    Solved = tuple[Build, StageState]


class SeveralPlatforms:
    """The results of one build for several platforms."""

    def __init__(self, solved: Sequence[Solved], names: list[Reference]) -> None:
        self._solved = solved
        self._first = solved[0][0]
        self._names = names
        self._platforms = [build.platform for build, _ in solved]

    def export(self, outputs: Sequence[Output], vertex: Vertex) -> Image | None:
        """Writes all outputs; the image that the names mean, if any was kept. Raises BuildError, StoreError,
        RegistryError.
        """
        if any(output.kind == "docker" for output in outputs):
            raise BuildError(
                "type=docker cannot hold several platforms", "use type=oci, or build for one platform"
            )
        for output in outputs:
            if output.kind == "local":
                self._write_directories(output, vertex)
            elif output.kind == "tar":
                self._write_tar(output)
        if outputs and all(output.is_files for output in outputs):
            write_results(self._first, None)
            return None
        images = self._keep(outputs)
        own = Platform.host() if Platform.host() in self._platforms else self._platforms[0]
        image = images[self._platforms.index(own)]
        index = self._compose(images, Annotations.parse(self._first.request.annotation))
        for output in outputs:
            if output.kind == "oci":
                self._write_layout(output, images)
            elif output.wants_push:
                index = self._push(output, images, vertex)
        write_results(self._first, image, Descriptor(OCI_INDEX, digest_of(index), len(index)))
        return image

    def _keep(self, outputs: Sequence[Output]) -> list[Image]:
        own = Platform.host() if Platform.host() in self._platforms else self._platforms[0]
        images = []
        options = next((one.options for one in outputs if one.kind in ("image", "registry")), {})
        for build, state in self._solved:
            annotations = Annotations.parse(build.request.annotation, options)
            names = self._names if build.platform == own else []
            images.append(keep_image(build, state, names, annotations.at("manifest", build.platform)))
        return images

    def _compose(
        self, images: Sequence[Image], annotations: Annotations, manifests: list[bytes] | None = None
    ) -> bytes:
        """The index; `manifests` are those of the images unless they are packed anew."""
        blobs = self._first.engine.images.blobs
        contents = manifests or [blobs.read(image.manifest) for image in images]
        described = []
        for content, platform in zip(contents, self._platforms):
            media_type = "application/vnd.oci.image.manifest.v1+json"
            entry = Descriptor(media_type, digest_of(content), len(content))
            described.append(
                (with_annotations(entry, annotations.at("manifest-descriptor", platform)), platform)
            )
        return compose_index(described, annotations.at("index"))

    def _write_layout(self, output: Output, images: list[Image]) -> None:
        annotations = Annotations.parse(self._first.request.annotation, output.options)

        def index(entries: list[Descriptor]) -> bytes:
            pairs = [
                (with_annotations(entry, annotations.at("manifest-descriptor", platform)), platform)
                for entry, platform in zip(entries, self._platforms)
            ]
            return compose_index(pairs, annotations.at("index"))

        def write(target: str) -> None:
            with open_output(target) as fd:
                saving.save_built(
                    self._first.engine.images,
                    images,
                    self._first.request.tags,
                    fd,
                    docker=False,
                    compression=output.compression,
                    index=index,
                    annotations=annotations.at("index-descriptor"),
                )

        write_archive(self._first, output, write)

    def _push(self, output: Output, images: list[Image], vertex: Vertex) -> bytes:
        """Every image by its digest, then the index under the names."""
        from duckweed.registry.pushing import push_document
        from duckweed.registry.registries import Registries
        from duckweed.store.recompression import recompressed

        if not self._names:
            raise BuildError("tag is needed when pushing to registry", "name the image with `-t`")
        store, registries = self._first.engine.images, Registries()
        contents = [store.blobs.read(image.manifest) for image in images]
        if output.compression == "gzip":
            contents = [recompressed(store, content, "gzip") for content in contents]
        annotations = Annotations.parse(self._first.request.annotation, output.options)
        index = self._compose(images, annotations, contents)
        for name in self._names:
            for content in contents:
                manifest = Manifest.read(content, "manifest")
                blobs = [*manifest.layers, manifest.config]
                push_document(store, registries, name, content, blobs, {}, digest_of(content))
            push_document(store, registries, name, index, [], {})
            vertex.status(f"pushing {name} done")
        return index

    # Files.

    def _write_directories(self, output: Output, vertex: Vertex) -> None:
        is_split = output.options.get("platform-split", "true").lower() not in ("false", "0")
        for build, state in self._solved:
            part = copy.copy(output)
            if is_split:
                part.destination = f"{output.destination}/{_directory(build.platform)}"
            export(build, state, part, None, vertex)

    def _write_tar(self, output: Output) -> None:
        """One tar of all, each platform's files below its directory."""
        with (
            open_output(output.destination) as fd,
            os.fdopen(os.dup(fd), "wb") as file,
            tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as out,
        ):
            for build, state in self._solved:
                self._add_part(build, state, out)

    def _add_part(self, build: Build, state: StageState, out: tarfile.TarFile) -> None:
        from duckweed.build.files_out import export_files

        whole = scratch.new_path(build.layout, "output")
        lead = _directory(build.platform)
        try:
            export_files(build, state, Output("tar", whole, {}))
            top = tarfile.TarInfo(lead)
            top.type, top.mode = tarfile.DIRTYPE, 0o755
            out.addfile(top)
            with tarfile.open(whole) as tar:
                for member in tar:
                    source = tar.extractfile(member) if member.isfile() else None
                    member.name = f"{lead}/{member.name}"
                    if member.islnk():
                        member.linkname = f"{lead}/{member.linkname}"
                    # A long name stands here, too, without what was put before it.
                    kept = {key: text for key, text in member.pax_headers.items() if "path" not in key}
                    member.pax_headers = kept
                    out.addfile(member, source)
        finally:
            scratch.discard_file(whole)


def _directory(platform: Platform) -> str:
    return str(platform).replace("/", "_")
