"""Making a container: its directory is built in `tmp/` and renamed into place whole, then its name is
claimed.

The order is what makes it safe without locks. The directory first: it is the reference that keeps the
image's layers and the volumes, so they are looked for once more after it is there. The name second: a
name that points at no directory is then always a dead one.
"""

from __future__ import annotations

import json
import os
import time

from duckweed.containers import inspect, spec
from duckweed.containers.mount_points import is_empty_directory, resolve, wanted_mounts
from duckweed.containers.names import random_name
from duckweed.containers.network import ADDRESS, HOST, NONE, gate_of_none, has_link, hosts_file, resolver_file
from duckweed.containers.quantities import rfc3339
from duckweed.errors import NameInUse, StoreError, UsageError
from duckweed.oci.platform import Platform
from duckweed.store import scratch, within
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from duckweed.containers.options import Options
    from duckweed.containers.place import Place
    from duckweed.engine import Engine

_RANDOM_NAMES_TRIED = 20


def write_file(path: str, text: str) -> None:
    """Writes a file of a directory that is not yet in place: no rename, no fsync."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


class Plan:
    """A container on its way into the store: what was decided, before anything is written."""

    __slots__ = (
        "config",
        "draft",
        "engine",
        "image",
        "joined",
        "layout",
        "options",
        "place",
        "points",
        "running",
    )

    def __init__(self, engine: Engine, image: Any, options: Options, *, is_drafted: bool = True) -> None:
        self.engine = engine
        self.layout = engine.layout
        self.image = image
        self.options = options
        self.place: Place = engine.place(options.isolation)
        self.config: Mapping[str, Any] = image.run_config
        wanted = wanted_mounts(options.mounts, self.config.get("Volumes") or ())
        self.points = resolve(wanted, engine.volumes) if wanted else []
        self.running = self.place.scratch
        if options.scratch:
            from duckweed.containers.place import scratch_directory

            self.running = scratch_directory(engine, options.scratch)
        store = engine.container_store
        self.draft = store.draft() if is_drafted else store.reserve()
        # The networks it is in, with their claimed addresses (membership.py).
        self.joined: dict[str, dict[str, Any]] = {}
        if options.network != NONE or options.publish or options.publish_all:
            self._connect()

    def _connect(self) -> None:
        from duckweed.containers import membership
        from duckweed.containers.network import SHARED

        try:
            mode = membership.decide_mode(self.options, self.place)
            if mode.startswith(SHARED):
                mode = membership.resolve_shared(self.engine, mode)
            self.options.network = mode
            self.joined = membership.join(self.engine, self.options, mode, self.draft.id)
        except BaseException:
            self.give_up()
            raise

    @property
    def hostname(self) -> str:
        """The one asked for, the machine's on its own network, else the short id."""
        if self.options.hostname:
            return self.options.hostname
        return os.uname().nodename if self.options.network == "host" else self.draft.id[:12]

    @property
    def root_emulation(self) -> str:
        """What was asked for; `auto` is what this place needs."""
        asked = self.options.root_emulation
        return self.place.root_emulation if asked == "auto" else asked

    @property
    def own_address(self) -> str:
        """What the container's own name means to it."""
        for entry in self.joined.values():
            return str(entry["address"])
        return ADDRESS

    def rootfs_kind(self) -> str:
        """`host` for the built-in image, else what this place's storage allows."""
        return "host" if self.image.is_host else self.place.rootfs

    @property
    def written(self) -> str:
        """The directory of what the container writes, in a scratch directory; "" when it is its own."""
        running = self.running
        return f"{running}/containers/{self.draft.id}" if running else ""

    def auto_remove(self) -> dict[str, list[str]] | None:
        """What the supervisor removes after the end: the directory, anonymous volumes, the name."""
        if not self.options.rm:
            return None
        volumes = [os.path.dirname(point["Source"]) for point in self.points if point.get("Anonymous")]
        names = [self.layout.name(self.options.name)] if self.options.name else []
        if self.joined:
            from duckweed.containers import membership

            names += membership.claims(self.engine, self.joined)
        scratch_paths = [self.written] if self.written else []
        return {"paths": [self.draft.final_path, *scratch_paths, *volumes], "names": names}

    def spec_text(self, ephemeral: bool) -> str:
        """config.json."""
        directory = self.draft.final_path
        return json.dumps(
            spec.compose(
                self.options,
                self.config,
                container_id=self.draft.id,
                directory=directory,
                hostname=self.hostname,
                rootfs=spec.rootfs_of(
                    self.rootfs_kind(),
                    self.written or directory,
                    [*self.image.lower, self.layout.mountpoints],
                ),
                uid_map=self.place.uid_mappings,
                gid_map=self.place.gid_mappings,
                namespaces=self.place.namespaces,
                points=self.points,
                auto_remove=self.auto_remove(),
                texts=self.texts() if ephemeral else None,
                network=self.network(),
                ephemeral=ephemeral,
                root_emulation=self.root_emulation,
                isolation=self.place.isolation,
            )
        )

    def network(self) -> dict[str, Any] | None:
        """The annotation's `network`; None without a network that is ours to make."""
        if self.options.network in (NONE, HOST):
            return gate_of_none(self.place) if self.options.network == NONE else None
        from duckweed.containers import membership

        return membership.annotation(self.engine, self.options.network, self.link(), self.joined)

    def link(self) -> dict[str, Any]:
        """What was asked of the network: container.json's `link`."""
        options = self.options
        if not has_link(options.network):
            return {}
        from duckweed.containers import membership, ports

        wishes = membership.wishes(options, ports.exposed(self.config, options.expose))
        # Without interfaces every network is one of sockets that are told where they may go.
        if not self.place.link:
            wishes["socket_gate"] = True
            # A tracer sees who answers, so the container can ask a name server of its own, and join later.
            wishes["name_server"] = self.place.isolation == "trap"
        return wishes

    def record(self, ephemeral: bool) -> dict[str, Any]:
        """container.json."""
        options = self.options
        args = spec.process_args(self.config, options)
        environment = spec.configured_environment(self.config, options)
        return {
            "version": 1,
            "Id": self.draft.id,
            "Name": f"/{options.name}" if options.name else "",
            "Created": rfc3339(time.time_ns()),
            "Image": self.image.asked,
            "ImageID": self.image.id,
            "Path": args[0],
            "Args": args[1:],
            "Config": inspect.config_of(options, self.image.asked, self.config, environment, self.hostname),
            "HostConfig": inspect.host_config_of(options),
            "Mounts": self.points,
            "networks": self.joined,
            "link": self.link(),
            "layers": self.image.layers,
            "lower": self.image.lower,
            "rootfs": self.rootfs_kind(),
            "scratch": self.written,
            "idmap": self.place.idmap,
            "root_emulation": self.root_emulation,
            "isolation": self.place.isolation,
            "stop_signal": spec.stop_signal(options, self.config),
            "notes": [*self.place.notes, *options.notes],
            "warnings": list(options.notes),
            "ephemeral": scratch.owner() if ephemeral else None,
        }

    def write(self, ephemeral: bool) -> None:
        """Fills the draft: everything but container.json."""
        path = self.draft.path
        written = self.written or path
        if self.written:
            os.makedirs(written, 0o700, exist_ok=True)
        for name in ("upper", "work", *(("rootfs",) if self.rootfs_kind() == "copy" else ())):
            os.mkdir(f"{written}/{name}", 0o755)
        if not ephemeral:
            for name, text in self.texts().items():
                write_file(f"{path}/{name}", text)
        write_file(f"{path}/config.json", self.spec_text(ephemeral))

    def texts(self) -> dict[str, str]:
        """What stands in the container's /etc/resolv.conf, /etc/hostname and /etc/hosts."""
        options = self.options
        resolver = resolver_file(
            options.network,
            options.dns,
            options.dns_search,
            options.dns_option,
            has_name_server=self.place.isolation == "trap",
        )
        hosts = hosts_file(
            self.hostname, options.domainname, options.network, options.add_host, self.own_address
        )
        return {"resolv.conf": resolver, "hostname": self.hostname + "\n", "hosts": hosts}

    def check_still_there(self) -> None:
        """After the reference is in place: the layers, or a remover has won. Raises StoreError."""
        for tree in self.image.lower:
            if not os.path.isdir(tree):
                raise StoreError(f"image `{self.image.asked}` was removed while a container was made of it")

    def give_up(self) -> None:
        """Removes what was made for a container that will not be."""
        self.engine.container_store.abandon(self.draft)
        if self.written:
            remove_tree(self.written)
        self.engine.discard_volumes(self.points)
        if self.joined:
            from duckweed.containers import membership

            membership.leave(self.engine, self.joined, self.draft.id)


