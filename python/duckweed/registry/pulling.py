"""`pull`: an image, or all tags of a repository, from a registry into the store."""

from __future__ import annotations

from duckweed.errors import RegistryError, TransferError, UsageError
from duckweed.oci.platform import Platform
from duckweed.oci.reference import Reference
from duckweed.registry.registries import Registries
from duckweed.registry.resolution import Resolved, resolve
from duckweed.store.image import Image
from duckweed.store.incoming import Watch
from duckweed.store.pulling import Puller
from duckweed.store.repair import sweep_quick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed import _core
    from duckweed.store.images import ImageStore

# What the store itself deals with: damaged bytes are not the connection's fault.
_OF_THE_BYTES = frozenset(("digest", "digest-resumed", "size"))


class PullWatch(Watch):
    """Told what a pull does, for whoever shows it."""

    def resolved(self, reference: Reference) -> None:
        """The registry knows it."""

    def ended(self, reference: Reference, digest: str, is_new: bool) -> None:
        """It is in the store; `digest` is what the registry calls it."""


def pull(
    store: ImageStore,
    name: str,
    *,
    all_tags: bool = False,
    platform: str | None = None,
    tls_verify: bool | None = None,
    watch: PullWatch | None = None,
    registries: Registries | None = None,
) -> list[Image]:
    """Pulls `name`, and with `all_tags` every tag of its repository: the images, in order.

    Raises NotInRegistry, AccessDenied, RegistryError, BadImage, StoreError, UsageError.
    """
    registries = registries or Registries(tls_verify)
    watch = watch or PullWatch()
    wanted = Platform.parse(platform) if platform else Platform.host()
    store.layout.ensure()
    # What a killed pull left half extracted; its half blobs are taken up.
    sweep_quick(store.layout, lambda: store.flavour)
    reference = Reference.parse(name, default_tag=None if all_tags else "latest")
    if not all_tags:
        return [_pull_one(store, registries, reference, wanted, watch)]
    if reference.tag or reference.digest:
        raise UsageError("tag can't be used with --all-tags/-a", exit_code=1)
    tags = list(registries.repository(reference).tags())
    return [_pull_one(store, registries, reference.with_tag(tag), wanted, watch) for tag in tags]


def _pull_one(
    store: ImageStore, registries: Registries, reference: Reference, wanted: Platform, watch: PullWatch
) -> Image:
    found = resolve(registries, reference, wanted)
    watch.resolved(reference)
    called = Reference(reference.registry, reference.repository, None, found.named.digest)
    before = store.records.tag(str(called if reference.digest else reference))
    names = [called] if reference.digest else [reference, called]

    def fetch(digest: str, part: _core.Part) -> None:
        try:
            found.repository.download(digest, part)
        except TransferError as error:
            if error.kind in _OF_THE_BYTES:
                raise
            raise found.repository.connection.sentence(error) from None

    loaded = Puller(store).pull(
        found.manifest.content,
        lambda: _config(store, found),
        fetch,
        registries.cancel,
        references=names,
        wanted=wanted,
        watch=watch,
    )
    watch.ended(reference, found.named.digest, before is None or before["config"] != loaded.config)
    return Image(store, reference.familiar, loaded.config, loaded.manifest, store.config(loaded.config))


def _config(store: ImageStore, found: Resolved) -> bytes:
    """The config, from the store when it is there: then nothing is fetched of an image that is up to date."""
    from duckweed.oci.manifest import Manifest

    digest = Manifest.read(found.manifest.content, "manifest").config.digest
    if store.blobs.exists(digest):
        return store.blobs.read(digest)
    try:
        return found.config()
    except TransferError as error:
        raise RegistryError(error.message) from None
