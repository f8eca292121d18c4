"""Containers on disk: ids, names, records and the state that the supervisor leaves (docs/contracts.md §3
and §5).

A container is made as a draft in tmp/ and appears whole, by one rename. Its name is claimed by symlink(2),
which only one of many can win; the claim comes before the rename, so a name without a container belongs to
a draft or to someone who died.
"""

from __future__ import annotations

import os

from duckweed import _core
from duckweed.errors import Conflict, NameInUse, NoSuchContainer, StoreError
from duckweed.oci import timestamp
from duckweed.oci.digest import is_hex
from duckweed.store import scratch
from duckweed.store.layout import cannot
from duckweed.store.tree import discard_tree, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

CREATED, RUNNING, EXITED = "created", "running", "exited"
LOST_EXIT_CODE = 137
"""The exit code of a container whose supervisor died: init goes with it, by SIGKILL."""


class Draft:
    """A container being made: fill `path`, then `commit` it; `final_path` is where it will be, for absolute
    paths inside. One that was only reserved has no `path`.
    """

    __slots__ = ("final_path", "id", "path")

    def __init__(self, container_id: str, path: str, final_path: str) -> None:
        self.id = container_id
        self.path = path
        self.final_path = final_path


class ContainerStore:
    """The containers below one root. Holds nothing but paths."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    # Making one.

    def draft(self) -> Draft:
        """A new id and an empty directory for it in tmp/. Raises StoreError."""
        layout = self._layout
        container_id = os.urandom(32).hex()
        path = f"{layout.tmp}/{scratch.owner()}-container-{container_id}"
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            layout.ensure()
            os.mkdir(path, 0o700)
        except OSError as error:
            raise cannot("write in", layout.tmp, error) from None
        return Draft(container_id, path, layout.container(container_id))

    def reserve(self) -> Draft:
        """A new id, and where its container will be; somebody else makes the directory."""
        container_id = os.urandom(32).hex()
        return Draft(container_id, "", self._layout.container(container_id))

    def commit(self, draft: Draft, name: str | None, record: dict[str, Any]) -> None:
        """Writes `record` as container.json, claims `name` (checked by the caller) and makes the container
        appear.

        `name` may be None for a container that is never looked up by name. After this the caller checks
        that its layers exist (docs/contracts.md §2, remover against user). Raises NameInUse, StoreError;
        the draft stays for another name, or for `abandon`.
        """
        scratch.write_json(self._layout, draft.path + "/container.json", record)
        if name is not None:
            self._claim(name, draft.id)
        try:
            os.rename(draft.path, draft.final_path)
        except OSError as error:
            if name is not None:
                scratch.discard_file(self._layout.name(name))
            raise cannot("write", draft.final_path, error) from None

    def abandon(self, draft: Draft) -> None:
        """Removes a draft that will not be."""
        if draft.path:
            remove_tree(draft.path)

    def _claim(self, name: str, container_id: str) -> None:
        link = self._layout.name(name)
        for _ in range(3):
            try:
                os.symlink(container_id, link)
                return
            except FileExistsError:
                holder = self.holder(name)
                if holder and not self.release_if_stale(name, holder):
                    raise NameInUse(
                        f'Conflict. The container name "/{name}" is already in use by container "{holder}".'
                        " You have to remove (or rename) that container to be able to reuse that name."
                    ) from None
            except OSError as error:
                raise cannot("claim the name", link, error) from None
        raise NameInUse(f'Conflict. The container name "/{name}" is already in use')

    def holder(self, name: str) -> str | None:
        """The id that this name points to, whether or not its container exists."""
        try:
            return os.readlink(self._layout.name(name))
        except OSError:
            return None

    def release_if_stale(self, name: str, holder: str) -> bool:
        """Frees a name whose container is gone or never came; true when it is free now. A draft of a living
        process counts as a container.
        """
        if self.is_coming_or_there(holder):
            return False
        self._release(name, holder)
        return True

    def is_coming_or_there(self, container_id: str) -> bool:
        """Whether there is such a container, or somebody who lives is making it.

        Its draft is looked for between two looks at the final path, because it may arrive there meanwhile.
        """
        final = self._layout.container(container_id)
        if os.path.lexists(final):
            return True
        for entry in scratch.list_directory(self._layout.tmp):
            if entry.endswith("-container-" + container_id):
                return not scratch.is_abandoned(entry, f"{self._layout.tmp}/{entry}")
        return os.path.lexists(final)

    def _release(self, name: str, holder: str) -> None:
        """Unlinks a name only if it still points to `holder`: it is taken away first and looked at after."""
        link, gone = self._layout.name(name), scratch.new_path(self._layout, "name")
        try:
            os.rename(link, gone)
            if os.readlink(gone) != holder:
                os.link(gone, link, follow_symlinks=False)
        except OSError:
            pass  # not there any more, or claimed by a third: either way not ours
        scratch.discard_file(gone)

    # Finding and reading one.

    def ids(self) -> list[str]:
        """All ids, in no order. Raises StoreError."""
        return [entry for entry in scratch.list_directory(self._layout.containers) if is_hex(entry)]

    def resolve(self, name_or_id: str) -> str:
        """The id meant: a whole id first, then a name, then an id's unique beginning, as Docker decides.

        Raises NoSuchContainer; Conflict when the beginning is not unique.
        """
        text = name_or_id[1:] if name_or_id.startswith("/") else name_or_id
        if is_hex(text) and os.path.isdir(self._layout.container(text)):
            return text
        if text and "/" not in text and text not in (".", ".."):
            holder = self.holder(text)
            if holder and is_hex(holder) and os.path.isdir(self._layout.container(holder)):
                return holder
            if not text.strip("0123456789abcdef"):
                found = [one for one in self.ids() if one.startswith(text)]
                if len(found) == 1:
                    return found[0]
                if found:
                    raise Conflict(
                        f"multiple IDs found with provided prefix: {text}", "give more of the id, or the name"
                    )
        raise NoSuchContainer(f"No such container: {name_or_id}")

    def path(self, container_id: str) -> str:
        """The container's directory."""
        return self._layout.container(container_id)

    def read(self, container_id: str) -> dict[str, Any]:
        """container.json. Raises NoSuchContainer."""
        record = scratch.read_json(self._layout.container(container_id) + "/container.json")
        if record is None:
            raise NoSuchContainer(f"No such container: {container_id}")
        return record

    def write(self, container_id: str, record: dict[str, Any]) -> None:
        """Replaces container.json (rename, restart policy ...). Raises StoreError."""
        scratch.write_json(self._layout, self._layout.container(container_id) + "/container.json", record)

    def records(self) -> list[tuple[str, dict[str, Any]]]:
        """`(id, container.json)` of all containers; those that go away meanwhile are left out."""
        found = []
        for container_id in self.ids():
            record = scratch.read_json(self._layout.container(container_id) + "/container.json")
            if record is not None:
                found.append((container_id, record))
        return found

    # State.

    def state(self, container_id: str) -> dict[str, Any] | None:
        """state.json as it stands; None for a container that was never started."""
        return scratch.read_json(self._layout.container(container_id) + "/state.json")

    def status(self, container_id: str) -> tuple[str, dict[str, Any] | None]:
        """`created`, `running` or `exited`, with the state, believed only as far as the kernel confirms it.

        A supervisor that is gone makes a `running` state `exited` with code 137, here and on disk. A
        container that runs on another host stays `running`: its state's `host` tells.
        """
        state = self.state(container_id)
        if state is None:
            return CREATED, None
        if state.get("status") != RUNNING:
            return EXITED, state
        if state.get("host") != os.uname().nodename or is_alive(state):
            return RUNNING, state
        # The supervisor may have written its last word between our two looks.
        state = self.state(container_id)
        if state is None or state.get("status") != RUNNING:
            return (CREATED if state is None else EXITED), state
        return EXITED, self._record_loss(container_id, state)

    def _record_loss(self, container_id: str, state: dict[str, Any]) -> dict[str, Any]:
        state.update(
            status=EXITED,
            pid=0,
            exit_code=LOST_EXIT_CODE,
            finished_at=timestamp.now(),
            error=state.get("error") or "",
        )
        try:
            scratch.write_json(self._layout, self._layout.container(container_id) + "/state.json", state)
        except StoreError:
            pass  # removed meanwhile, or a full disk: what we tell the caller is true all the same
        return state

    # Changing and removing.

    def rename(self, container_id: str, name: str) -> None:
        """Gives the container another (checked) name: claims the new one, rewrites the record, frees the
        old one.

        Raises NameInUse, NoSuchContainer, StoreError.
        """
        record = self.read(container_id)
        old = str(record.get("Name", "")).lstrip("/")
        if old == name:
            raise Conflict("Renaming a container with the same name as its current name")
        self._claim(name, container_id)
        record["Name"] = "/" + name
        self.write(container_id, record)
        if old:
            self._release(old, container_id)

    def remove(self, container_id: str, flavour: Flavour | None = None) -> None:
        """Removes the container's directory and its name; the caller has seen to it that nothing runs.

        `flavour` names the ids that may own files of its upperdir. Raises NoSuchContainer.
        """
        record = scratch.read_json(self._layout.container(container_id) + "/container.json") or {}
        if not discard_tree(self._layout, self._layout.container(container_id), flavour):
            raise NoSuchContainer(f"No such container: {container_id}")
        if record.get("scratch"):
            remove_tree(str(record["scratch"]), flavour)
        name = str(record.get("Name", "")).lstrip("/")
        if name and self.holder(name) == container_id:
            self._release(name, container_id)


def is_alive(state: dict[str, Any]) -> bool:
    """Whether the supervisor that this state names runs on this host now."""
    pid = state.get("supervisor_pid")
    if not isinstance(pid, int) or pid <= 0 or state.get("boot_id") != scratch.boot_id():
        return False
    return _core.process_start(pid) == state.get("supervisor_start")
