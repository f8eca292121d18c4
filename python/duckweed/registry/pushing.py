"""`push`: an image, or all tags of a repository, from the store into a registry.

What is kept is what is sent: an image that came from a registry or an archive with its manifest has the same
digest afterwards. Blobs go several at once; the manifest goes last, when all of them are there.
"""

from __future__ import annotations

import threading
from collections import deque

from duckweed import _core
from duckweed.errors import AccessDenied, NoSuchImage, RegistryError, StoreError, TransferError, UsageError
from duckweed.oci.digest import digest_of
from duckweed.oci.document import read_object
from duckweed.oci.manifest import OCI_MANIFEST, Descriptor, Manifest
from duckweed.oci.reference import Reference
from duckweed.registry.registries import Registries
from duckweed.registry.upload import Uploader, denied, push_refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.registry.repository import Repository
    from duckweed.store.images import ImageStore

# As Docker's client does.
_AT_ONCE = 5
_CREATED = frozenset((200, 201, 202))


class PushWatch:
    """Told what a push does, from several threads; this one keeps it to itself."""

    def begun(self, reference: Reference) -> None:
        """The repository that is pushed to."""

    def prepared(self, digest: str) -> None:
        """A layer of the image."""

    def present(self, digest: str) -> None:
        """The registry has it."""

    def mounted(self, digest: str, source: str) -> None:
        """The registry has it in another repository, and now in this one."""

    def sending(self, digest: str, sent: _core.Counter, size: int) -> None:
        """It is on its way."""

    def pushed(self, digest: str) -> None:
        """It is there."""

    def ended(self, reference: Reference, digest: str, size: int) -> None:
        """The manifest is there."""


class Pushed:
    """What a push has put into a registry: `reference`, and the manifest's `digest` and `size` in bytes."""

    __slots__ = ("digest", "reference", "size")

    def __init__(self, reference: Reference, digest: str, size: int) -> None:
        self.reference = reference
        self.digest = digest
        self.size = size


def push(
    store: ImageStore,
    name: str,
    *,
    all_tags: bool = False,
    compression_format: str | None = None,
    tls_verify: bool | None = None,
    watch: PushWatch | None = None,
) -> list[Pushed]:
    """Pushes `name`, or with `all_tags` every local tag of that repository.

    Raises NoSuchImage, AccessDenied, RegistryError, StoreError, UsageError.
    """
    registries = Registries(tls_verify)
    watch = watch or PushWatch()
    references = _references(store, name, all_tags)
    watch.begun(references[0])
    done = []
    for reference in references:
        record = store.records.tag(str(reference))
        if record is None:
            raise NoSuchImage(
                f"An image does not exist locally with the tag: {reference.familiar_name}",
                f"name it so with `duckweed tag IMAGE {reference.familiar}`",
            )
        content = store.blobs.read(record["manifest"])
        if compression_format:
            from duckweed.store.recompression import recompressed

            content = recompressed(store, content, compression_format)
        done.append(_Push(store, registries, reference, content, watch).run())
        called = Reference(reference.registry, reference.repository, None, done[-1].digest)
        if record["manifest"] == done[-1].digest:
            chain = record.get("chain") or []
            store.records.add(record["manifest"], record["config"], True, [called], chain)
    return done


def push_document(
    store: ImageStore,
    registries: Registries,
    reference: Reference,
    content: bytes,
    blobs: Sequence[Descriptor],
    paths: Mapping[str, str],
    name: str = "",
) -> Pushed:
    """Pushes a manifest or index that is no image of the store, under the reference's tag or `name`, after
    the blobs that it needs there; `paths` are the files of those that are not in the store. Raises
    AccessDenied, RegistryError, StoreError.
    """
    pushing = _Push(store, registries, reference, content, PushWatch(), blobs)
    pushing.paths = paths
    pushing.name = name or reference.tag or "latest"
    return pushing.run()


def _references(store: ImageStore, name: str, all_tags: bool) -> list[Reference]:
    reference = Reference.parse(name, default_tag=None if all_tags else "latest")
    if reference.digest:
        raise UsageError("cannot push a digest reference", "push a tag", exit_code=1)
    if not all_tags:
        return [reference]
    if reference.tag:
        raise UsageError("tag can't be used with --all-tags/-a", exit_code=1)
    named = [Reference.parse(record["reference"]) for record in store.records.all_tags()]
    found = [one for one in named if one.name == reference.name]
    if not found:
        raise NoSuchImage(f"An image does not exist locally with the tag: {reference.familiar_name}")
    return found


