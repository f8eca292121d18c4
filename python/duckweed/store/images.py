"""Images by name: from what a user typed to a config and a list of layer directories.

On the main path of every start, so the common case reads two small files and walks no directory: the tag's
record names the config, and the config's diff ids name the layers. What is rarer (loading, removing,
showing) lives in modules of its own that are imported when asked for.
"""

from __future__ import annotations

import json

from duckweed.errors import BadImage, Conflict, NoSuchImage, NotInRegistry, StoreError, UsageError
from duckweed.store.blobs import BlobStore
from duckweed.store.image import HOST_ID, Image, host_image
from duckweed.store.layers import SINGLE, LayerStore
from duckweed.store.records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, BinaryIO

    from duckweed.oci.reference import Reference
    from duckweed.registry.pulling import PullWatch
    from duckweed.registry.pushing import Pushed, PushWatch
    from duckweed.store.archive import Source
    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

    Removals = list[dict[str, str]]
    Images = list[Image]

_CACHE_LIMIT = 256
# Together one second: longer than a load takes from writing a reference to looking at what it refers to.
_PAUSES_S = tuple(0.001 * 2**n for n in range(10))
_HEX_DIGITS = frozenset("0123456789abcdef")
HOST_NAMES = frozenset(("host", "host:latest", "docker.io/library/host:latest"))


