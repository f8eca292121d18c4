"""The façade: everything that the command line, scripts and later the API ask for goes through an `Engine`.

An `Engine` is a root directory and what was learnt about this place; it holds no connection and no lock,
so many may exist, in many threads and processes. Keyword names are Docker's long flag names with `_` for
`-`; values are what a user would type (`"./src:/app:ro"`, `"8m"`) or the natural Python value.
"""

from __future__ import annotations

import os

from duckweed.errors import DuckweedError
from duckweed.store.containers import ContainerStore
from duckweed.store.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, BinaryIO

    from duckweed.containers.collection import Containers
    from duckweed.containers.networks import NetworkCollection
    from duckweed.containers.place import Place
    from duckweed.containers.run_image import RunImage
    from duckweed.containers.shared_namespace import SharedNamespace
    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore
    from duckweed.store.layers import Flavour
    from duckweed.store.volumes import VolumeStore


class Result:
    """What a finished command left behind: `exit_code`, and `stdout` and `stderr` as bytes (empty when not
    captured).
    """

    __slots__ = ("exit_code", "stderr", "stdout", "timed_out")

    def __init__(
        self, exit_code: int, stdout: bytes = b"", stderr: bytes = b"", timed_out: bool = False
    ) -> None:
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        self.timed_out = timed_out

    def __repr__(self) -> str:
        return f"Result(exit_code={self.exit_code}, stdout={self.stdout!r}, stderr={self.stderr!r})"