def check_platform(image: Any, wanted: str) -> None:
    """Raises UsageError, in Docker's words, when the image is for another platform than the one asked for."""
    if not wanted or image.is_host:
        return
    asked, found = Platform.parse(wanted), Platform(image.os, image.architecture)
    if (asked.os, asked.architecture) != (found.os, found.architecture):
        raise UsageError(
            f"image with reference {image.asked} was found but its platform "
            f"({found.os}/{found.architecture}) "
            f"does not match the specified platform ({asked.os}/{asked.architecture})"
        )


def create(engine: Engine, image: Any, options: Options) -> tuple[str, dict[str, Any]]:
    """A managed container of `image`, in the store and named; returns its id and container.json's document.

    Raises UsageError, NameInUse, StoreError; nothing is left then.
    """
    check_platform(image, options.platform)
    spec.process_args(image.run_config, options)  # the commonest mistake, found before anything is made
    given = options.name
    if given:
        refuse_taken(engine, given)
    plan = Plan(engine, image, options)
    try:
        copy_up(plan)
        document = _commit(plan, given)
    except BaseException:
        plan.give_up()
        raise
    try:
        plan.check_still_there()
    except StoreError:
        engine.container_store.remove(plan.draft.id, plan.place.layers)
        engine.discard_volumes(plan.points)
        raise
    return plan.draft.id, document


