"""Pulling, the store's half: from a manifest and a way to fetch blobs to an image in the store.

Taken in, recorded and confirmed as a load is (`loading`), with one difference: what has arrived whole is not
taken away again when the rest cannot be had, so that the next try needs only the rest.
"""

from __future__ import annotations

from duckweed.errors import BadImage, StoreError
from duckweed.oci.manifest import Manifest
from duckweed.store import claims
from duckweed.store.incoming import Incoming, Watch
from duckweed.store.loading import Loader
from duckweed.store.plan import ImagePlan, LayerPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from duckweed.oci.platform import Platform
    from duckweed.oci.reference import Reference
    from duckweed.store.images import ImageStore
    from duckweed.store.incoming import Fetch
    from duckweed.store.loading import Loaded


class Puller(Loader):
    """Takes images in from registries."""

    def __init__(self, store: ImageStore) -> None:
        own = store.own
        super().__init__(own.layout, own.blobs, own.layers, own.records, store.flavour)
        self._blob_names: list[str] = []

    def pull(
        self,
        content: bytes,
        read_config: Callable[[], bytes],
        fetch: Fetch,
        cancel: Callable[[], None],
        *,
        references: list[Reference],
        wanted: Platform,
        watch: Watch | None = None,
    ) -> Loaded:
        """Brings one image in. `content` is its manifest, `read_config` fetches its config, `fetch` a blob
        into a part; `cancel` makes both end.

        Raises BadImage, RegistryError, StoreError; blobs that arrived whole stay then.
        """
        manifest = Manifest.read(content, "manifest")
        claims.sweep(self._layout)
        self._blob_names = [layer.digest[7:] for layer in manifest.layers]
        incoming = Incoming(self._layout, self._blobs, manifest.layers, fetch, cancel, watch or Watch())
        try:
            with incoming:
                return self._pull(incoming, content, manifest, read_config, references, wanted)
        except StoreError:
            incoming.discard()
            raise

    def _pull(
        self,
        incoming: Incoming,
        content: bytes,
        manifest: Manifest,
        read_config: Callable[[], bytes],
        references: list[Reference],
        wanted: Platform,
    ) -> Loaded:
        try:
            plans = [LayerPlan(layer.digest, layer.digest) for layer in manifest.layers]
            plan = ImagePlan(read_config(), content, plans, wanted)
            plan.references = references
            return self.keep(incoming, [plan])[0]
        except BadImage:
            # An extraction behind a download that failed says less than the download does.
            cause = incoming.failure()
            if cause is not None and not isinstance(cause, BadImage):
                raise cause from None
            raise

    def _give_up(self, error: BaseException) -> None:
        if isinstance(error, StoreError):
            # The disk: what came whole is in the way too.
            self._written += self._blob_names
        if isinstance(error, (BadImage, StoreError)):
            super()._give_up(error)
