"""Loading: from a plan to an image in the store.

Each image is *taken in* (blobs and layers to their final paths, each whole and verified), then *recorded*
(the reference is written), then *confirmed* (everything it refers to is looked at again, for a remover may
have seen it unreferenced just before). All images of an archive are taken in before the first is recorded;
when one is bad, what was written for them is collected again, unless somebody else refers to it by now.
"""

from __future__ import annotations

from duckweed.errors import BadImage, StoreError
from duckweed.oci.config import diff_ids
from duckweed.oci.digest import chain_ids, digest_of
from duckweed.oci.manifest import OCI_CONFIG, Descriptor, Manifest
from duckweed.oci.platform import Platform
from duckweed.store import references
from duckweed.store.archive import open_archive
from duckweed.store.layers import LayerBytes
from duckweed.store.layout import hint_for
from duckweed.store.plan import ImagePlan, LayerPlan, read_plans
from duckweed.store.room import Need, require
from duckweed.store.stacking import LayerFailed, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.oci.reference import Reference
    from duckweed.store.archive import Archive, Source
    from duckweed.store.blobs import BlobStore
    from duckweed.store.layers import Flavour, LayerStore
    from duckweed.store.layout import Layout
    from duckweed.store.records import Records
    from duckweed.store.stacking import Turn

_ATTEMPTS = 8


class Loaded:
    """One image that was taken in: its digests, and the references it is to have."""

    __slots__ = ("chain", "config", "manifest", "original", "references")

    def __init__(
        self, manifest: str, config: str, original: bool, references: list[Reference], chain: list[str]
    ) -> None:
        self.manifest = manifest
        self.config = config
        self.original = original
        self.references = references
        self.chain = chain