class _Push:
    """One image on its way up."""

    def __init__(
        self,
        store: ImageStore,
        registries: Registries,
        reference: Reference,
        content: bytes,
        watch: PushWatch,
        blobs: Sequence[Descriptor] | None = None,
    ) -> None:
        self.paths: Mapping[str, str] = {}
        self.name = reference.tag
        self._store = store
        self._reference = reference
        self._content = content
        self._watch = watch
        self._repository: Repository = registries.repository(reference)
        self._registries = registries
        self._layers: set[str] = set()
        if blobs is None:
            manifest = Manifest.read(content, f"manifest of `{reference.familiar}`")
            blobs = [*manifest.layers, manifest.config]
            self._layers = {layer.digest for layer in manifest.layers}
        self._blobs = {one.digest: one for one in blobs}
        self._uploader = Uploader(self._repository.connection, reference.repository)
        self._queue: deque[Descriptor] = deque(self._blobs.values())
        self._failure: BaseException | None = None

    def run(self) -> Pushed:
        for digest in self._blobs:
            if digest in self._layers:
                self._watch.prepared(digest)
        self._sources = _holders(self._store, self._reference)
        try:
            self._send_blobs()
            return self._put_manifest()
        except AccessDenied as error:
            if error.message.startswith("push access denied"):
                raise
            raise denied(self._reference.familiar_name, error.message) from None
        except TransferError as error:
            raise self._repository.connection.sentence(error) from None

    def _send_blobs(self) -> None:
        threads = [
            threading.Thread(target=self._work, name="send", daemon=True)
            for _ in range(min(_AT_ONCE, len(self._queue)))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                # With a time, so that Ctrl-C is heard.
                while thread.is_alive():
                    thread.join(0.2)
        except BaseException:
            self._queue.clear()
            self._registries.cancel()
            raise
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while self._failure is None:
            try:
                blob = self._queue.popleft()
            except IndexError:
                return
            try:
                self._send(blob)
            except BaseException as error:
                self._failure = self._failure or error

    def _send(self, blob: Descriptor) -> None:
        watch = self._watch if blob.digest in self._layers else PushWatch()
        if self._uploader.has(blob.digest):
            watch.present(blob.digest)
            return
        given = self.paths.get(blob.digest)
        size = blob.size if given else self._store.blobs.size(blob.digest)
        if size is None:
            raise StoreError(
                f"cannot push `{self._reference.familiar}`: blob `{blob.digest}` is not in the store",
                "pull or load the image again",
            )
        sent = _core.Counter()
        watch.sending(blob.digest, sent, size)
        path = given or self._store.blobs.path(blob.digest)
        source = self._uploader.bring(blob.digest, path, sent, self._sources.get(blob.digest, ())[:2])
        if source:
            watch.mounted(blob.digest, source)
        else:
            watch.pushed(blob.digest)

    def _put_manifest(self) -> Pushed:
        document: dict[str, Any] = read_object(self._content, "manifest")
        media_type = str(document.get("mediaType") or OCI_MANIFEST)
        digest = digest_of(self._content)
        path = f"/v2/{self._reference.repository}/manifests/{self.name}"
        headers = [("Content-Type", media_type)]
        connection = self._repository.connection
        reply = connection.send("PUT", path, self._uploader.scopes, headers, self._content)
        if reply.status not in _CREATED:
            raise push_refusal(self._reference.familiar_name, reply)
        said = reply.header("docker-content-digest")
        if said and said != digest:
            raise RegistryError(f"the registry has stored another manifest than was sent: `{said}`")
        self._watch.ended(self._reference, digest, len(self._content))
        return Pushed(self._reference, digest, len(self._content))


def _holders(store: ImageStore, target: Reference) -> dict[str, list[str]]:
    """Which repositories of the same registry are likely to hold a blob: those that images here are named
    for.
    """
    from duckweed.store import scratch

    found: dict[str, list[str]] = {}
    for record in store.records.all_named():
        reference = Reference.parse(record["reference"])
        # Only what a registry has called so was ever there.
        if not reference.digest or reference.registry != target.registry or reference.name == target.name:
            continue
        document = scratch.read_json(store.blobs.path(record["manifest"])) or {}
        for layer in document.get("layers") or ():
            names = found.setdefault(layer.get("digest"), [])
            if reference.repository not in names:
                names.append(reference.repository)
    return found
