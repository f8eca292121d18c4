"""Volumes: directories that outlive containers.

A volume is made whole in tmp/ and renamed into place, so of two makers one wins and both get the same
volume. Removing follows the store's rule: taken away first, then every container is asked, then deleted or
put back.
"""

from __future__ import annotations

import os
import re

from duckweed.errors import DuckweedError, InUse, NoSuchVolume, Unsupported, UsageError
from duckweed.oci import timestamp
from duckweed.oci.digest import is_hex
from duckweed.store import scratch
from duckweed.store.layout import cannot
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from duckweed.store.layers import Flavour
    from duckweed.store.layout import Layout

    Names = list[str]
    Users = dict[str, list[str]]

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_FILTERS = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_FILTERS = frozenset(("all", "label", "label!"))


class Volume:
    """One volume: `name`, `attrs` (docker's volume inspect dict), `mountpoint` (what containers get)."""

    __slots__ = ("_store", "attrs", "name")

    def __init__(self, store: VolumeStore, name: str, attrs: dict[str, Any]) -> None:
        self._store = store
        self.name = name
        self.attrs = attrs

    @property
    def mountpoint(self) -> str:
        """The directory with the data."""
        return str(self.attrs["Mountpoint"])

    def remove(self, force: bool = False) -> None:
        """Removes the volume; InUse while a container refers to it."""
        self._store.remove(self.name, force)

    def __repr__(self) -> str:
        return f"<Volume {self.name}>"


