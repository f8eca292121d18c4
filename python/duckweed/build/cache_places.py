"""Caches outside the store: where `--cache-from` takes from and `--cache-to` writes to.

A *cache document* says which key led to which layer; it is the config of a manifest whose layers are those
layers' blobs. `local` keeps that manifest in an OCI image layout, `registry` under a tag, and `inline` puts
the document into the image's own config, so that the image is its cache. The keys are those of keys.py: only
duckweed reads such a cache, though any registry holds it.
"""

from __future__ import annotations

import json
import os
import shutil

from duckweed.dockerfile.mount import split_fields
from duckweed.errors import BadImage, BuildError, TransferError, UsageError
from duckweed.oci.digest import digest_of, is_digest
from duckweed.oci.document import list_field, object_field, read_object
from duckweed.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.oci.platform import Platform
    from duckweed.oci.reference import Reference
    from duckweed.registry.registries import Registries
    from duckweed.registry.repository import Repository

CACHE_CONFIG = "application/vnd.duckweed.buildcache.v1+json"
INLINE = "io.duckweed.buildcache.v1"
"""The member of an image's config that holds an inline cache."""
_KINDS = ("registry", "local", "inline")
_ELSEWHERE = ("gha", "s3", "azblob")
_MODES = ("min", "max")
_REF_NAME = "org.opencontainers.image.ref.name"


class CacheSpec:
    """One `--cache-from` or `--cache-to`: its kind and its options, checked."""

    __slots__ = ("kind", "options", "text")

    def __init__(self, text: str, kind: str, options: dict[str, str]) -> None:
        self.text = text
        self.kind = kind
        self.options = options

    @classmethod
    def parse(cls, text: str, flag: str) -> CacheSpec:
        """Reads `type=local,src=DIR`, `type=registry,ref=NAME`, `type=inline`, or a bare reference. Raises
        UsageError.
        """
        fields = split_fields(text)
        if fields and all("=" not in field for field in fields):
            return cls(text, "registry", {"ref": text})
        options: dict[str, str] = {}
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                raise UsageError(f"invalid --{flag} `{text}`: `{field}` is not KEY=VALUE", exit_code=1)
            options[key.strip().lower()] = value
        kind = options.pop("type", "")
        if kind in _ELSEWHERE:
            raise UsageError(
                f"--{flag} type={kind} is not supported", "use `registry` or `local`", exit_code=1
            )
        if kind not in _KINDS or (kind == "inline" and flag == "cache-from"):
            said = f"unknown type `{kind}`" if kind else "type is required"
            hint = f"types are {', '.join(_KINDS if flag == 'cache-to' else _KINDS[:2])}"
            raise UsageError(f"invalid --{flag} `{text}`: {said}", hint, exit_code=1)
        place = {"registry": "ref", "local": "src" if flag == "cache-from" else "dest"}.get(kind)
        if place and not options.get(place):
            raise UsageError(f"invalid --{flag} `{text}`: {kind} needs {place}=", exit_code=1)
        mode = options.get("mode", "min")
        if mode not in _MODES:
            raise UsageError(f"invalid --{flag} `{text}`: mode is min or max", exit_code=1)
        return cls(text, kind, options)

    @property
    def wants_all(self) -> bool:
        """`mode=max`: the steps of all stages, not of the result alone."""
        return self.options.get("mode") == "max"

    @property
    def ignores_errors(self) -> bool:
        """`ignore-error=true`: a cache that cannot be written does not fail the build."""
        return self.options.get("ignore-error", "").lower() in ("true", "1")

    @property
    def reference(self) -> Reference:
        """The tag of a registry cache. Raises UsageError."""
        from duckweed.oci.reference import Reference

        return Reference.parse(self.options["ref"])


