"""Extracted layers: one directory for each chain id and flavour, made once and shared by every image and
container.

A *flavour* is how owners are kept on disk. `single`: all files are the user's, real owners stand in the
layer's index. `mapped-<hash>`: owners were applied by chown inside a user namespace with these maps, so the
tree fits only containers with the same maps.
"""

from __future__ import annotations

import errno
import os

from duckweed import _core
from duckweed.errors import BadImage
from duckweed.oci.digest import next_chain_id
from duckweed.store import scratch, shared, within
from duckweed.store.layout import cannot
from duckweed.store.tree import discard_tree, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.blobs import BlobStore
    from duckweed.store.layout import Layout
    from duckweed.store.stacking import Turn


class Flavour:
    """`name`, and for a mapped flavour the maps as the runtime's `--uid-map` and `--gid-map` take them."""

    __slots__ = ("gid_map", "name", "uid_map")

    def __init__(self, name: str, uid_map: str = "", gid_map: str = "") -> None:
        self.name = name
        self.uid_map = uid_map
        self.gid_map = gid_map

    @classmethod
    def mapped(cls, uid_map: str, gid_map: str) -> Flavour:
        """The flavour of these maps: the hash is over both, so that equal maps share their layers."""
        import hashlib

        word = hashlib.sha256(f"{uid_map};{gid_map}".encode()).hexdigest()[:12]
        return cls("mapped-" + word, uid_map, gid_map)


SINGLE = Flavour("single")

# How often a layer is published anew when loaders and removers race for its name.
_RACES = 64


class LayerBytes:
    """Where one layer's bytes are to be read: `length` bytes of a descriptor from `offset` (to its end when
    None), or a blob that is still on its way.

    `blob` is the digest they must have, if that is known; `is_kept`: the store has this blob, or gets it from
    whoever fetches it, so that the extraction need not write it.
    """

    __slots__ = ("blob", "is_kept", "length", "offset", "source")

    def __init__(
        self,
        source: int | _core.Part,
        offset: int = 0,
        length: int | None = None,
        blob: str | None = None,
        is_kept: bool = False,
    ) -> None:
        self.source = source
        self.offset = offset
        self.length = length
        self.blob = blob
        self.is_kept = is_kept

    def check(self) -> None:
        """Called when all was read. Raises StoreError when a stream that ended was not complete."""