class Engine:
    """The engine over one store.

    `root` is the store's directory (default `$DUCKWEED_ROOT`, then `$XDG_DATA_HOME/duckweed`, then
    `~/.local/share/duckweed`). `scratch` is where running copies of images go (default `$DUCKWEED_SCRATCH`,
    then the store, if its file system is fit for it). Making one is cheap: nothing is read or made before it
    is needed.
    """

    def __init__(
        self, root: str | os.PathLike[str] | None = None, scratch: str | os.PathLike[str] | None = None
    ) -> None:
        self.layout = Layout(None if root is None else os.fspath(root))
        self.root = self.layout.root
        self.scratch = os.environ.get("DUCKWEED_SCRATCH", "") if scratch is None else os.fspath(scratch)
        self.container_store = ContainerStore(self.layout)
        self._containers: Containers | None = None
        self._images: ImageStore | None = None
        self._volumes: VolumeStore | None = None
        self._networks: NetworkCollection | None = None
        self._places: dict[str, Place] = {}
        self._run_images: dict[str, RunImage] = {}
        self._is_repaired = False
        self._shared: SharedNamespace | None = None

    @property
    def images(self) -> ImageStore:
        """The images of the store."""
        if self._images is None:
            from duckweed.store.images import ImageStore

            self._images = ImageStore(self.layout, self._flavour)
        return self._images

    @property
    def containers(self) -> Containers:
        """The containers of the store."""
        if self._containers is None:
            from duckweed.containers.collection import Containers

            self._containers = Containers(self)
        return self._containers

    @property
    def networks(self) -> NetworkCollection:
        """The networks of the store."""
        if self._networks is None:
            from duckweed.containers.networks import NetworkCollection

            self._networks = NetworkCollection(self)
        return self._networks

    @property
    def volumes(self) -> VolumeStore:
        """The volumes of the store."""
        if self._volumes is None:
            from duckweed.store.volumes import VolumeStore

            self._volumes = VolumeStore(self.layout, self._flavour)
        return self._volumes

    def _flavour(self) -> Flavour:
        return self.place().layers

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
        `Result.timed_out` is true and `exit_code` 137. With `capture=False` stdout and stderr are this
        process's own. `check` raises CommandFailed unless the exit code is 0. `options` are those of
        `containers.create`. Raises NoSuchImage, UsageError, StartError (the command could not be started:
        `exit_code` 125, 126, 127).
        """
        from duckweed.containers import ephemeral

        return ephemeral.run(
            self, image, command, input=input, timeout=timeout, check=check, capture=capture, options=options
        )

    def build(self, context: str | os.PathLike[str] = ".", **options: Any) -> Image | None:
        """Builds the Dockerfile of `context` (a directory, a git URL); the image, or None when the outputs
        are files alone.

        `options` are the long flags of `duckweed build` with `_` for `-`: `tag`, `file`, `build_arg`,
        `target`, `output` ...; `dockerfile` is the text of one; `progress` a callable that is given what
        happens, as `build.progress.Progress` says. Raises BuildError, DockerfileError, UsageError,
        NoSuchImage.
        """
        from duckweed.build.building import build_image

        return build_image(self, os.fspath(context), options)

    def prune_builds(
        self, *, all: bool = False, filters: Mapping[str, Any] | None = None, keep_bytes: int = 0
    ) -> dict[str, Any]:
        """Empties the build cache: docker's `{"CachesDeleted", "SpaceReclaimed"}`. Without `all` the layers
        of images stay in it; `keep_bytes` of what was used last stay too. Raises UsageError.
        """
        from duckweed.build.pruning import prune

        return prune(self, all=all, filters=filters or {}, keep_bytes=keep_bytes)

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

    def shared_namespace(self, place: Place) -> SharedNamespace:
        """The user namespace that this engine's ephemeral containers share."""
        if self._shared is None:
            from duckweed.containers.shared_namespace import SharedNamespace

            self._shared = SharedNamespace(place)
        return self._shared

    def close(self) -> None:
        """Ends what is kept for the next `run`, and returns when nothing of past ones is left on the disk.

        Not needed for correctness; it makes the moment certain, for who removes the store next. The engine
        can be used again.
        """
        if self._shared is not None:
            self._shared.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def place(self, isolation: str = "auto") -> Place:
        """What this place allows a container to be, found once. Raises Unsupported."""
        place = self._places.get(isolation)
        if place is None:
            from duckweed.containers.place import find

            place = self._places[isolation] = find(self, isolation)
        return place

    def news(self) -> list[str]:
        """What was found out about this place that has not been said before; said once."""
        told = [line for place in self._places.values() for line in place.news]
        for place in self._places.values():
            place.news.clear()
        return told

    def run_image(self, name: str) -> RunImage:
        """The image to make a container of, remembered while nothing has changed. Raises NoSuchImage,
        BadImage.
        """
        image = self._run_images.get(name)
        if image is None or not image.is_current():
            from duckweed.containers.run_image import find

            image = self._run_images[name] = find(self, name)
        return image

    def repair(self) -> None:
        """Sweeps, once in this engine's life, what killed processes left half-made; all of the store when
        there was something. Never raises.
        """
        if not self._is_repaired:
            self._is_repaired = True
            from duckweed.store.repair import sweep_quick

            if sweep_quick(self.layout, self._flavour):
                self.repair_all()

    def repair_all(self) -> None:
        """Puts right everything in the store that can be told to be wrong. Never raises."""
        from duckweed.store.repair import sweep

        self._is_repaired = True
        try:
            sweep(self.layout, self._flavour, self.place().scratch)
        except DuckweedError:
            pass  # the command that follows says what is wrong with the store

    def check(self, *, repair: bool = False, quick: bool = False) -> list[dict[str, Any]]:
        """What is not as it should be in the store, `[{"Kind", "Name", "Problem", "Advice", "Repaired"}]`;
        `quick` does not read the blobs.
        """
        from duckweed.store.checking import check

        self.layout.ensure()
        self.place()
        return [problem.document() for problem in check(self.images, mend=repair, quick=quick)]

    def discard_volumes(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Removes the anonymous volumes among the mount points of a container that is gone."""
        for point in points:
            if point.get("Anonymous"):
                try:
                    self.volumes.remove(point["Name"], force=True)
                except DuckweedError:
                    pass  # something else uses it by now: it stays, as a volume like any other

    def info(self) -> dict[str, Any]:
        """What `docker info` would say, with this place's isolation, storage and notes."""
        from duckweed.containers import information

        return information.info(self)

    def df(self) -> dict[str, Any]:
        """What images, containers and volumes take on the disk, in the shape of docker's /system/df."""
        from duckweed.containers.disk_usage import disk_usage

        self.repair_all()
        return disk_usage(self)

    def version(self) -> dict[str, Any]:
        """Versions of the engine, the runtime, Python and the kernel, in the shape of `docker version`."""
        from duckweed.containers import information

        return information.version()

    def doctor(self) -> dict[str, Any]:
        """What this place allows, what it means and what could be changed: `host/doctor.py`'s report."""
        from duckweed.host import doctor, probe

        self.layout.ensure()
        facts = probe.facts(self.root, fresh=True)
        if self.scratch or not facts.holds_running:
            from duckweed.host import running_place

            running = running_place.find(self.root, facts, self.scratch)
            facts.scratch = running.path if running is not None else ""
        return doctor.report(facts)
