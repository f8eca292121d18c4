"""Plans: what an archive offers to load, read and checked before anything is written.

Two formats: docker-archive (`manifest.json`; `docker save`) and the OCI layout (`index.json`; image-spec,
image-layout.md). `docker save` since version 25 writes both at once: the OCI half has the true manifests,
so it is preferred.
"""

from __future__ import annotations

from duckweed.errors import BadImage, UsageError
from duckweed.oci import config as image_config
from duckweed.oci.digest import digest_of, is_hex
from duckweed.oci.document import read_json, read_object
from duckweed.oci.manifest import (
    CONTAINERD_NAME,
    INDEX_TYPES,
    REF_NAME,
    Descriptor,
    Manifest,
    choose,
    is_attestation,
    read_index,
)
from duckweed.oci.platform import Platform
from duckweed.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.archive import Archive

_NESTING_LIMIT = 4
_IMAGE_LIMIT = 1000


class LayerPlan:
    """One layer: the member that holds it, and its blob digest when the archive states one."""

    __slots__ = ("blob", "member")

    def __init__(self, member: str, blob: str | None) -> None:
        self.member = member
        self.blob = blob


class ImagePlan:
    """One image to load: documents as bytes, layers bottom first, and the canonical references it is to
    have.
    """

    __slots__ = ("config", "config_bytes", "layers", "manifest_bytes", "references")

    def __init__(
        self, config_bytes: bytes, manifest_bytes: bytes | None, layers: list[LayerPlan], wanted: Platform
    ) -> None:
        self.config_bytes = config_bytes
        self.manifest_bytes = manifest_bytes
        self.layers = layers
        self.references: list[Reference] = []
        self.config: dict[str, Any] = image_config.read_config(config_bytes, "config")
        stated = len(image_config.diff_ids(self.config))
        if stated != len(layers):
            raise BadImage(f"config: it names {stated} layers, the manifest {len(layers)}")
        have = Platform.of(self.config)
        if have.architecture and have.rank(wanted) is None:
            raise BadImage(f"image is for `{have}`, this machine is `{wanted}`")


def read_plans(archive: Archive, wanted: Platform) -> list[ImagePlan]:
    """All images of the archive. Raises BadImage unless every one can be loaded."""
    if archive.has("index.json"):
        try:
            plans = _plan_layout(archive, wanted)
        except BadImage:
            if not archive.has("manifest.json"):
                raise
            return _plan_docker_archive(archive, wanted)
        if archive.has("manifest.json"):
            _add_docker_tags(archive, plans)
        return plans
    if archive.has("manifest.json"):
        return _plan_docker_archive(archive, wanted)
    raise BadImage("not an image archive: neither `manifest.json` nor `index.json` in it")


# docker-archive


def _docker_entries(archive: Archive) -> list[dict[str, Any]]:
    entries = read_json(archive.read("manifest.json"), "`manifest.json`")
    if not isinstance(entries, list) or not entries or len(entries) > _IMAGE_LIMIT:
        raise BadImage("`manifest.json`: not a list of images")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise BadImage("`manifest.json`: an image without `Config`")
        for name in ("Layers", "RepoTags"):
            words = entry.get(name) or []
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise BadImage(f"`manifest.json`: `{name}` is not a list of strings")
    return entries


def _plan_docker_archive(archive: Archive, wanted: Platform) -> list[ImagePlan]:
    plans = []
    for entry in _docker_entries(archive):
        content = archive.read(entry["Config"])
        stated = _config_hex(entry["Config"])
        if stated and digest_of(content)[7:] != stated:
            raise BadImage(f"config `{stated[:12]}`: its bytes have another digest")
        layers = [LayerPlan(member, None) for member in entry.get("Layers") or []]
        plan = ImagePlan(content, None, layers, wanted)
        for layer in layers:
            archive.locate(layer.member)
        plan.references = [_reference(text) for text in entry.get("RepoTags") or []]
        plans.append(plan)
    return plans


def _config_hex(member: str) -> str | None:
    """The digest that a config's name promises: `<hex>.json` or `blobs/sha256/<hex>`."""
    word = member.rpartition("/")[2]
    word = word[: -len(".json")] if word.endswith(".json") else word
    return word if is_hex(word) else None


def _add_docker_tags(archive: Archive, plans: list[ImagePlan]) -> None:
    """The tags of a mixed archive's docker half, for the images that both halves name."""
    by_config = {digest_of(plan.config_bytes)[7:]: plan for plan in plans}
    for entry in _docker_entries(archive):
        plan = by_config.get(_config_hex(entry["Config"]) or "")
        for text in (entry.get("RepoTags") or []) if plan else []:
            reference = _reference(text)
            if plan and reference not in plan.references:
                plan.references.append(reference)