class ImageStore:
    """The images below one root.

    `flavour` is the flavour that layers are made in, or a function that finds it out (asked once, when
    first needed).
    """

    def __init__(self, layout: Layout, flavour: Flavour | Callable[[], Flavour] = SINGLE) -> None:
        self.layout = layout
        self.blobs = BlobStore(layout)
        self.layers = LayerStore(layout, self.blobs)
        self.records = Records(layout)
        self._flavour = flavour
        # A config never changes under its digest, so it is parsed once a process.
        self._configs: dict[str, dict[str, Any]] = {}

    @property
    def own(self) -> ImageStore:
        """This store without the read-only ones: for what changes it, or counts what it holds."""
        if not self.layout.read_stores:
            return self
        return ImageStore(self.layout.alone(), self._flavour)

    @property
    def flavour(self) -> Flavour:
        """The flavour that layers are made in here."""
        if callable(self._flavour):
            self._flavour = self._flavour()
        return self._flavour

    # Looking up.

    def get(self, name: str) -> Image:
        """The image of a reference, an id, an id's unique beginning or `name@digest`.

        Raises NoSuchImage, Conflict (the beginning fits several), UsageError (it can be no name).
        """
        try:
            return self._find(name)
        except StoreError:
            return self._find_patiently(name)

    def _find(self, name: str) -> Image:
        found = self._by_tag(_canonical(name), name) if _is_plain(name) else None
        return found or self._get_any(name)

    def _find_patiently(self, name: str) -> Image:
        """Looks again, for a config that was not there: a remover may have it in its hands and put it back,
        or the image be gone by now, or a load may be about to make the config again. Raises as `get`, and
        StoreError when it stays away.
        """
        import time

        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            try:
                return self._find(name)
            except StoreError:
                continue
        return self._find(name)

    def _by_tag(self, reference: str, asked: str) -> Image | None:
        record = self.records.tag(reference)
        return self._image(record, asked) if record is not None else None

    def _image(self, record: dict[str, Any], asked: str) -> Image:
        image = Image(self, asked, record["config"], record["manifest"], self.config(record["config"]))
        image.remember_chain(record.get("chain"))
        image.store_root = record.get("store") or self.layout.root
        return image

    def config(self, image_id: str) -> dict[str, Any]:
        """The parsed config of an image in the store. Raises StoreError."""
        document = self._configs.get(image_id)
        if document is None:
            try:
                document = json.loads(self.blobs.read(image_id))
            except ValueError:
                raise StoreError(
                    f"cannot read config `{image_id}`: the file is damaged", "load the image again"
                ) from None
            if len(self._configs) >= _CACHE_LIMIT:
                self._configs.clear()
            self._configs[image_id] = document
        return document

    def _get_any(self, name: str) -> Image:
        digits = name[7:] if name.startswith("sha256:") else name
        if len(digits) == 64 and set(digits) <= _HEX_DIGITS:
            return self._by_id(digits, name)
        reference = None
        if not name.startswith("sha256:"):
            reference = self._parse(name, digits)
            found = self._by_reference(reference, name) if reference is not None else None
            if found is not None:
                return found
        if digits and set(digits) <= _HEX_DIGITS:
            try:
                return self._by_id(digits, name)
            except NoSuchImage:
                pass
        if name in HOST_NAMES:
            return host_image(self, name)
        shown = reference.familiar if reference is not None else name
        raise NoSuchImage(
            f"No such image: {shown}", "see `duckweed images`, or bring it in with `duckweed load -i FILE`"
        )

    def _parse(self, name: str, digits: str) -> Reference | None:
        from duckweed.oci.reference import Reference

        try:
            return Reference.parse(name)
        except UsageError:
            if digits and set(digits) <= _HEX_DIGITS:
                return None
            raise

    def _by_reference(self, reference: Reference, asked: str) -> Image | None:
        if reference.digest:
            return self._by_digest(reference, asked)
        found = self._by_tag(str(reference), asked)
        if found is None and "/" not in asked:
            # Podman and buildah name what they build `localhost/busybox`.
            found = self._by_tag(f"localhost/{reference.familiar}", asked)
        return found

    def _by_digest(self, reference: Reference, asked: str) -> Image | None:
        """`name@sha256:...`: what a registry called it; or the digest of the manifest, or of the config, of
        an image that has a tag of this name.
        """
        pulled = self._by_tag(f"{reference.name}@{reference.digest}", asked)
        if pulled is not None:
            return pulled
        names = (reference.name + ":", f"localhost/{reference.familiar_name}:")
        for record in self.records.all_tags():
            has_digest = reference.digest in (record["manifest"], record["config"])
            if has_digest and record["reference"].startswith(names):
                return self._image(record, asked)
        return None

    def _by_id(self, digits: str, asked: str) -> Image:
        if len(digits) == 64:
            record = self.records.image("sha256:" + digits)
            if record is not None:
                return self._image(record, asked)
            if asked == HOST_ID or asked == HOST_ID[7:]:
                return host_image(self, asked)
        ids = self.records.ids(digits)
        if len(ids) > 1:
            raise Conflict(
                f"multiple IDs found with provided prefix: {digits}", "give more of the id, or a name"
            )
        record = self.records.image(ids[0]) if ids else None
        if record is None:
            raise NoSuchImage(f"No such image: {asked}", "see `duckweed images`")
        return self._image(record, asked)

    def all(self) -> list[Image]:
        """Every image, in no order, without the built-in one; those that go away meanwhile are left out."""
        found = []
        for image_id in self.records.ids():
            record = self.records.image(image_id)
            try:
                if record is not None:
                    found.append(self._image(record, image_id))
            except StoreError:
                continue
        return found

    def familiar_tags(self, image: Image) -> list[str]:
        """The tags of an image as users write them, sorted."""
        if image.is_host:
            return ["host:latest"]
        from duckweed.oci.reference import Reference

        return sorted(
            Reference.parse(record["reference"]).familiar for record in self.records.tags_of(image.id)
        )

    # Layers.

    def ensure_layers(self, image: Image) -> None:
        """Makes the layers that are missing in this flavour, from the stored blobs; one stat a layer when
        all are there.

        Layers of read-only stores are used as they are, under a cover of our own. Raises BadImage when a blob
        is not in the store any more.
        """
        chain = image.chain_ids
        if all(self.layers.exists(chain_id, self.flavour.name) for chain_id in chain):
            return
        if self.layout.read_stores:
            from duckweed.store import shared

            if shared.prepare(self.layout, chain, self.flavour):
                return
        from duckweed.oci.manifest import Manifest

        manifest = Manifest.read(self.blobs.read(image.manifest), f"manifest `{image.manifest}`")
        if len(manifest.layers) != len(chain):
            raise BadImage(f"image `{image.asked}`: its manifest and its config disagree")
        self.layers.ensure(chain, image.diff_ids, [layer.digest for layer in manifest.layers], self.flavour)

    def get_ready(self, name: str) -> Image:
        """The image that `name` means, with its layers all there.

        What is missing is looked for again, for a remover may have it in its hands: then it is put back, or
        the image is gone. Raises as `get` and `ensure_layers`.
        """
        pauses_s = iter(_PAUSES_S)
        while True:
            image = self.get(name)
            if image.is_host:
                return image
            try:
                self.ensure_layers(image)
                return image
            except (BadImage, StoreError):
                pause_s = next(pauses_s, None)
                # The first time it may have been put back already.
                if pause_s is None or (pause_s > _PAUSES_S[0] and self._has_blobs(image)):
                    raise
            import time

            time.sleep(pause_s)

    def _has_blobs(self, image: Image) -> bool:
        from duckweed.oci.manifest import Manifest

        try:
            manifest = Manifest.read(self.blobs.read(image.manifest), "manifest")
        except (BadImage, StoreError):
            return False
        return all(self.blobs.size(layer.digest) is not None for layer in manifest.layers)

    # What imports its own module when it is asked for.

    def load(self, source: Source, *, quiet: bool = False) -> list[Image]:
        """Loads every image of a docker-archive, OCI archive or OCI layout directory; all or none.

        Raises BadImage, StoreError.
        """
        from duckweed.store.loading import Loader

        self.layout.ensure()
        own = self.own
        loaded = Loader(own.layout, own.blobs, own.layers, own.records, self.flavour).load(source)
        images = []
        for one in loaded:
            asked = one.references[0].familiar if one.references else one.config
            images.append(Image(self, asked, one.config, one.manifest, self.config(one.config)))
        return images

    def pull(
        self,
        name: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        tls_verify: bool | None = None,
        watch: PullWatch | None = None,
    ) -> Image:
        """Brings an image from its registry; nothing that is here is fetched again. With `all_tags` every
        tag of the repository, and the last one is returned.

        Raises NotInRegistry, AccessDenied, RegistryError, BadImage, StoreError, UsageError.
        """
        from duckweed.registry.pulling import pull

        pulled = pull(self, name, all_tags=all_tags, platform=platform, tls_verify=tls_verify, watch=watch)
        if not pulled:
            raise NotInRegistry(f"{name}: the repository has no tags")
        return pulled[-1]

    def push(
        self,
        name: str,
        *,
        all_tags: bool = False,
        compression_format: str | None = None,
        tls_verify: bool | None = None,
        watch: PushWatch | None = None,
    ) -> builtins.list[Pushed]:
        """Brings an image, or with `all_tags` every tag of its repository, to its registry.

        `compression_format="gzip"` packs layers that are kept as zstd anew. Raises NoSuchImage, AccessDenied,
        RegistryError, StoreError, UsageError.
        """
        from duckweed.registry.pushing import push

        return push(
            self,
            name,
            all_tags=all_tags,
            compression_format=compression_format,
            tls_verify=tls_verify,
            watch=watch,
        )

    def save(
        self,
        names: str | Sequence[str],
        target: str | int | BinaryIO = "-",
        *,
        format: str = "docker-archive",
    ) -> None:
        """Writes images to one archive: to a path (which appears when it is whole), a descriptor, a binary
        file object, or `-` for stdout. `format` is `docker-archive` or `oci-archive`.

        Raises NoSuchImage, UsageError, Conflict, BadImage, StoreError.
        """
        from duckweed.store.output_file import open_output
        from duckweed.store.saving import save

        with open_output(target) as fd:
            save(self, [names] if isinstance(names, str) else names, fd, format)

    def import_(
        self,
        source: Source,
        reference: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
    ) -> Image:
        """Makes an image of one layer from a tar of a root file system. Raises BadImage, UsageError,
        StoreError.
        """
        from duckweed.store.importing import import_rootfs

        self.layout.ensure()
        return import_rootfs(self.own, source, reference, changes, message, platform)

    def list(
        self, *, all: bool = False, filters: Mapping[str, Any] | None = None, reference: str | None = None
    ) -> list[Image]:
        """The images that match, newest first; the built-in one last, unless a filter or a name is given."""
        from duckweed.store.image_filter import select

        return select(self, filters or {}, reference)

    def tag(self, source: str, target: str) -> None:
        """Makes `target` another name of `source`. Raises NoSuchImage, UsageError."""
        from duckweed.store.tagging import tag

        tag(self, source, target)

    def share(self, directory: str, names: Sequence[str]) -> Images:
        """Puts images into the store at `directory`, from where every user can run them. Raises NoSuchImage,
        Conflict, StoreError.
        """
        from duckweed.store.sharing import share

        return share(self, directory, names)

    def remove(self, name: str, *, force: bool = False, no_prune: bool = False) -> Removals:
        """Untags, and deletes what nothing refers to any more: `[{"Untagged": ..}, {"Deleted": ..}]`.

        Raises NoSuchImage; InUse in Docker's words.
        """
        from duckweed.store.tagging import remove

        return remove(self, name, force)

    def prune(self, *, all: bool = False, filters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Removes dangling (or all unused) images, and blobs and layers that killed loads left."""
        from duckweed.store.image_filter import prune

        return prune(self, all, filters or {})


def _is_plain(name: str) -> bool:
    """Whether this is a bare `name` or `name:tag` of letters and digits: no grammar is needed to read it."""
    head, _, tag = name.partition(":")
    return (
        head.isascii()
        and head.isalnum()
        and head.islower()
        and (not tag or tag.isalnum())
        and len(head) != 64
    )


def _canonical(plain: str) -> str:
    return f"docker.io/library/{plain}" if ":" in plain else f"docker.io/library/{plain}:latest"
