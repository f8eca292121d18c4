"""One image as the rest of the engine sees it: digests, config, layers, and Docker's views of them."""

from __future__ import annotations

from duckweed.oci import config as image_config
from duckweed.oci.digest import chain_ids, is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.images import ImageStore

HOST_ID = "sha256:" + "0" * 64
"""The id of the built-in image: no config has this digest."""
HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Image:
    """An image of the store, as it was when it was looked up.

    `asked` is the name it was looked up by, `id` and `manifest` are digests, `config` is the OCI document;
    `store_root` is the store that has its record: ours, or a read-only one.
    """

    __slots__ = (
        "_chain",
        "_directories",
        "_store",
        "asked",
        "config",
        "id",
        "is_host",
        "manifest",
        "store_root",
    )

    def __init__(
        self,
        store: ImageStore,
        asked: str,
        image_id: str,
        manifest: str,
        config: dict[str, Any],
        is_host: bool = False,
    ) -> None:
        self._store = store
        self._directories: list[str] | None = None
        self._chain: list[str] | None = None
        self.asked = asked
        self.id = image_id
        self.manifest = manifest
        self.config = config
        self.is_host = is_host
        self.store_root = store.layout.root

    @property
    def short_id(self) -> str:
        """The id's first twelve digits."""
        return self.id[7:19]

    @property
    def run_config(self) -> dict[str, Any]:
        """What containers start from: Env, Cmd, User ... (OCI's `config`)."""
        return image_config.run_config(self.config)

    @property
    def os(self) -> str:
        return self.config.get("os") or "linux"

    @property
    def architecture(self) -> str:
        return self.config.get("architecture") or ""

    @property
    def diff_ids(self) -> list[str]:
        """The layers' diff ids, bottom first."""
        return image_config.diff_ids(self.config)

    @property
    def chain_ids(self) -> list[str]:
        """The layers' chain ids, bottom first."""
        if self._chain is None:
            self._chain = chain_ids(self.diff_ids)
        return self._chain

    def remember_chain(self, chain: object) -> None:
        """Takes the chain ids that a record repeats, so that a start need not compute them."""
        if isinstance(chain, list) and len(chain) == len(self.diff_ids) and all(map(is_digest, chain)):
            self._chain = chain

    @property
    def directories(self) -> list[str]:
        """The layers' directories in a flavour that fits the store's, topmost first; in a read-only store
        where ours lacks one, then with their cover.
        """
        if self._directories is None:
            self._directories = self._find_directories()
        return self._directories

    def _find_directories(self) -> list[str]:
        if self.is_host:
            return []
        layout, flavour = self._store.layout, self._store.flavour
        if layout.read_stores:
            from duckweed.store import shared

            return shared.directories(layout, self.chain_ids, flavour)
        return [layout.layer(chain_id, flavour.name) for chain_id in reversed(self.chain_ids)]

    @property
    def layers(self) -> list[str]:
        """The names of these directories (`<chain hex>.<flavour>`), topmost first."""
        return [directory.rpartition("/")[2] for directory in self.directories]

    @property
    def lower(self) -> list[str]:
        """The layers' trees as absolute paths, topmost first: overlay's lowerdirs."""
        return [f"{directory}/fs" for directory in self.directories]

    @property
    def tags(self) -> list[str]:
        """Its tags now, as users write them: `busybox:latest`."""
        return self._store.familiar_tags(self)

    @property
    def attrs(self) -> dict[str, Any]:
        """`docker image inspect`'s dict, computed now."""
        from duckweed.store import image_view

        return image_view.inspect(self._store, self)

    @property
    def summary(self) -> dict[str, Any]:
        """What lists show: docker's /images/json dict, computed now."""
        from duckweed.store import image_view

        return image_view.summary(self._store, self)

    def history(self) -> list[dict[str, Any]]:
        """Docker's history dicts, newest first: Id, Created (unix), CreatedBy, Size, Comment, Tags."""
        from duckweed.store import image_view

        return image_view.history(self._store, self)

    def __repr__(self) -> str:
        return f"<Image {self.asked or self.short_id}>"


def host_image(store: ImageStore, asked: str) -> Image:
    """The built-in image `host`: the machine's own root tree. It has no layers and is in no file."""
    from duckweed.oci.platform import Platform

    config = {
        "os": "linux",
        "architecture": Platform.host().architecture,
        "config": {"Env": ["PATH=" + HOST_PATH], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    return Image(store, asked, HOST_ID, HOST_ID, config, is_host=True)