class Record:
    """What is known of one layer: the keys that led to it, and its blob."""

    __slots__ = ("blob", "chain_id", "created", "description", "diff_id", "keys", "kind", "parent", "size")

    def __init__(self, document: dict[str, Any], blob: Descriptor | None) -> None:
        self.keys: list[str] = list(document["keys"])
        self.chain_id: str = document["chain"]
        self.diff_id: str = document["diff_id"]
        self.parent = str(document.get("parent") or "")
        self.created = str(document.get("created") or "")
        self.kind = str(document.get("kind") or "regular")
        self.description = str(document.get("description") or "")
        size = document.get("size")
        self.size = size if isinstance(size, int) else 0
        self.blob = blob

    def as_dict(self, layer: int, keys: list[str] | None = None) -> dict[str, Any]:
        """The record as it stands in a cache document; its blob is the manifest's layer of that number."""
        return {
            "keys": keys or self.keys,
            "chain": self.chain_id,
            "diff_id": self.diff_id,
            "parent": self.parent,
            "created": self.created,
            "kind": self.kind,
            "size": self.size,
            "description": self.description,
            "layer": layer,
        }


def read_records(document: dict[str, Any], layers: list[Descriptor], what: str) -> list[Record]:
    """The records of a cache document; what is not well formed is left out. Raises BadImage."""
    if document.get("version") != 1:
        raise BadImage(f"{what}: a build cache of another version")
    found = []
    for entry in list_field(document, "records", what):
        if (
            not isinstance(entry, dict)
            or not is_digest(entry.get("chain"))
            or not is_digest(entry.get("diff_id"))
        ):
            continue
        number, keys = entry.get("layer"), entry.get("keys")
        is_whole = isinstance(number, int) and 0 <= number < len(layers) and isinstance(keys, list)
        if is_whole and all(isinstance(key, str) for key in keys or ()):
            found.append(Record(entry, layers[int(str(number))]))
    return found


def compose_document(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The cache document."""
    return {"version": 1, "records": records}


class Place:
    """A cache that is read: its records, and its blobs when they are needed."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def fetch(self, blob: Descriptor, path: str) -> None:
        """Writes a blob to the new file `path`; who reads it checks it. Raises RegistryError, OSError."""
        raise NotImplementedError


class LocalPlace(Place):
    """An OCI image layout."""

    def __init__(self, directory: str, records: list[Record]) -> None:
        super().__init__(records)
        self._directory = directory

    def fetch(self, blob: Descriptor, path: str) -> None:
        shutil.copyfile(_blob_path(self._directory, blob.digest), path)


class RegistryPlace(Place):
    """A tag of a registry."""

    def __init__(self, repository: Repository, records: list[Record]) -> None:
        super().__init__(records)
        self._repository = repository

    def fetch(self, blob: Descriptor, path: str) -> None:
        from duckweed import _core

        try:
            self._repository.download(blob.digest, _core.Part(path, blob.digest, blob.size))
        except TransferError as error:
            raise self._repository.connection.sentence(error) from None


def open_place(spec: CacheSpec, registries: Registries, platform: Platform) -> Place:
    """Finds a cache to read. Raises BuildError, BadImage, RegistryError."""
    if spec.kind == "local":
        return _open_local(spec, platform)
    reference = spec.reference
    from duckweed.registry.resolution import resolve

    found = resolve(registries, reference, platform)
    config, layers = _read_manifest(found.manifest.content, f"cache `{reference.familiar}`")
    content = found.repository.document(config)
    return RegistryPlace(found.repository, _read_config(config, content, layers, reference.familiar))


def _open_local(spec: CacheSpec, platform: Platform) -> Place:
    from duckweed.oci.manifest import INDEX_TYPES, choose, read_index

    directory, what = spec.options["src"], f"cache in `{spec.options['src']}`"
    digest = spec.options.get("digest") or ""
    tag = spec.options.get("tag") or "latest"
    try:
        with open(directory + "/index.json", "rb") as file:
            entries = read_index(file.read(), what)
        named = [one for one in entries if one.annotations.get(_REF_NAME) == tag] or entries
        chosen = [one for one in entries if one.digest == digest] if digest else named
        if not chosen:
            raise BuildError(f"{what}: nothing called `{digest or tag}`")
        content = _read_blob(directory, chosen[-1].digest)
        if chosen[-1].media_type in INDEX_TYPES:
            best = choose(read_index(content, what), platform)
            if best is None:
                raise BuildError(f"{what}: nothing for {platform}")
            content = _read_blob(directory, best.digest)
        config, layers = _read_manifest(content, what)
        return LocalPlace(directory, _read_config(config, _read_blob(directory, config.digest), layers, what))
    except OSError as error:
        raise BuildError(f"cannot read {what}: {(error.strerror or str(error)).lower()}") from None


def _read_manifest(content: bytes, what: str) -> tuple[Descriptor, list[Descriptor]]:
    document = read_object(content, what)
    config = Descriptor.read(document.get("config"), what)
    return config, [Descriptor.read(layer, what) for layer in list_field(document, "layers", what)]


def _read_config(config: Descriptor, content: bytes, layers: list[Descriptor], what: str) -> list[Record]:
    document = read_object(content, what)
    if config.media_type != CACHE_CONFIG:
        document = object_field(document, INLINE, what)
        if not document:
            raise BadImage(f"{what}: holds no build cache", "export one with `--cache-to`")
    return read_records(document, layers, what)


def _blob_path(directory: str, digest: str) -> str:
    return f"{directory}/blobs/{digest.replace(':', '/', 1)}"


def _read_blob(directory: str, digest: str) -> bytes:
    with open(_blob_path(directory, digest), "rb") as file:
        content = file.read()
    if digest_of(content) != digest:
        raise BuildError(f"blob `{digest}` in `{directory}` is damaged")
    return content


# Writing.


def compose_manifest(records: list[Record]) -> tuple[bytes, bytes, list[Descriptor]]:
    """A cache manifest, its config, and the blobs it names."""
    blobs: dict[str, Descriptor] = {}
    for record in records:
        assert record.blob is not None
        blobs.setdefault(record.blob.digest, record.blob)
    order = list(blobs)
    entries = [record.as_dict(order.index(record.blob.digest)) for record in records if record.blob]
    config = json.dumps(compose_document(entries), separators=(",", ":")).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(CACHE_CONFIG, digest_of(config), len(config)).as_dict(),
        "layers": [blob.as_dict() for blob in blobs.values()],
    }
    return json.dumps(manifest, separators=(",", ":")).encode(), config, list(blobs.values())