class Loader:
    """Loads archives into one store, in one flavour."""

    def __init__(
        self, layout: Layout, blobs: BlobStore, layers: LayerStore, records: Records, flavour: Flavour
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._layers = layers
        self._records = records
        self._flavour = flavour
        self._written: list[str] = []

    def load(self, source: Source) -> list[Loaded]:
        """Loads every image of an archive, or none. Raises BadImage, StoreError with one line."""
        try:
            with open_archive(self._layout, source) as archive:
                return self.keep(archive, read_plans(archive, Platform.host()))
        except BadImage as error:
            name = "`-`" if source == "-" else f"`{source}`" if isinstance(source, str) else "the archive"
            raise BadImage(f"cannot load {name}: {error.message}", error.hint, code=error.code) from None
        except RecursionError:
            raise BadImage("cannot load the archive: a document is nested too deeply") from None

    def keep(self, archive: Archive, plans: list[ImagePlan]) -> list[Loaded]:
        """Takes in, records and confirms these images. On any failure nothing of them stays."""
        try:
            loaded = [self._take_in(archive, plan) for plan in plans]
            for one in loaded:
                self._records.add(one.manifest, one.config, one.original, one.references, one.chain)
            for one, plan in zip(loaded, plans):
                self._confirm(archive, plan, one)
        except BaseException as error:
            self._give_up(error)
            raise
        return loaded

    def _give_up(self, error: BaseException) -> None:
        # Also for Ctrl-C: what nobody refers to would only be found by the next prune.
        references.collect(self._layout, self._written)

    def _confirm(self, archive: Archive, plan: ImagePlan, loaded: Loaded) -> None:
        for _ in range(_ATTEMPTS):
            if self._is_whole(loaded, plan):
                return
            self._take_in(archive, plan)
            self._records.add(loaded.manifest, loaded.config, loaded.original, [], loaded.chain)
        raise StoreError("cannot load the image: it is being removed at the same time")

    def _is_whole(self, loaded: Loaded, plan: ImagePlan) -> bool:
        if self._records.image(loaded.config) is None:
            return False
        if not self._blobs.exists(loaded.manifest) or not self._blobs.exists(loaded.config):
            return False
        manifest = Manifest.read(self._blobs.read(loaded.manifest), "manifest")
        chain = chain_ids(diff_ids(plan.config))
        return all(self._blobs.exists(layer.digest) for layer in manifest.layers) and all(
            self._layers.exists(chain_id, self._flavour.name) for chain_id in chain
        )

    def _take_in(self, archive: Archive, plan: ImagePlan) -> Loaded:
        chain, stated = chain_ids(diff_ids(plan.config)), diff_ids(plan.config)
        self._require_room(archive, plan, chain)
        descriptors = self._take_layers(archive, plan, chain, stated)
        config = self._put(plan.config_bytes)
        content = plan.manifest_bytes
        if content is None:
            content = Manifest.compose(Descriptor(OCI_CONFIG, config, len(plan.config_bytes)), descriptors)
        return Loaded(self._put(content), config, plan.manifest_bytes is not None, plan.references, chain)

    def _require_room(self, archive: Archive, plan: ImagePlan, chain: list[str]) -> None:
        """Raises StoreError when what is missing of the image cannot fit."""
        need = Need()
        for layer, chain_id in zip(plan.layers, chain):
            if self._layers.exists(chain_id, self._flavour.name):
                continue
            known = self._layers.any_record(chain_id, self._flavour.name)
            need += (
                archive.need(layer) if known is None else Need(trees=known["size"], files=known["entries"])
            )
        require(self._layout, need, "the image")

    def _take_layers(
        self, archive: Archive, plan: ImagePlan, chain: list[str], stated: list[str]
    ) -> list[Descriptor]:
        """All layers. A remover may take a lower one away while those above are extracted on
        it: then it was nobody's yet, and is made again.
        """
        for attempt in range(_ATTEMPTS + 1):
            try:
                return self._stack(archive, plan, chain, stated).take_all()
            except LayerFailed as failed:
                index, error = failed.index, failed.error
                number = getattr(error, "errno", None)
                if isinstance(error, StoreError) and number is not None:
                    words = f"cannot extract layer {index + 1} of {len(chain)}: {error.message}"
                    hint = hint_for(number)
                    raise StoreError(words, hint, code=error.code) from None
                if not isinstance(error, BadImage):
                    raise error from None
                # By now the remover may have put it back: it had found a reference.
                taken = error.code == "lower-layers" or not all(
                    self._layers.exists(each, self._flavour.name) for each in chain[:index]
                )
                if attempt == _ATTEMPTS or not (taken or archive.is_renewed(plan.layers[index])):
                    words = f"layer {index + 1} of {len(chain)}: {error.message}"
                    raise BadImage(words, error.hint, code=error.code) from None
        raise AssertionError

    def _stack(
        self, archive: Archive, plan: ImagePlan, chain: list[str], stated: list[str]
    ) -> Stack[Descriptor]:
        def take(index: int, turn: Turn) -> Descriptor:
            return self._take_layer(archive, plan.layers[index], chain[: index + 1], stated[index], turn)

        return Stack(len(plan.layers), take, archive.give_up)

    def _put(self, content: bytes) -> str:
        digest = digest_of(content)
        if not self._blobs.exists(digest):
            self._written.append(digest[7:])
            self._blobs.put(content)
        return digest

    def _take_layer(
        self, archive: Archive, layer: LayerPlan, chain: list[str], diff_id: str, turn: Turn
    ) -> Descriptor:
        """Makes sure of one layer's tree and blob; extracts only what is not there in this flavour yet."""
        known = self._layers.read(chain[-1], self._flavour.name)
        if known is None:
            self._written.append(f"{chain[-1][7:]}.{self._flavour.name}")
            known, _ = self._layers.extract(archive.layer(layer), chain, diff_id, self._flavour, turn)
            self._written.append(known["blob"][7:])
        if layer.blob is not None and not self._blobs.exists(layer.blob):
            self._written.append(layer.blob[7:])
            archive.keep(self._blobs, layer, layer.blob)
        elif layer.blob is None and not self._blobs.exists(known["blob"]):
            known = self._extract_again(archive.layer(layer), chain, diff_id, turn)
        archive.taken(layer)
        return Descriptor(known["blob_media_type"], layer.blob or known["blob"], known["blob_size"])

    def _extract_again(
        self, source: LayerBytes, chain: list[str], diff_id: str, turn: Turn
    ) -> dict[str, Any]:
        """The tree is there but its blob is not: a remover was at work. Extracts beside it, for the blob."""
        record, _ = self._layers.extract(source, chain, diff_id, self._flavour, turn)
        return record
