"""`commit`: an image of a container's changes, on the layers of its image.

One pass: the changes are read in the container's user namespace and written as a tar, and the store takes it
in like any other layer while it comes: digests, blob, tree.
"""

from __future__ import annotations

import os
from contextlib import nullcontext

from duckweed.containers import tree_request
from duckweed.containers.freezing import Frozen
from duckweed.errors import BadImage, DuckweedError, Unsupported
from duckweed.oci import timestamp
from duckweed.oci.change import apply_changes
from duckweed.oci.manifest import Descriptor
from duckweed.oci.reference import Reference
from duckweed.store import composing, references
from duckweed.store.tree_stream import TreeStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.containers.container import Container
    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore

_ATTEMPTS = 8
# What of a container's Config belongs into an image's config (image-spec, config.md, "Properties").
_KEPT = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal")


def commit(
    container: Container,
    repository: str | None,
    *,
    author: str,
    message: str,
    changes: Sequence[str],
    pause: bool,
) -> Image:
    """Makes the image. Raises UsageError, BadImage, StoreError; Unsupported for the image `host`."""
    if container.document["rootfs"] == "host":
        raise Unsupported(
            "cannot commit a container of `host`: its image is this machine",
            "see what it changed with `duckweed diff`, and take it out with `duckweed cp`",
            exit_code=1,
        )
    names = [Reference.parse(repository)] if repository else []
    store: ImageStore = container.engine.images
    base = composing.base_image(store, str(container.document["ImageID"]))
    config = _config(container, base, author, changes)
    written: list[str] = []
    try:
        for _ in range(_ATTEMPTS):
            image = _keep(container, store, base, config, message, names, pause, written)
            if image is not None:
                return image
        raise BadImage("cannot commit: the image is being removed at the same time")
    except BaseException:
        references.collect(store.layout, written)
        raise


def epoch() -> int | None:
    """SOURCE_DATE_EPOCH: the time that made things have, for who wants the same bytes again."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else None


def _config(container: Container, base: Image, author: str, changes: Sequence[str]) -> dict[str, Any]:
    """The image's config without its time, its history and its layers."""
    of_container = container.document.get("Config") or {}
    run_config = dict(base.run_config)
    for key in _KEPT:
        if of_container.get(key):
            run_config[key] = of_container[key]
        else:
            run_config.pop(key, None)
    apply_changes(run_config, changes)
    document = {key: base.config[key] for key in ("architecture", "os", "variant") if base.config.get(key)}
    if author:
        document["author"] = author
    return {**document, "config": run_config}


def _keep(
    container: Container,
    store: ImageStore,
    base: Image,
    config: dict[str, Any],
    message: str,
    names: list[Reference],
    pause: bool,
    written: list[str],
) -> Image | None:
    record = _take_layer(container, store, base, pause)
    stamp = timestamp.now() if epoch() is None else timestamp.from_unix_ns((epoch() or 0) * 10**9)
    step: dict[str, Any] = {"created": stamp}
    command = (container.document.get("Config") or {}).get("Cmd")
    step.update({"created_by": " ".join(command)} if command else {})
    step.update({"author": config["author"]} if config.get("author") else {})
    step.update({"comment": message} if message else {})
    diff_ids, layers = list(base.diff_ids), composing.layers_of(store, base)
    if record is None:
        step["empty_layer"] = True
    else:
        written += [f"{record['chain_id'][7:]}.{store.flavour.name}", record["blob"][7:]]
        diff_ids.append(record["diff_id"])
        layers.append(Descriptor(record["blob_media_type"], record["blob"], record["blob_size"]))
    history = [*(base.config.get("history") or []), step]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    document = {"created": stamp, **config, "rootfs": rootfs, "history": history}
    return composing.keep(store, document, layers, names, written)


def _take_layer(container: Container, store: ImageStore, base: Image, pause: bool) -> dict[str, Any] | None:
    """The layer of the changes, in the store: its layer.json; None when nothing has changed."""
    if not tree_request.is_filled(container):
        return None
    request = {**tree_request.of_changes(container), "epoch": epoch()}
    maps = tree_request.maps_of(container)
    with Frozen(container) if pause else nullcontext(), TreeStream(request, maps) as stream:
        try:
            record = store.own.layers.extract_new(stream, base.chain_ids, store.flavour, base.lower)
        except DuckweedError:
            stream.blame()
            raise
    if record["entries"]:
        return record
    references.collect(store.layout, [f"{record['chain_id'][7:]}.{store.flavour.name}", record["blob"][7:]])
    return None
