"""Choosing images: the filters of `images` and `image prune`, which are Docker's."""

from __future__ import annotations

import fnmatch
import re
import time

from duckweed.errors import DuckweedError, UsageError
from duckweed.oci import timestamp
from duckweed.oci.reference import Reference
from duckweed.store import claims, references
from duckweed.store.image import host_image
from duckweed.store.image_view import container_records, created

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore

_LIST_FILTERS = frozenset(("dangling", "label", "before", "since", "reference", "until"))
_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))
_TRUE, _FALSE = frozenset(("1", "t", "true")), frozenset(("0", "f", "false"))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|d)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def values(filters: Mapping[str, Any], name: str) -> list[str]:
    """A filter's values as text: one value, a list, or a mapping of labels."""
    value = filters.get(name)
    if value is None:
        return []
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, dict):
        return [f"{key}={text}" if text else str(key) for key, text in value.items()]
    return [str(one) for one in value] if isinstance(value, (list, tuple, set, frozenset)) else [str(value)]


def check_names(filters: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raises UsageError, in Docker's words, for a filter that there is not."""
    for name in filters:
        if name not in known:
            raise UsageError(
                f"invalid filter '{name}'", "known here: " + ", ".join(sorted(known)), exit_code=1
            )


def truth(filters: Mapping[str, Any], name: str) -> bool | None:
    """A boolean filter; None when it is not given. Raises UsageError."""
    words = {word.lower() for word in values(filters, name)}
    if not words:
        return None
    if words <= _TRUE:
        return True
    if words <= _FALSE:
        return False
    raise UsageError(f"invalid filter '{name}={sorted(words)[0]}'", "it is `true` or `false`", exit_code=1)


def moment(text: str) -> float:
    """A time in seconds since 1970: a stamp, such seconds, or a duration before now (`10m`, `1h30m`).
    Raises UsageError.
    """
    stamp = timestamp.to_unix(text)
    if stamp is not None:
        return stamp
    try:
        return float(text)
    except ValueError:
        pass
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return time.time() - sum(float(number) * _SECONDS[unit] for number, unit in parts)
    raise UsageError(
        f"invalid time `{text}`",
        "write `2026-01-02T03:04:05Z`, or an age such as `10m` or `24h`",
        exit_code=1,
    )


def has_labels(labels: Mapping[str, str], wanted: list[str]) -> bool:
    """Whether every `key` or `key=value` is there."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def created_unix(image: Image) -> float:
    """Seconds since 1970; 0 when the image does not say."""
    return timestamp.to_unix(created(image)) or 0.0


def select(store: ImageStore, filters: Mapping[str, Any], pattern: str | None) -> list[Image]:
    """The images that match all filters, newest first; then the built-in one when there are no filters."""
    check_names(filters, _LIST_FILTERS)
    tags = _tags_by_id(store)
    chosen = [image for image in store.all() if _is_dangling_wanted(filters, tags.get(image.id, []))]
    wanted = values(filters, "label")
    chosen = [image for image in chosen if has_labels(image.run_config.get("Labels") or {}, wanted)]
    for text in values(filters, "before") + [f"<{text}" for text in values(filters, "until")]:
        limit = moment(text[1:]) if text.startswith("<") else created_unix(store.get(text))
        chosen = [image for image in chosen if created_unix(image) < limit]
    for text in values(filters, "since"):
        limit = created_unix(store.get(text))
        chosen = [image for image in chosen if created_unix(image) > limit]
    patterns = values(filters, "reference") + ([pattern] if pattern else [])
    for one in patterns:
        chosen = [
            image for image in chosen if any(matches(reference, one) for reference in tags.get(image.id, []))
        ]
    chosen.sort(key=created_unix, reverse=True)
    is_host_wanted = not filters and pattern in (None, "host", "host:latest")
    if is_host_wanted and not any("host:latest" in image.tags for image in chosen):
        chosen.append(host_image(store, "host"))
    return chosen


def _tags_by_id(store: ImageStore) -> dict[str, list[Reference]]:
    found: dict[str, list[Reference]] = {}
    for record in store.records.all_tags():
        found.setdefault(record["config"], []).append(Reference.parse(record["reference"]))
    return found


def _is_dangling_wanted(filters: Mapping[str, Any], tags: list[Reference]) -> bool:
    dangling = truth(filters, "dangling")
    return dangling is None or dangling == (not tags)


def matches(reference: Reference, pattern: str) -> bool:
    """Docker's `reference` filter: a glob over the familiar name or name:tag; `*` does not cross a slash."""
    names = [reference.familiar_name, reference.familiar, reference.name, str(reference)]
    if reference.registry == "localhost":
        names += [reference.repository, f"{reference.repository}:{reference.tag}"]
    parts = pattern.split("/")
    for name in names:
        pieces = name.split("/")
        if len(pieces) == len(parts) and all(map(fnmatch.fnmatchcase, pieces, parts)):
            return True
    return False


def prune(store: ImageStore, every: bool, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Removes dangling images (all unused ones with `every`), then whatever blobs and layers nobody refers
    to.
    """
    from duckweed.store.repair import sweep
    from duckweed.store.tagging import delete

    store = store.own
    check_names(filters, _PRUNE_FILTERS)
    sweep(store.layout, lambda: store.flavour)
    if truth(filters, "dangling") is False:
        every = True
    used = {record.get("ImageID") for record in container_records(store)}
    tags = _tags_by_id(store)
    answer: list[dict[str, str]] = []
    reclaimed = 0
    for image in store.all():
        if image.id in used or (tags.get(image.id) and not every) or not _is_prunable(image, filters):
            continue
        try:
            deleted, size = delete(store, image)
        except DuckweedError:
            continue
        answer += deleted
        reclaimed += size
    if not filters:
        reclaimed += references.collect(store.layout, references.everything(store.layout))[1]
        reclaimed += claims.sweep(store.layout, 0)
    return {"ImagesDeleted": answer, "SpaceReclaimed": reclaimed}


def _is_prunable(image: Image, filters: Mapping[str, Any]) -> bool:
    labels = image.run_config.get("Labels") or {}
    if not has_labels(labels, values(filters, "label")):
        return False
    if any(has_labels(labels, [text]) for text in values(filters, "label!")):
        return False
    return all(created_unix(image) < moment(text) for text in values(filters, "until"))