class LayerStore:
    """The layers below one root."""

    __slots__ = ("_blobs", "_layout")

    def __init__(self, layout: Layout, blobs: BlobStore) -> None:
        self._layout = layout
        self._blobs = blobs

    def path(self, chain_id: str, flavour: str) -> str:
        """The layer's directory; its tree is `fs` below."""
        return self._layout.layer(chain_id, flavour)

    def exists(self, chain_id: str, flavour: str) -> bool:
        """Whether this layer is there: what is at its final path is whole."""
        return os.path.isdir(self._layout.layer(chain_id, flavour))

    def read(self, chain_id: str, flavour: str) -> dict[str, Any] | None:
        """layer.json; None when the layer is not there."""
        return scratch.read_json(self._layout.layer(chain_id, flavour) + "/layer.json")

    def any_record(self, chain_id: str, preferred: str) -> dict[str, Any] | None:
        """layer.json of this chain id in any flavour, `preferred` first: blob, size and diff id are the
        same in all. Read-only stores are asked last.
        """
        record = self.read(chain_id, preferred)
        if record is None:
            for flavour in self.flavours(chain_id):
                record = record or self.read(chain_id, flavour)
        return record or shared.layer_record(self._layout, chain_id, preferred)

    def flavours(self, chain_id: str) -> list[str]:
        """The flavours in which this layer exists."""
        prefix = chain_id[7:] + "."
        return [
            entry[len(prefix) :]
            for entry in scratch.list_directory(self._layout.layers)
            if entry.startswith((prefix + "single", prefix + "mapped-", prefix + shared.FLAVOUR))
        ]

    def extract_new(
        self, source: LayerBytes, below: list[str], flavour: Flavour, trees: list[str] | None = None
    ) -> dict[str, Any]:
        """Extracts a layer whose diff id is not known yet on the layers `below` (chain ids, bottom first,
        which exist; `trees` says where, topmost first, when not all are in this flavour); returns its
        layer.json.

        Raises BadImage, StoreError; nothing is left then.
        """
        return self._extract(source, below, None, flavour, trees=trees)[0]

    def extract(
        self,
        source: LayerBytes,
        chain: list[str],
        diff_id: str,
        flavour: Flavour,
        turn: Turn | None = None,
    ) -> tuple[dict[str, Any], bool]:
        """Extracts the topmost layer of `chain` (bottom first; the ones below exist, or will when it is this
        one's `turn`) and keeps its blob.

        Returns its layer.json, and whether the tree is ours: another maker may have been first. Raises
        BadImage, StoreError; nothing is left then.
        """
        return self._extract(source, chain[:-1], diff_id, flavour, chain[-1], turn)

    def _extract(
        self,
        source: LayerBytes,
        below: list[str],
        diff_id: str | None,
        flavour: Flavour,
        chain_id: str | None = None,
        turn: Turn | None = None,
        trees: list[str] | None = None,
    ) -> tuple[dict[str, Any], bool]:
        layout = self._layout
        parents = trees
        if parents is None:
            parents = [layout.layer(parent, flavour.name) + "/fs" for parent in reversed(below)]
        work = scratch.new_directory(layout, "layer", layout.tree_tmp)
        blob = scratch.new_path(layout, "blob")
        try:
            report = _core.extract_layer(
                source.source,
                work + "/layer",
                parents=parents,
                offset=source.offset,
                length=source.length,
                expected_diff_id=diff_id,
                expected_blob=source.blob,
                blob_out=None if source.is_kept else blob,
                parents_ready=turn.below if turn else None,
                cancel=turn.cancel if turn else None,
            )
            source.check()
            record: dict[str, Any] = {
                "chain_id": chain_id or next_chain_id(below, report.diff_id),
                "diff_id": report.diff_id,
                "parent": below[-1] if below else None,
                "blob": report.blob_digest,
                "blob_size": report.blob_size,
                "blob_media_type": report.blob_media_type,
                "size": report.size,
                "entries": report.entries,
                "flavour": flavour.name,
                "uid_map": flavour.uid_map,
                "gid_map": flavour.gid_map,
            }
            scratch.write_json(layout, work + "/layer/layer.json", record)
            if flavour.uid_map:
                within.run(flavour.uid_map, flavour.gid_map, "own", work + "/layer")
            elif flavour.name == shared.FLAVOUR:
                from duckweed.store.sharing import open_layer

                open_layer(work + "/layer")
            if not source.is_kept:
                self._blobs.adopt(blob, report.blob_digest)
            self._await_below(parents, turn)
            return self._publish(work + "/layer", record["chain_id"], flavour, record)
        finally:
            scratch.discard_file(blob)
            remove_tree(work, flavour)

    def _await_below(self, parents: list[str], turn: Turn | None) -> None:
        """Waits until the layers below are there. Raises BadImage, of code `lower-layers` when a remover has
        one of them: what was asked of it during the extraction may then have had no answer.
        """
        if turn and not turn.below.wait(turn.cancel):
            raise BadImage("a layer below it failed", code="cancelled")
        if not all(map(os.path.isdir, parents)):
            raise BadImage("a layer below it was removed", code="lower-layers")

    def _publish(
        self, path: str, chain_id: str, flavour: Flavour, record: dict[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        """Gives the layer in `path` its name. False beside the record when another process was sooner: ours
        is superfluous then.
        """
        target = self._layout.layer(chain_id, flavour.name)
        last: OSError | None = None
        for _ in range(_RACES):
            try:
                os.rename(path, target)
                return record, True
            except OSError as error:
                last = error
            if (other := self.read(chain_id, flavour.name)) is not None:
                return other, False
            # In the way, and gone when looked at: a remover took it, and the name is free again.
            if last.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                break
        assert last
        raise cannot("write", target, last) from None

    def ensure(self, chain: list[str], diff_ids: list[str], blobs: list[str], flavour: Flavour) -> None:
        """Makes the layers of `chain` that are missing in this flavour, from their stored blobs, bottom
        first.

        `blobs` are the layers' blob digests. Raises BadImage when a blob is not in the store.
        """
        for index, chain_id in enumerate(chain):
            if self.exists(chain_id, flavour.name):
                continue
            try:
                fd = os.open(self._blobs.path(blobs[index]), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                raise BadImage(
                    f"cannot extract layer {index + 1} again: blob `{blobs[index]}` is not in the store",
                    "load the image again",
                ) from None
            try:
                source = LayerBytes(fd, blob=blobs[index], is_kept=True)
                self.extract(source, chain[: index + 1], diff_ids[index], flavour)
            finally:
                os.close(fd)

    def remove(self, name: str) -> None:
        """Removes one layer directory by its name, `<chain hex>.<flavour>`."""
        path = f"{self._layout.layers}/{name}"
        discard_tree(self._layout, path, flavour_on_disk(path))


def flavour_on_disk(path: str) -> Flavour | None:
    """The flavour a layer directory was made in, so that it can be removed after the maps have changed."""
    record = scratch.read_json(path + "/layer.json")
    if record is None or not record.get("uid_map"):
        return None
    return Flavour(str(record.get("flavour")), str(record["uid_map"]), str(record.get("gid_map")))