def write_local(spec: CacheSpec, records: list[Record], paths: dict[str, str]) -> None:
    """Writes the cache into a layout, beside what else it holds; blobs that nothing names any more go.
    `paths` are the blobs' files. Raises OSError.
    """
    directory, tag = spec.options["dest"], spec.options.get("tag") or "latest"
    manifest, config, blobs = compose_manifest(records)
    os.makedirs(directory + "/blobs/sha256", exist_ok=True)
    for blob in blobs:
        _put_file(_blob_path(directory, blob.digest), paths[blob.digest])
    for content in (config, manifest):
        _put_bytes(_blob_path(directory, digest_of(content)), content)
    _put_bytes(directory + "/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    entry = Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest)).as_dict()
    others = [
        one for one in _index_entries(directory) if (one.get("annotations") or {}).get(_REF_NAME) != tag
    ]
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [*others, {**entry, "annotations": {_REF_NAME: tag}}],
    }
    _put_bytes(directory + "/index.json", json.dumps(index).encode(), replace=True)


def _index_entries(directory: str) -> list[dict[str, Any]]:
    try:
        with open(directory + "/index.json", "rb") as file:
            document = json.load(file)
        return [one for one in document["manifests"] if isinstance(one, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _put_file(path: str, source: str) -> None:
    if not os.path.exists(path):
        half = f"{path}.{os.getpid()}.part"
        shutil.copyfile(source, half)
        os.rename(half, path)


def _put_bytes(path: str, content: bytes, *, replace: bool = False) -> None:
    if replace or not os.path.exists(path):
        half = f"{path}.{os.getpid()}.part"
        with open(half, "wb") as file:
            file.write(content)
        os.rename(half, path)
