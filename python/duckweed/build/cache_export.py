"""`--cache-to`: what a build has used and made, written where another machine's build can begin from it."""

from __future__ import annotations

from duckweed.build.cache_places import CACHE_CONFIG, CacheSpec, Record, compose_manifest, write_local
from duckweed.errors import BuildError, DuckweedError
from duckweed.oci.digest import digest_of
from duckweed.oci.manifest import Descriptor
from duckweed.registry.registries import Registries
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed.build.progress import Progress
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState

    Solved = tuple[Build, StageState]


def inline_records(build: Build, state: StageState) -> list[dict[str, Any]]:
    """The records of the result's own layers, for its config; the same build gives the same ones."""
    found = []
    for number, chain_id in enumerate(state.chain):
        record = build.used.get(chain_id)
        if record is not None:
            entry = record.as_dict(number, record.keys[-1:])
            found.append({**entry, "created": build.created(record.created)})
    return found


def export_caches(solved: Sequence[Solved], specs: Sequence[CacheSpec], progress: Progress) -> None:
    """Writes every cache asked for but the inline one. Raises BuildError, RegistryError, StoreError."""
    for spec in specs:
        if spec.kind == "inline":
            continue
        where = spec.options.get("ref") or spec.options.get("dest")
        vertex = progress.begin(f"exporting cache to {spec.kind} {where}")
        try:
            count = _export(solved, spec)
        except (DuckweedError, OSError) as error:
            words = error.message if isinstance(error, DuckweedError) else f"cannot write: {error.strerror}"
            vertex.fail(words)
            if spec.ignores_errors:
                continue
            hint = error.hint if isinstance(error, DuckweedError) else ""
            raise BuildError(f"cannot export the cache to `{where}`: {words}", hint) from None
        vertex.status(f"writing {count} layers done")
        vertex.done()


def _export(solved: Sequence[Solved], spec: CacheSpec) -> int:
    """How many layers were written."""
    records: dict[str, Record] = {}
    paths: dict[str, str] = {}
    fetched: list[str] = []
    try:
        for build, state in solved:
            wanted = {
                chain_id: record
                for chain_id, record in build.used.items()
                if spec.wants_all or chain_id in state.chain
            }
            distant = _describe(build, wanted, paths)
            fetched += distant
            records.update(wanted)
        build = solved[0][0]
        if spec.kind == "local":
            write_local(spec, list(records.values()), paths)
        else:
            _push(build, spec, list(records.values()), paths)
    finally:
        for path in fetched:
            scratch.discard_file(path)
    return len(records)


def _describe(build: Build, wanted: dict[str, Record], paths: dict[str, str]) -> list[str]:
    """Fills in the blobs of the records and their files; those that were fetched for it are returned."""
    images, distant = build.engine.images, build.layering.distant
    missing = []
    for chain_id, record in list(wanted.items()):
        found = images.layers.any_record(chain_id, images.flavour.name)
        if found is not None and images.blobs.exists(found["blob"]):
            record.blob = Descriptor(found["blob_media_type"], found["blob"], found["blob_size"])
            paths[record.blob.digest] = images.blobs.path(record.blob.digest)
        elif distant is not None and distant.knows(chain_id):
            record.blob = distant.record(chain_id).blob
            missing.append(chain_id)
        else:
            del wanted[chain_id]
    if not missing or distant is None:
        return []
    files = distant.fetch(missing)
    for chain_id, path in files.items():
        blob = wanted[chain_id].blob
        assert blob is not None
        paths[blob.digest] = path
    return list(files.values())


def _push(build: Build, spec: CacheSpec, records: list[Record], paths: dict[str, str]) -> None:
    from duckweed.registry.pushing import push_document

    manifest, config, blobs = compose_manifest(records)
    path = scratch.new_path(build.layout, "cacheconfig")
    try:
        with open(path, "xb") as file:
            file.write(config)
        whole = [*blobs, Descriptor(CACHE_CONFIG, digest_of(config), len(config))]
        every = {**paths, digest_of(config): path}
        push_document(build.engine.images, Registries(), spec.reference, manifest, whole, every)
    finally:
        scratch.discard_file(path)