def _commit(plan: Plan, given: str) -> dict[str, Any]:
    store, options = plan.engine.container_store, plan.options
    for attempt in range(_RANDOM_NAMES_TRIED):
        if not given:
            options.name = random_name() + (str(os.urandom(1)[0] % 10) if attempt else "")
        if attempt == 0:
            plan.write(ephemeral=False)
        else:
            write_file(f"{plan.draft.path}/config.json", plan.spec_text(False))
        document = plan.record(ephemeral=False)
        try:
            store.commit(plan.draft, options.name, document)
            return document
        except NameInUse:
            if given:
                raise
    raise StoreError("cannot find a free container name", "name it with `--name`")


def refuse_taken(engine: Engine, name: str) -> None:
    """An early answer, before volumes are made; the claim decides."""
    from duckweed.containers.container import Container

    store = engine.container_store
    holder = store.holder(name)
    if holder:
        Container(engine, holder).state()  # one that died with its supervisor may have asked to be removed
    if holder and not store.release_if_stale(name, holder):
        raise NameInUse(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


def copy_up(plan: Plan) -> None:
    """Fills empty volumes with what the image has at their mount points, as Docker does at create. Raises
    StoreError.
    """
    if plan.image.is_host:
        return
    from duckweed.containers.image_tree import sources_of

    for point in plan.points:
        if point["Type"] != "volume" or point.get("NoCopy") or not is_empty_directory(point["Source"]):
            continue
        sources = sources_of(plan.image.lower, point["Destination"])
        if sources:
            uid_map, gid_map = plan.place.map_texts()
            within.run(uid_map, gid_map, "copy-up", *sources, point["Source"])
