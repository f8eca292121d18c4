"""The records of images/: one for each image, and one for each tag of it.

An image's record (`@sha256:<config digest>.json`) says that the image exists; it stays when the last tag
moves elsewhere, which is how an image becomes dangling without anybody deciding it. A tag's record repeats
the digests, so that a start reads one file to go from a reference to a config.

Records of read-only stores are seen too, behind the own ones, with a `store` that says where they are from;
what changes records changes the own ones.
"""

from __future__ import annotations

from duckweed.errors import StoreError
from duckweed.oci import timestamp
from duckweed.oci.digest import is_digest
from duckweed.store import scratch, shared
from duckweed.store.layout import Layout, tag_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.oci.reference import Reference


class Records:
    """The records below one root, and those of its read-only stores."""

    __slots__ = ("_layout", "_others")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._others = [Layout(root, ()) for root in layout.read_stores]

    def tag(self, reference: str) -> dict[str, Any] | None:
        """The record of a tag by its canonical reference; None when there is none."""
        try:
            record = _checked(scratch.read_json(self._layout.tag(reference)))
        except StoreError:  # ENAMETOOLONG: no such tag can be
            return None
        for other in self._others:
            record = record or _from(other, other.tag(reference))
        return record

    def image(self, image_id: str) -> dict[str, Any] | None:
        """The record of an image by its whole id."""
        record = self._own_image(image_id)
        for other in self._others:
            record = record or _from(other, other.image(image_id))
        return record

    def _own_image(self, image_id: str) -> dict[str, Any] | None:
        return _checked(scratch.read_json(self._layout.image(image_id)))

    def ids(self, prefix: str = "") -> list[str]:
        """The ids (`sha256:...`) of all images whose hex digits begin with `prefix`."""
        start = "@sha256:" + prefix
        found = {
            entry[1:-5]
            for entries in self._entries()
            for entry in entries
            if entry.startswith(start) and entry.endswith(".json") and is_digest(entry[1:-5])
        }
        return list(found)

    def _entries(self) -> list[list[str]]:
        """What stands in images/: of the own store, then of the others."""
        own = scratch.list_directory(self._layout.images)
        return [own, *(shared.list_directory(other.images) for other in self._others)]

    def all_tags(self) -> list[dict[str, Any]]:
        """The records of all tags, by reference."""
        return [record for record in self.all_named() if "@" not in record["reference"]]

    def all_named(self) -> list[dict[str, Any]]:
        """The records of all tags, and of what registries call images (`name@digest`), by reference."""
        found = []
        for entry in sorted({entry for entries in self._entries() for entry in entries}):
            reference = tag_of(entry) if entry.endswith(".json") else None
            record = self.tag(reference) if reference else None
            if record is not None:
                record["reference"] = reference
                found.append(record)
        return found

    def tags_of(self, image_id: str) -> list[dict[str, Any]]:
        """The tag records of one image."""
        return [record for record in self.all_tags() if record["config"] == image_id]

    def digests_of(self, image_id: str) -> list[dict[str, Any]]:
        """The records of what registries call one image: `reference` is `name@digest`, and the digest may be
        that of an index.
        """
        return [
            record
            for record in self.all_named()
            if record["config"] == image_id and "@" in record["reference"]
        ]

    def add(
        self, manifest: str, config: str, original: bool, references: list[Reference], chain: list[str]
    ) -> None:
        """Records an image and its tags; a tag that meant another image means this one from now on.

        `original` says that the manifest came with the image and was not made by us; `chain` are its chain
        ids.
        """
        known = self._own_image(config)
        if known is None or (original and not known.get("original")):
            scratch.write_json(
                self._layout,
                self._layout.image(config),
                _record(None, manifest, config, original, chain),
                durable=True,
            )
        for reference in references:
            record = _record(str(reference), manifest, config, original, chain)
            scratch.write_json(self._layout, self._layout.tag(str(reference)), record, durable=True)

    def remove_tag(self, reference: str) -> bool:
        """Unlinks a tag; false when it was not there."""
        return scratch.discard_file(self._layout.tag(reference))

    def remove_image(self, image_id: str) -> bool:
        """Unlinks an image's record; its tags are gone already."""
        return scratch.discard_file(self._layout.image(image_id))


def _record(
    reference: str | None, manifest: str, config: str, original: bool, chain: list[str]
) -> dict[str, Any]:
    return {
        "reference": reference,
        "manifest": manifest,
        "config": config,
        "created_at": timestamp.now(),
        "original": original,
        "chain": chain,
    }


def _checked(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """A record whose digests can be made paths; a damaged one counts as absent."""
    if record is None or not is_digest(record.get("config")) or not is_digest(record.get("manifest")):
        return None
    return record


def _from(store: Layout, path: str) -> dict[str, Any] | None:
    """A record of a read-only store, marked with its root."""
    record = _checked(shared.read_json(path))
    if record is not None:
        record["store"] = store.root
    return record