def _reference(text: str) -> Reference:
    try:
        reference = Reference.parse(text)
    except UsageError as error:
        raise BadImage(f"image name `{text[:120]!r}`: {error.message}") from None
    return reference if reference.tag else reference.with_tag("latest")


# OCI layout


def _plan_layout(archive: Archive, wanted: Platform) -> list[ImagePlan]:
    if archive.has("oci-layout"):
        version = read_object(archive.read("oci-layout"), "`oci-layout`").get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise BadImage("`oci-layout`: unknown layout version")
    entries = [
        entry for entry in read_index(archive.read("index.json"), "`index.json`") if not is_attestation(entry)
    ]
    plans: dict[str, ImagePlan] = {}
    for group in _by_name(entries):
        for entry in _suitable(group, wanted):
            plan = _plan_entry(archive, entry, wanted, 0)
            known = plans.setdefault(digest_of(plan.manifest_bytes or b""), plan)
            for reference in _names(entry):
                if reference not in known.references:
                    known.references.append(reference)
    if not plans:
        raise BadImage("`index.json`: it names no image")
    if len(plans) > _IMAGE_LIMIT:
        raise BadImage(f"`index.json`: more than {_IMAGE_LIMIT} images")
    return list(plans.values())


def _by_name(entries: list[Descriptor]) -> list[list[Descriptor]]:
    groups: dict[str, list[Descriptor]] = {}
    for entry in entries:
        name = entry.annotations.get(CONTAINERD_NAME) or entry.annotations.get(REF_NAME) or ""
        groups.setdefault(name, []).append(entry)
    return list(groups.values())


def _suitable(group: list[Descriptor], wanted: Platform) -> list[Descriptor]:
    """Entries of one name: those that state platforms are variants of one image, the others are images of
    their own.
    """
    variants = [entry for entry in group if entry.platform is not None]
    single = [entry for entry in group if entry.platform is None]
    if not variants:
        return single
    best = choose(variants, wanted)
    if best is None:
        raise BadImage(f"no image for `{wanted}` in it, only for {_platforms(variants)}")
    return [*single, best]


def _platforms(entries: list[Descriptor]) -> str:
    return ", ".join(f"`{entry.platform}`" for entry in entries[:8])


def _plan_entry(archive: Archive, entry: Descriptor, wanted: Platform, depth: int) -> ImagePlan:
    if depth > _NESTING_LIMIT:
        raise BadImage(f"index `{entry.digest}`: nested too deeply")
    content = _document(archive, entry)
    if entry.media_type in INDEX_TYPES:
        inner = read_index(content, f"index `{entry.digest}`")
        # `docker save` keeps the whole index but only the platforms it has.
        present = [one for one in inner if archive.has(_blob_member(one.digest))]
        best = choose(present, wanted)
        if best is None:
            raise BadImage(
                f"index `{entry.digest}`: no image for `{wanted}`, only for {_platforms(inner) or 'nothing'}"
            )
        return _plan_entry(archive, best, wanted, depth + 1)
    manifest = Manifest.read(content, f"manifest `{entry.digest}`")
    layers = [LayerPlan(_blob_member(layer.digest), layer.digest) for layer in manifest.layers]
    plan = ImagePlan(_document(archive, manifest.config), content, layers, wanted)
    for layer in manifest.layers:
        if archive.locate(_blob_member(layer.digest))[2] != layer.size:
            raise BadImage(f"layer `{layer.digest}`: not of the size that the manifest states")
    return plan


def _document(archive: Archive, entry: Descriptor) -> bytes:
    content = archive.read(_blob_member(entry.digest))
    if digest_of(content) != entry.digest:
        raise BadImage(f"blob `{entry.digest}`: its bytes have another digest")
    return content


def _blob_member(digest: str) -> str:
    return "blobs/sha256/" + digest[7:]


def _names(entry: Descriptor) -> list[Reference]:
    """The references an index entry gives. A bare tag (`latest`) names no repository, so it gives none."""
    full = entry.annotations.get(CONTAINERD_NAME)
    if full:
        return [_reference(full)]
    name = entry.annotations.get(REF_NAME, "")
    if "/" not in name and ":" not in name:
        return []
    try:
        return [Reference.parse(name.partition("@")[0])]
    except UsageError:  # the specification allows any text here
        return []