class VolumeStore:
    """The volumes below one root. `flavour` finds out, when needed, whose ids may own files in them."""

    __slots__ = ("_flavour", "_layout")

    def __init__(self, layout: Layout, flavour: Callable[[], Flavour | None] = lambda: None) -> None:
        self._layout = layout
        self._flavour = flavour

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        opts: Mapping[str, str] | None = None,
    ) -> Volume:
        """Makes a volume, or returns the one of that name. Raises UsageError, Unsupported, StoreError."""
        if driver != "local":
            raise Unsupported(
                f"cannot make a volume: there is no volume driver `{driver}`",
                "leave `--driver` out",
                exit_code=1,
            )
        labels = dict(labels or {})
        if not name:
            name = os.urandom(32).hex()
            labels.setdefault(ANONYMOUS_LABEL, "")
        check_name(name)
        known = self._read(name)
        if known is None:
            self._layout.ensure()
            self._make(name, labels, dict(opts or {}), _device(opts or {}))
            known = self._read(name)
        if known is None:
            raise NoSuchVolume(f"get {name}: no such volume")
        return known

    def _make(self, name: str, labels: dict[str, str], opts: dict[str, str], device: str | None) -> None:
        work = scratch.new_directory(self._layout, "volume")
        final = self._layout.volume(name)
        document = {
            "CreatedAt": timestamp.now(),
            "Driver": "local",
            "Labels": labels or None,
            "Mountpoint": device or final + "/_data",
            "Name": name,
            "Options": opts or None,
            "Scope": "local",
        }
        try:
            # 0755 as Docker's: the container's users must get in; the store's root keeps others out.
            os.mkdir(work + "/_data", 0o755)
            os.chmod(work + "/_data", 0o755)
            scratch.write_json(self._layout, work + "/volume.json", document, durable=True)
            os.rename(work, final)
        except OSError as error:
            remove_tree(work)
            if not os.path.isdir(final):  # else another maker was first, and its volume is ours too
                raise cannot("make the volume", final, error) from None

    def _read(self, name: str) -> Volume | None:
        attrs = scratch.read_json(self._layout.volume(name) + "/volume.json")
        return Volume(self, name, attrs) if attrs is not None and "Mountpoint" in attrs else None

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises NoSuchVolume."""
        volume = self._read(name) if _NAME.match(name) else None
        if volume is None:
            raise NoSuchVolume(f"get {name}: no such volume", "see `duckweed volume ls`")
        return volume

    def list(self, filters: Mapping[str, Any] | None = None) -> list[Volume]:
        """The volumes that match, by name. Raises UsageError for a filter that there is not."""
        from duckweed.store.image_filter import check_names, has_labels, truth, values

        filters = filters or {}
        check_names(filters, _FILTERS)
        names = (name for name in sorted(scratch.list_directory(self._layout.volumes)) if _NAME.match(name))
        found = [volume for volume in map(self._read, names) if volume is not None]
        dangling = truth(filters, "dangling")
        if dangling is not None:
            used = self.users()
            found = [volume for volume in found if (volume.name not in used) == dangling]
        if values(filters, "driver"):
            found = [volume for volume in found if "local" in values(filters, "driver")]
        for text in values(filters, "name"):
            found = [volume for volume in found if text in volume.name]
        return [
            volume
            for volume in found
            if has_labels(volume.attrs.get("Labels") or {}, values(filters, "label"))
        ]

    def users(self) -> Users:
        """Which containers refer to which volume: ids by volume name."""
        used: Users = {}
        for container_id in scratch.list_directory(self._layout.containers):
            if not is_hex(container_id):
                continue
            record = scratch.read_json(f"{self._layout.containers}/{container_id}/container.json") or {}
            for mount in record.get("Mounts") or ():
                if isinstance(mount, dict) and mount.get("Type") == "volume":
                    used.setdefault(str(mount.get("Name")), []).append(container_id)
        return used

    def size(self, name: str) -> int:
        """Bytes of the files in a volume's data."""
        from duckweed.store.usage import tree_bytes

        return tree_bytes(self._layout.volume(name) + "/_data", self._flavour)

    def remove(self, name: str, force: bool = False) -> None:
        """Removes a volume; `force` forgives a missing one. Raises NoSuchVolume, InUse."""
        if self._read_or_forgive(name, force) is None:
            return
        users = self.users().get(name)
        if users is None:
            gone = scratch.new_directory(self._layout, "goneVolume")
            try:
                os.rename(self._layout.volume(name), f"{gone}/{name}")
            except FileNotFoundError:
                pass
            except OSError as error:
                remove_tree(gone)
                raise cannot("remove the volume", self._layout.volume(name), error) from None
            users = self.finish(gone)
        if users:
            raise InUse(
                f"remove {name}: volume is in use - [{', '.join(users)}]",
                f"remove the container first: `duckweed rm {users[0][:12]}`",
            )

    def _read_or_forgive(self, name: str, force: bool) -> Volume | None:
        try:
            return self.get(name)
        except NoSuchVolume:
            if force:
                return None
            raise

    def finish(self, gone: str) -> Names:
        """The second half of `remove`, also run for a remover that died between: puts back what is in use,
        deletes the rest.

        Returns the containers that use what was put back.
        """
        found: Names = []
        used = self.users()
        for name in scratch.list_directory(gone):
            if name in used:
                try:
                    os.rename(f"{gone}/{name}", self._layout.volume(name))
                    found += used[name]
                    continue
                except OSError:
                    pass  # made again meanwhile, and that one is in use
            _remove_data(f"{gone}/{name}", self._flavour)
        remove_tree(gone)
        return found

    def prune(self, all: bool = False, filters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Removes unused anonymous (or all unused) volumes: `{"VolumesDeleted", "SpaceReclaimed"}`."""
        from duckweed.store.image_filter import check_names, has_labels, truth, values

        filters = filters or {}
        check_names(filters, _PRUNE_FILTERS)
        every = all or truth(filters, "all") is True
        deleted, reclaimed = [], 0
        used = self.users()
        for volume in self.list():
            labels = volume.attrs.get("Labels") or {}
            if volume.name in used or not (every or ANONYMOUS_LABEL in labels):
                continue
            if not has_labels(labels, values(filters, "label")):
                continue
            if any(has_labels(labels, [text]) for text in values(filters, "label!")):
                continue
            size = self.size(volume.name)
            try:
                self.remove(volume.name)
            except DuckweedError:
                continue
            deleted.append(volume.name)
            reclaimed += size
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}


def _remove_data(path: str, flavour: Callable[[], Flavour | None]) -> None:
    if not remove_tree(path):
        remove_tree(path, flavour())


def check_name(name: str) -> None:
    """Raises UsageError, in Docker's words, unless this can be a volume's name."""
    if len(name) == 1:
        raise UsageError(
            "volume name is too short, names should be at least two alphanumeric characters", exit_code=1
        )
    if not _NAME.match(name) or len(name) > 200:
        raise UsageError(
            f'create {name[:80]}: "{name[:80]}" includes invalid characters for a local volume name,'
            ' only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed.'
            " If you intended to pass a host directory, use absolute path",
            exit_code=1,
        )


def _device(opts: Mapping[str, str]) -> str | None:
    """The directory that `type=none,o=bind,device=/dir` names. Raises UsageError; Unsupported for real
    mounts.
    """
    if not opts:
        return None
    for key in opts:
        if key not in ("type", "o", "device"):
            raise UsageError(f'invalid option: "{key}"', exit_code=1)
    words = [word for word in opts.get("o", "").split(",") if word]
    if opts.get("type", "none") not in ("none", "") or not {"bind", "rbind"} & set(words):
        raise Unsupported(
            f"cannot mount a `{opts.get('type', 'none')}` volume: mounting needs root",
            "use `--opt type=none --opt o=bind --opt device=DIRECTORY`, or `--tmpfs` for memory",
            exit_code=1,
        )
    device = opts.get("device", "")
    if not device.startswith("/") or not os.path.isdir(device):
        raise UsageError(
            f"cannot make the volume: `{device}` is not a directory, as an absolute path", exit_code=1
        )
    return device
