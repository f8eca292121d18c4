"""`engine.containers`: making, finding, listing and pruning containers."""

from __future__ import annotations

from duckweed.containers.container import Container
from duckweed.errors import DuckweedError, NoSuchContainer, NoSuchImage, RegistryError
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.engine import Engine

_PRUNE_FILTERS = frozenset(("label", "label!", "until"))


class Containers:
    """The containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, image: str, command: str | Sequence[str] | None = None, **options: Any) -> Container:
        """Makes a container without starting it. The options are Docker's flags (`containers/options.py`).

        Raises NoSuchImage, UsageError, NameInUse, Unsupported.
        """
        from duckweed.containers import creation
        from duckweed.containers.options import parse

        parsed = parse(command, options)
        self._engine.repair()
        found = find_image(self._engine, image, parsed.pull, parsed.platform)
        container_id, document = creation.create(self._engine, found, parsed)
        return Container(self._engine, container_id, document)

    def run(self, image: str, command: str | Sequence[str] | None = None, **options: Any) -> Container:
        """Creates a container and starts it, detached. As a context manager it is stopped and removed at the
        end.
        """
        container = self.create(image, command, **{**options, "detach": True})
        try:
            container.start()
        except DuckweedError:
            if options.get("rm"):
                try:
                    container.remove(force=True, volumes=True)
                except NoSuchContainer:
                    pass  # the supervisor was quicker
            raise
        return container

    def get(self, name_or_id: str) -> Container:
        """The container of a name, an id or an id's beginning. Raises NoSuchContainer; Conflict for an
        ambiguous id.
        """
        return Container(self._engine, self._engine.container_store.resolve(name_or_id))

    def list(
        self, *, all: bool = False, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> builtins.list[Container]:
        """Running (or all) containers, newest first. Filters are Docker's: a value or several each."""
        from duckweed.containers.filters import Filter

        self._engine.repair()
        wanted = Filter(self._engine, filters) if filters else None
        found: list[tuple[str, Container]] = []
        for container_id, record in self._engine.container_store.records():
            container = Container(self._engine, container_id, record)
            if self._is_abandoned(container):
                continue
            found.append((record.get("Created") or "", container))
        found.sort(key=lambda pair: pair[0], reverse=True)
        every = all or limit is not None or (wanted is not None and wanted.wants_all)
        result: builtins.list[Container] = []
        for _, container in found:
            if limit is not None and len(result) >= limit:
                break
            try:
                state = container.state()
                if state.is_leftover:
                    continue  # swept by that look
                if (every or state.running) and (wanted is None or wanted(container)):
                    result.append(container)
            except NoSuchContainer:
                continue  # went away meanwhile
        return result

    def _is_abandoned(self, container: Container) -> bool:
        """Sweeps a container of `engine.run` whose process and supervisor were both killed; true when it is
        gone.
        """
        owner = container.document.get("ephemeral")
        if not owner or not scratch.is_abandoned(owner + "-", container.directory):
            return False
        try:
            if container.state().running:
                return False  # its supervisor is just taking it down
            container.remove(force=True, volumes=True)
        except DuckweedError:
            pass
        return True

    def prune(self, filters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Removes all stopped containers: `{"ContainersDeleted", "SpaceReclaimed"}`. Filters: label, label!,
        until. Raises UsageError for others.
        """
        from duckweed.store.image_filter import check_names

        check_names(filters or {}, _PRUNE_FILTERS)
        self._engine.repair_all()
        deleted: builtins.list[str] = []
        reclaimed = 0
        for container in self.list(all=True, filters=filters):
            try:
                if container.state().running or container.document.get("ephemeral"):
                    continue
                size = container.size()["SizeRw"]
                container.remove()
            except DuckweedError:
                continue  # started, or removed by somebody else
            deleted.append(container.id)
            reclaimed += size
        return {"ContainersDeleted": deleted, "SpaceReclaimed": reclaimed}


def find_image(engine: Engine, name: str, pull: str = "missing", platform: str = "") -> Any:
    """The image to make a container of, pulled first when `pull` says so (`always`, `missing`, `never`).

    Raises NoSuchImage in the words of `docker run`, with what the registry said.
    """
    if pull == "always" and not _is_host(name):
        engine.images.pull(name, platform=platform or None)
    try:
        return engine.run_image(name)
    except NoSuchImage as error:
        missing = error
    from duckweed.oci.reference import Reference

    words = f"Unable to find image '{Reference.parse(name).familiar}' locally"
    if pull == "never":
        hint = "get it with `duckweed pull`, or load it from an archive with `duckweed load -i FILE`"
        raise NoSuchImage(words, hint, exit_code=125) from missing
    try:
        engine.images.pull(name, platform=platform or None)
    except RegistryError as error:
        raise NoSuchImage(f"{words}: {error.message}", error.hint, exit_code=125) from error
    return engine.run_image(name)


def _is_host(name: str) -> bool:
    from duckweed.store.images import HOST_NAMES

    return name in HOST_NAMES
