"""`system check`: whether everything in the store is what it says, and what it refers to is there.

Blobs are read and their digests compared; records, layers, containers and names are followed to what they
refer to. A store of several processes is looked at, so whatever seems missing is looked for again, in the
hands of removers too, before it is called so. Repair takes away what is damaged and what can be of no use
any more, never what may be; most of it comes back by loading or pulling the image again.
"""

from __future__ import annotations

import os
import time

from duckweed import _core
from duckweed.errors import BadImage, DuckweedError
from duckweed.oci.digest import is_digest
from duckweed.oci.manifest import Manifest
from duckweed.store import containers, references, repair, scratch
from duckweed.store.layers import flavour_on_disk
from duckweed.store.tree import discard_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from duckweed.store.images import ImageStore

_AGAIN = "load or pull the image again"
# Longer than a remover holds what it may put back.
_PATIENCE_S = (0.01, 0.1, 0.5)


class Problem:
    """`kind` ("blob", "image", "tag", "layer", "container", "name"), its `name`, `what` is wrong, `advice` or
    "", and whether it was `repaired`.
    """

    __slots__ = ("_mend", "advice", "kind", "name", "repaired", "what")

    def __init__(
        self, kind: str, name: str, what: str, advice: str = "", mend: Callable[[], object] | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        self.what = what
        self.advice = advice
        self.repaired = False
        self._mend = mend

    def repair(self) -> None:
        """Mends it, if that can be done."""
        if self._mend is not None:
            try:
                self._mend()
                self.repaired = True
            except DuckweedError as error:
                self.advice = error.message

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "Kind": self.kind,
            "Name": self.name,
            "Problem": self.what,
            "Advice": self.advice,
            "Repaired": self.repaired,
        }


def check(store: ImageStore, *, mend: bool = False, quick: bool = False) -> list[Problem]:
    """Looks at everything in the own store; `mend` repairs what can be, `quick` does not read the blobs."""
    store = store.own
    found = []
    for look in (_leftovers, *(() if quick else (_blobs,)), _layers, _images, _containers):
        for problem in look(store):
            if mend:
                problem.repair()
            found.append(problem)
    return found


def _leftovers(store: ImageStore) -> Iterator[Problem]:
    """What died: no fault of the store, for every command sweeps it; so only what a sweep leaves is told."""
    report = repair.sweep(store.layout, lambda: store.flavour)
    for container_id in report["lost"]:
        yield _done(Problem("container", container_id[:12], "its supervisor died; it exited with 137"))
    for name in report["names"]:
        yield _done(Problem("name", name, "it belonged to no container; freed"))


def _done(problem: Problem) -> Problem:
    problem.repaired = True
    return problem


