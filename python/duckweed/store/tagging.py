"""Tagging and removing images, by Docker's rules and in Docker's words.

A tag goes alone while another tag is left. With the last one the image's record goes, and then the blobs
and layers that nobody else refers to.
"""

from __future__ import annotations

from duckweed.errors import Conflict, InUse, NoSuchImage, UsageError
from duckweed.oci.reference import Reference
from duckweed.store import containers, references
from duckweed.store.image_view import container_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore


def tag(store: ImageStore, source: str, target: str) -> None:
    """Makes `target` another name of `source`. Raises NoSuchImage, UsageError, Conflict."""
    reference = Reference.parse(target)
    if reference.digest:
        raise UsageError("refusing to create a tag with a digest reference")
    read, store = store, store.own
    image = read.get(source)
    if image.is_host:
        raise Conflict("cannot tag `host`: it is the machine itself, not an image of the store")
    record = read.records.image(image.id)
    if image.store_root != store.layout.root:
        # The documents are copied, so that the name means something without the other store; its layers are
        # not: they are looked for there.
        store.layout.ensure()
        for digest in (image.manifest, image.id):
            store.blobs.put(read.blobs.read(digest))
    original = bool(record and record.get("original") and record["manifest"] == image.manifest)
    store.records.add(image.manifest, image.id, original, [reference], image.chain_ids)
    # Looked at after the reference was written: a remover may have been at work since `get`.
    store.records.add(image.manifest, image.id, original, [], image.chain_ids)
    if not store.blobs.exists(image.id) or not store.blobs.exists(image.manifest):
        store.records.remove_tag(str(reference))
        store.records.remove_image(image.id)
        raise NoSuchImage(f"No such image: {source}")


def remove(store: ImageStore, name: str, force: bool) -> list[dict[str, str]]:
    """Removes a tag, or the image with all its tags when it was named by id. Raises NoSuchImage, InUse,
    Conflict.
    """
    image = store.get(name)
    if image.is_host:
        raise Conflict("cannot remove `host`: it is the machine itself, not an image of the store")
    if image.store_root != store.layout.root:
        raise Conflict(
            f"cannot remove `{name}`: it is in the read-only store `{image.store_root}`",
            "whoever keeps that store can remove it there; `DUCKWEED_READ_STORES` decides whether it is seen",
        )
    store = store.own
    tags = store.records.tags_of(image.id)
    named = _tag_meant(name, tags)
    if named is not None:
        if len(tags) > 1:
            store.records.remove_tag(named)
            return [{"Untagged": Reference.parse(named).familiar}]
        _refuse_in_use(store, image, Reference.parse(named).familiar, force)
    else:
        repositories = {Reference.parse(record["reference"]).name for record in tags}
        if len(repositories) > 1 and not force:
            raise InUse(
                f"conflict: unable to delete {image.short_id} (must be forced)"
                " - image is referenced in multiple repositories",
                f"remove its names one by one, or use `duckweed rmi -f {image.short_id}`",
            )
        _refuse_in_use(store, image, image.short_id, force)
    return delete(store, image)[0]


def _tag_meant(name: str, tags: list[dict[str, Any]]) -> str | None:
    """The canonical reference of the tag that `name` spells; None when it named the image by id or digest."""
    try:
        reference = Reference.parse(name)
    except UsageError:
        return None
    if reference.digest:
        return None
    present = {record["reference"] for record in tags}
    for text in (str(reference), f"localhost/{reference.familiar}"):
        if text in present:
            return text
    return None


def _refuse_in_use(store: ImageStore, image: Image, shown: str, force: bool) -> None:
    stopped = ""
    states = containers.ContainerStore(store.layout)
    for record in container_records(store):
        container_id = str(record.get("Id") or "")
        if record.get("ImageID") != image.id or not container_id:
            continue
        if states.status(container_id)[0] == containers.RUNNING:
            raise InUse(
                f"conflict: unable to delete {shown} (cannot be forced)"
                f" - image is being used by running container {container_id[:12]}",
                f"stop it with `duckweed stop {container_id[:12]}`",
            )
        stopped = stopped or container_id[:12]
    if stopped and not force:
        raise InUse(
            f"conflict: unable to delete {shown} (must be forced)"
            f" - image is being used by stopped container {stopped}",
            f"remove it with `duckweed rm {stopped}`",
        )


def delete(store: ImageStore, image: Image) -> tuple[list[dict[str, str]], int]:
    """Removes all tags, the record, and then what nobody refers to: docker's list, and the bytes that
    became free.
    """
    answer = []
    names = candidates(store, image)
    for record in [*store.records.tags_of(image.id), *store.records.digests_of(image.id)]:
        if store.records.remove_tag(record["reference"]):
            answer.append({"Untagged": Reference.parse(record["reference"]).familiar})
    store.records.remove_image(image.id)
    kept = [*store.records.tags_of(image.id), *store.records.digests_of(image.id)]
    if kept:
        # Somebody tagged or loaded it in this moment: whoever came second keeps the image.
        store.records.add(kept[0]["manifest"], image.id, bool(kept[0].get("original")), [], image.chain_ids)
        return answer, 0
    removed, reclaimed = references.collect(store.layout, names)
    answer.append({"Deleted": image.id})
    gone = {name.partition(".")[0] for name in removed if "." in name and ".cover-" not in name}
    answer += [{"Deleted": chain_id} for chain_id in reversed(image.chain_ids) if chain_id[7:] in gone]
    return answer, reclaimed


def candidates(store: ImageStore, image: Image) -> list[str]:
    """The names, as `references.collect` takes them, of all that this image is made of."""
    from duckweed.store import scratch

    manifests = {
        image.manifest,
        *(record["manifest"] for record in store.records.all_named() if record["config"] == image.id),
    }
    own = store.records.image(image.id)
    if own is not None:
        manifests.add(own["manifest"])
    names = {image.id[7:]}
    for manifest in manifests:
        names.add(manifest[7:])
        document = scratch.read_json(store.layout.blob(manifest)) or {}
        names.update(layer["digest"][7:] for layer in document.get("layers") or ())
    chain = {chain_id[7:] for chain_id in image.chain_ids}
    names.update(
        entry for entry in scratch.list_directory(store.layout.layers) if entry.partition(".")[0] in chain
    )
    # The blob that an extraction kept may differ from the one a manifest names: gzip here, zstd there.
    for chain_id in image.chain_ids:
        blob = (store.layers.any_record(chain_id, store.flavour.name) or {}).get("blob")
        if isinstance(blob, str):
            names.add(blob[7:])
    return sorted(names)
