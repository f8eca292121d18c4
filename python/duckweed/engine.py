"""The façade: everything that the command line, scripts and later the API ask for goes through an `Engine`.

An `Engine` is a root directory and what was learnt about this place; it holds no connection and no lock, so many may
exist, in many threads and processes. Keyword names are Docker's long flag names with `_` for `-`; values are what a
user would type (`"./src:/app:ro"`, `"8m"`) or the natural Python value.
"""

from __future__ import annotations

import os

from duckweed.store.containers import ContainerStore
from duckweed.store.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, BinaryIO

    from duckweed.containers.collection import Containers
    from duckweed.containers.place import Place
    from duckweed.containers.run_image import RunImage


class Result:
    """What a finished command left behind: `exit_code`, and `stdout` and `stderr` as bytes (empty when not captured)."""

    __slots__ = ("exit_code", "stderr", "stdout", "timed_out")

    def __init__(self, exit_code: int, stdout: bytes = b"", stderr: bytes = b"", timed_out: bool = False) -> None:
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        self.timed_out = timed_out

    def __repr__(self) -> str:
        return f"Result(exit_code={self.exit_code}, stdout={self.stdout!r}, stderr={self.stderr!r})"


class Engine:
    """The engine over one store.

    `root` is the store's directory (default `$DUCKWEED_ROOT`, then `$XDG_DATA_HOME/duckweed`, then
    `~/.local/share/duckweed`). Making one is cheap: nothing is read or made before it is needed.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.layout = Layout(None if root is None else os.fspath(root))
        self.root = self.layout.root
        self.container_store = ContainerStore(self.layout)
        self._containers: Containers | None = None
        self._places: dict[str, Place] = {}
        self._run_images: dict[str, RunImage] = {}

    @property
    def images(self) -> Images:
        """The images of the store."""
        raise NotImplementedError

    @property
    def containers(self) -> Containers:
        """The containers of the store."""
        if self._containers is None:
            from duckweed.containers.collection import Containers

            self._containers = Containers(self)
        return self._containers

    @property
    def volumes(self) -> Volumes:
        """The volumes of the store."""
        raise NotImplementedError

    def run(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        *,
        input: bytes | str | BinaryIO | None = None,
        timeout: float | None = None,
        check: bool = False,
        capture: bool = True,
        **options: Any,
    ) -> Result:
        """Runs `command` in a fresh container of `image`, waits for it and removes the container.

        `input` is fed to the command's stdin (none: /dev/null). `timeout` in seconds kills the container:
        `Result.timed_out` is true and `exit_code` 137. With `capture=False` stdout and stderr are this process's own.
        `check` raises CommandFailed unless the exit code is 0. `options` are those of `containers.create`.
        Raises NoSuchImage, UsageError, StartError (the command could not be started: `exit_code` 125, 126, 127).
        """
        from duckweed.containers import ephemeral

        return ephemeral.run(
            self, image, command, input=input, timeout=timeout, check=check, capture=capture, options=options
        )

    async def run_async(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        *,
        input: bytes | str | BinaryIO | None = None,
        timeout: float | None = None,
        check: bool = False,
        capture: bool = True,
        **options: Any,
    ) -> Result:
        """`run` as a coroutine, without threads; cancelling it kills the container."""
        from duckweed.containers import ephemeral

        return await ephemeral.run_async(
            self, image, command, input=input, timeout=timeout, check=check, capture=capture, options=options
        )

    def info(self) -> dict[str, Any]:
        """What `docker info` would say, with this place's isolation, storage and notes."""
        from duckweed.containers import information

        return information.info(self)

    def version(self) -> dict[str, Any]:
        """Versions of the engine, the runtime, Python and the kernel, in the shape of `docker version`."""
        from duckweed.containers import information

        return information.version()

    def doctor(self) -> dict[str, Any]:
        """What this place allows, what it means and what could be changed: `host/doctor.py`'s report."""
        raise NotImplementedError

class Image:
    """One image of the store: `id` (`sha256:...`), `short_id`, `tags`, `config` (OCI), `attrs` (docker inspect's dict)."""

    id: str
    short_id: str
    tags: list[str]
    config: dict[str, Any]
    attrs: dict[str, Any]

    def history(self) -> list[dict[str, Any]]:
        """Docker's history dicts, newest first: Id, Created (unix), CreatedBy, Size, Comment, Tags."""
        raise NotImplementedError


class Images:
    """`engine.images`."""

    def load(self, source: str | BinaryIO | int, *, quiet: bool = False) -> list[Image]:
        """Loads every image of a docker-archive or OCI archive: a path, `-`, an open binary file or a descriptor."""
        raise NotImplementedError

    def import_(
        self,
        source: str | BinaryIO | int,
        reference: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
    ) -> Image:
        """Makes an image of one layer from a tar of a root file system."""
        raise NotImplementedError

    def list(
        self, *, all: bool = False, filters: Mapping[str, Any] | None = None, reference: str | None = None
    ) -> list[Image]:
        """All images, newest first."""
        raise NotImplementedError

    def get(self, name: str) -> Image:
        """The image of a reference, an id or an id's beginning; `NoSuchImage` otherwise."""
        raise NotImplementedError

    def tag(self, source: str, target: str) -> None:
        """Makes `target` another name of `source`."""
        raise NotImplementedError

    def remove(self, name: str, *, force: bool = False, no_prune: bool = False) -> list[dict[str, str]]:
        """Untags, and deletes what nothing refers to any more: `[{"Untagged": ..}, {"Deleted": ..}]`."""
        raise NotImplementedError

    def prune(self, *, all: bool = False, filters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Removes dangling (or all unused) images: `{"ImagesDeleted", "SpaceReclaimed"}`."""
        raise NotImplementedError


class Volume:
    """One volume: `name`, `mountpoint`, `attrs` (docker's volume inspect dict)."""

    name: str
    mountpoint: str
    attrs: dict[str, Any]

    def remove(self, force: bool = False) -> None:
        """Removes the volume; `InUse` while a container refers to it."""
        raise NotImplementedError


class Volumes:
    """`engine.volumes`."""

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        opts: Mapping[str, str] | None = None,
    ) -> Volume:
        """Makes a volume, or returns the one of that name."""
        raise NotImplementedError

    def get(self, name: str) -> Volume:
        """The volume of that name; `NoSuchVolume` otherwise."""
        raise NotImplementedError

    def list(self, filters: Mapping[str, Any] | None = None) -> list[Volume]:
        """All volumes by name."""
        raise NotImplementedError

    def remove(self, name: str, force: bool = False) -> None:
        """Removes a volume; `force` forgives a missing one."""
        raise NotImplementedError

    def prune(self, all: bool = False, filters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Removes unused anonymous (or all unused) volumes: `{"VolumesDeleted", "SpaceReclaimed"}`."""
        raise NotImplementedError
