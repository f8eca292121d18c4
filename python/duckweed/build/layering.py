"""From what a step changed to a layer of the store.

A step ends with a request that says what the layer is made of: an upperdir, or a list of files
(docs/contracts.md §8). Its tar is written, by the runtime inside the user namespace where the files belong to
other ids than ours, and the store takes it in like any other layer; both digests come out, and with them the
layer's place.
"""

from __future__ import annotations

import json
import os
import threading

from duckweed import _core
from duckweed.errors import BadImage
from duckweed.oci.manifest import Manifest
from duckweed.store import scratch
from duckweed.store.layers import LayerBytes
from duckweed.store.tree_stream import TreeStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.build.cache import BuildCache
    from duckweed.build.distant_layers import DistantLayers
    from duckweed.build.state import StageState
    from duckweed.containers.place import Place
    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore


class NewLayer:
    """A layer that a step made; `size` are the bytes of its tar."""

    __slots__ = ("chain_id", "diff_id", "size")

    def __init__(self, record: dict[str, Any]) -> None:
        self.chain_id: str = record["chain_id"]
        self.diff_id: str = record["diff_id"]
        self.size: int = record["size"]


class Layering:
    """Makes layers in one place's flavour."""

    def __init__(self, images: ImageStore, place: Place) -> None:
        self._images = images
        self._layout = images.layout
        self._place = place
        self.flavour = images.flavour
        # Layers of other caches, and where their keys are kept when they are here.
        self.distant: DistantLayers | None = None
        self.cache: BuildCache | None = None
        self._bringing = threading.Lock()

    @property
    def owners(self) -> str:
        """Where owners of an upperdir's files stand: on the disk, or nowhere."""
        return "disk" if self.flavour.uid_map else "root"

    def lower(self, state: StageState) -> list[str]:
        """The stage's trees, topmost first."""
        return [directory + "/fs" for directory in self.layer_directories(state.chain)]

    def layer_directories(self, chain: list[str]) -> list[str]:
        """The directories of layers, topmost first."""
        return [self._layout.layer(chain_id, self.flavour.name) for chain_id in reversed(chain)]

    def add_changes(self, state: StageState, request: dict[str, Any]) -> NewLayer:
        """Puts the changes that a RUN made on the state's layers. Raises StoreError; nothing is left then."""
        with TreeStream({"owners": self.owners, **request}, self._place.map_texts()) as stream:
            return NewLayer(self._images.layers.extract_new(stream, state.chain, self.flavour))

    def content_digest(self, request: dict[str, Any]) -> str:
        """The digest of what a list of files holds; the caller has set their times to nothing. Raises
        StoreError.
        """
        import hashlib

        state = hashlib.sha256()
        with TreeStream(request, self._place.map_texts()) as stream:
            assert isinstance(stream.source, int)
            while chunk := os.read(stream.source, 1 << 20):
                state.update(chunk)
            stream.check()
        return state.hexdigest()

    def add_items(self, state: StageState, request: dict[str, Any], *, inside: bool) -> NewLayer:
        """Puts chosen files on the state's layers; `inside` the user namespace when they belong to other ids
        than ours. Raises StoreError, BadImage; nothing is left then.
        """
        if inside and self.flavour.uid_map:
            with TreeStream(request, self._place.map_texts()) as stream:
                return NewLayer(self._images.layers.extract_new(stream, state.chain, self.flavour))
        path = scratch.new_path(self._layout, "items")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(path)
            _core.archive_tree(json.dumps(request), fd)
            return self._take(state, fd)
        finally:
            os.close(fd)

    def add_tar(self, state: StageState, path: str) -> NewLayer:
        """Puts a layer on that is a tar already. Raises BadImage, StoreError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._take(state, fd)
        finally:
            os.close(fd)

    def _take(self, state: StageState, fd: int) -> NewLayer:
        source = LayerBytes(fd, 0, os.fstat(fd).st_size)
        return NewLayer(self._images.layers.extract_new(source, state.chain, self.flavour))

    def ensure_image(self, image: Image) -> None:
        """Makes sure of a base image's layers, in the own store: what a build makes refers to them. Raises
        BadImage.
        """
        layers = self._images.layers
        if all(layers.exists(chain_id, self.flavour.name) for chain_id in image.chain_ids):
            return
        manifest = Manifest.read(self._images.blobs.read(image.manifest), f"manifest `{image.manifest}`")
        blobs = [layer.digest for layer in manifest.layers]
        if len(blobs) != len(image.chain_ids):
            raise BadImage(f"image `{image.asked}`: its manifest and its config disagree")
        layers.ensure(image.chain_ids, image.diff_ids, blobs, self.flavour)

    def ensure(self, chain: list[str], diff_ids: list[str]) -> None:
        """Makes sure that these layers are there in this flavour, from their blobs if need be."""
        layers = self._images.layers
        if all(layers.exists(chain_id, self.flavour.name) for chain_id in chain):
            return
        with self._bringing:
            self._bring(chain, diff_ids)
        blobs = []
        for chain_id in chain:
            record = layers.any_record(chain_id, self.flavour.name) or {}
            blobs.append(str(record.get("blob") or ""))
        layers.ensure(chain, diff_ids, blobs, self.flavour)

    def _bring(self, chain: list[str], diff_ids: list[str]) -> None:
        """Fetches the layers that only another cache has, and makes them in order."""
        layers, distant = self._images.layers, self.distant
        if distant is None:
            return
        missing = [
            chain_id
            for chain_id in chain
            if distant.knows(chain_id) and layers.any_record(chain_id, self.flavour.name) is None
        ]
        if not missing:
            return
        paths = distant.fetch(missing)
        try:
            for index, chain_id in enumerate(chain):
                if chain_id in paths:
                    self._take_in(paths[chain_id], chain[: index + 1], diff_ids[index], distant)
        finally:
            for path in paths.values():
                scratch.discard_file(path)

    def _take_in(self, path: str, chain: list[str], diff_id: str, distant: DistantLayers) -> None:
        blob = distant.record(chain[-1]).blob
        assert blob is not None
        below = [
            str((self._images.layers.any_record(one, self.flavour.name) or {}).get("blob") or "")
            for one in chain[:-1]
        ]
        self._images.layers.ensure(chain[:-1], self._diff_ids_of(chain[:-1]), below, self.flavour)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._images.layers.extract(LayerBytes(fd, blob=blob.digest), chain, diff_id, self.flavour)
        finally:
            os.close(fd)
        if self.cache is not None:
            distant.arrived(chain[-1], self.cache)

    def _diff_ids_of(self, chain: list[str]) -> list[str]:
        layers = self._images.layers
        return [str((layers.any_record(one, self.flavour.name) or {}).get("diff_id")) for one in chain]