def _blobs(store: ImageStore) -> Iterator[Problem]:
    for digest in store.blobs.all():
        try:
            fd = os.open(store.layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            yield Problem("blob", digest, f"cannot be read: {(error.strerror or '').lower()}")
            continue
        try:
            says = _core.digest_file(fd)[0]
        except OSError as error:
            says = f"unknown: {(error.strerror or '').lower()}"
        finally:
            os.close(fd)
        if says != digest:
            yield Problem(
                "blob",
                digest,
                f"it is damaged: its bytes have the digest {says}",
                f"repair takes it away; then {_AGAIN}",
                lambda digest=digest: discard_tree(store.layout, store.layout.blob(digest)),  # type: ignore[misc]
            )


def _layers(store: ImageStore) -> Iterator[Problem]:
    layout = store.layout
    for name in scratch.list_directory(layout.layers):
        path = f"{layout.layers}/{name}"
        whole = _patiently(
            lambda path=path: (
                not os.path.lexists(path)  # type: ignore[misc]
                or (os.path.isdir(path + "/fs") and scratch.read_json(path + "/layer.json") is not None)
            )
        )
        if not whole:
            yield Problem(
                "layer",
                name,
                "it is not whole",
                "repair takes it away; it is made again from its blob when it is needed",
                lambda path=path: discard_tree(layout, path, flavour_on_disk(path)),  # type: ignore[misc]
            )


def _images(store: ImageStore) -> Iterator[Problem]:
    tags = store.records.all_tags()
    known = {record["config"]: record for record in tags}
    known.update({image_id: store.records.image(image_id) or {} for image_id in store.records.ids()})
    for image_id, record in known.items():
        if record:
            mine = [tag["reference"] for tag in tags if tag["config"] == image_id]
            yield from _image(store, image_id, record, mine)


def _image(store: ImageStore, image_id: str, record: dict[str, Any], tags: list[str]) -> Iterator[Problem]:
    shown = ", ".join(tags) or image_id[:19]
    documents = (record["manifest"], image_id)
    if not _patiently(lambda: all(references.document(store.layout, digest) for digest in documents)):
        if _is_recorded(store, image_id, tags):
            yield Problem(
                "image",
                shown,
                "its manifest or config is not in the store",
                f"repair forgets it; then {_AGAIN}",
                lambda: _forget(store, image_id, tags),
            )
        return
    if store.records.image(image_id) is None and _is_recorded(store, image_id, tags):
        chain = record.get("chain") or []
        yield Problem(
            "image",
            shown,
            "it has a tag and no record",
            "",
            lambda: store.records.add(record["manifest"], image_id, bool(record.get("original")), [], chain),
        )
    yield from _parts(store, image_id, record, shown, tags)


def _parts(
    store: ImageStore, image_id: str, record: dict[str, Any], shown: str, tags: list[str]
) -> Iterator[Problem]:
    try:
        manifest = Manifest.read(store.blobs.read(record["manifest"]), "manifest")
        image = store.get(image_id)
    except (BadImage, DuckweedError) as error:
        if _is_recorded(store, image_id, tags):
            yield Problem("image", shown, f"it cannot be read: {error.message}", _AGAIN)
        return
    missing = [
        layer.digest
        for layer in manifest.layers
        if not _patiently(lambda digest=layer.digest: store.blobs.exists(digest))  # type: ignore[misc]
    ]
    if not missing or not _is_recorded(store, image_id, tags):
        return
    trees = all(store.layers.flavours(chain_id) for chain_id in image.chain_ids)
    what = "it can be run, not saved or pushed" if trees else "it cannot be run"
    yield Problem("image", shown, f"{what}: {len(missing)} of its layers' blobs are not in the store", _AGAIN)


def _is_recorded(store: ImageStore, image_id: str, tags: list[str]) -> bool:
    """Whether the image is still there: it may have been removed while it was looked at."""
    return store.records.image(image_id) is not None or any(map(store.records.tag, tags))


def _forget(store: ImageStore, image_id: str, tags: list[str]) -> None:
    for tag in tags:
        store.records.remove_tag(tag)
    store.records.remove_image(image_id)


def _containers(store: ImageStore) -> Iterator[Problem]:
    layout = store.layout
    for container_id, record in containers.ContainerStore(layout).records():
        names = [name for name in record.get("layers") or () if isinstance(name, str)]
        trees = [tree for tree in record.get("lower") or () if isinstance(tree, str)]
        missing = [tree for tree in trees if not _patiently(lambda tree=tree: os.path.isdir(tree))]  # type: ignore[misc]
        if not missing or not os.path.isdir(layout.container(container_id)):
            continue
        image_id = record.get("ImageID")
        yield Problem(
            "container",
            container_id[:12],
            f"{len(missing)} of {len(names)} layers of its image are not there",
            _AGAIN,
            lambda image_id=image_id: _make_layers(store, image_id),  # type: ignore[misc]
        )


def _make_layers(store: ImageStore, image_id: object) -> None:
    if not isinstance(image_id, str) or not is_digest(image_id):
        raise BadImage("the container does not say what it was made of")
    store.ensure_layers(store.get(image_id))


def _patiently(is_so: Callable[[], object]) -> bool:
    """Whether something is so, or comes to be so while others finish what they are at."""
    for pause_s in _PATIENCE_S:
        if is_so():
            return True
        time.sleep(pause_s)
    return bool(is_so())
