"""`engine.networks`: the networks of the store, and the containers in them."""

from __future__ import annotations

import json
import os
import time

from duckweed.containers import membership, supervisor
from duckweed.containers.claim import Claim
from duckweed.containers.network import BRIDGE, GATE, is_named
from duckweed.errors import Conflict, StartError, Unsupported, WrongState
from duckweed.store import scratch
from duckweed.store.networks import MTU_OPTION, Network, Networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.containers.container import Container
    from duckweed.engine import Engine
    from duckweed.store.networks import Names

# How long somebody else may be making networks before that is an error.
_PATIENCE_S = 10.0


class NetworkCollection:
    """All networks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.store = Networks(engine.layout)

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnet: Sequence[str] | str = (),
        gateway: Sequence[str] | str = (),
        internal: bool = False,
        ipv6: bool = False,
        label: Mapping[str, str] | None = None,
        opt: Mapping[str, str] | None = None,
        mtu: int | str | None = None,
    ) -> Network:
        """Makes a network. Raises UsageError, Conflict."""
        options = dict(opt or {})
        if mtu is not None:
            options[MTU_OPTION] = str(mtu)
        return self.store.create(
            name,
            driver=driver,
            subnets=[subnet] if isinstance(subnet, str) else list(subnet),
            gateways=[gateway] if isinstance(gateway, str) else list(gateway),
            internal=internal,
            ipv6=ipv6,
            labels=label,
            options=options,
        )

    def get(self, name_or_id: str) -> Network:
        """One network. Raises NotFound."""
        return self.store.get(name_or_id)

    def list(self, filters: Mapping[str, Any] | None = None) -> list[Network]:
        """All networks, `bridge`, `host` and `none` among them."""
        return self.store.list(filters)

    def remove(self, name_or_id: str) -> str:
        """Removes a network that no container is in; its name. Raises NotFound, InUse."""
        return self.store.remove(name_or_id)

    def prune(self, filters: Mapping[str, Any] | None = None) -> Names:
        """Removes all networks that no container is in; their names."""
        return self.store.prune(filters)

    def inspect(self, name_or_id: str) -> dict[str, Any]:
        """`docker network inspect`'s dict. Raises NotFound."""
        network = self.store.get(name_or_id)
        containers: dict[str, Any] = {}
        for container in self._engine.containers.list():
            document = container.document
            entry = (document.get("networks") or {}).get(network.name)
            if entry is not None:
                containers[container.id] = _member(container.name, container.id, entry)
            elif network.name == BRIDGE and (document.get("HostConfig") or {}).get("NetworkMode") == BRIDGE:
                own = {"address": "10.0.2.100", "prefix": 24}
                containers[container.id] = _member(container.name, container.id, own)
        return {**network.attrs, "Containers": containers}

    def connect(
        self,
        name_or_id: str,
        container: str,
        *,
        alias: Sequence[str] = (),
        ip: str = "",
        ip6: str = "",
    ) -> None:
        """Makes a container a member of one more network; a running one must be in a named network already.
        Raises NotFound, Conflict, WrongState.
        """
        network, found = self.store.get(name_or_id), self._engine.containers.get(container)
        with Claim(found.directory):
            document, joined = self._changeable(found, network, "connect")
            if network.name in joined:
                raise Conflict(
                    f"endpoint with name {found.name} already exists in network {network.name}",
                    "it is a member already",
                )
            taken = {entry["interface"] for entry in joined.values()}
            interface = next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken)
            entry = membership.claim(
                self._engine,
                network.name,
                found.id,
                interface=interface,
                aliases=list(alias),
                ip=ip,
                ip6=ip6,
            )
            self._rewrite(found, document, {**joined, network.name: entry})
            if found.state().running:
                member = membership.membership(self._engine, network.name, entry)
                try:
                    self._ask(found, {"op": "connect", "network": member})
                except BaseException:
                    self._rewrite(found, document, joined)
                    self.store.release(network.name, found.id)
                    raise

    def disconnect(self, name_or_id: str, container: str, force: bool = False) -> None:
        """Takes a container out of a network. Raises NotFound, Conflict, WrongState."""
        network, found = self.store.get(name_or_id), self._engine.containers.get(container)
        with Claim(found.directory):
            document, joined = self._changeable(found, network, "disconnect")
            if network.name not in joined:
                raise Conflict(
                    f"container {found.id} is not connected to network {network.name}",
                    "`duckweed network inspect` shows who is",
                )
            entry = joined[network.name]
            if found.state().running:
                which = {"network": entry["id"], "name": network.name, "interface": entry["interface"]}
                self._ask(found, {"op": "disconnect", **which})
            self._rewrite(found, document, {name: joined[name] for name in joined if name != network.name})
            self.store.release(network.name, found.id)

    def _changeable(
        self, container: Container, network: Network, verb: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        document = dict(container.document)
        if network.is_built_in:
            raise Unsupported(
                f"cannot {verb} the network {network.name} of a container that is made",
                f"choose it at the start: `duckweed run --network {network.name}`",
            )
        mode = (document.get("HostConfig") or {}).get("NetworkMode") or ""
        link = document.get("link") or {}
        if not (is_named(mode) or mode == BRIDGE or (mode == GATE and link.get("name_server"))):
            raise Conflict(
                f"container {container.name} has the network `{mode}`, which cannot be combined with others",
                "make the container with `--network NAME`",
            )
        joined = dict(document.get("networks") or {})
        if container.state().running and not joined and not link.get("name_server"):
            raise WrongState(
                f"cannot {verb} {container.name} while it runs: it was started without a named network",
                f"`duckweed stop {container.name}`, {verb} it, and start it again",
            )
        return document, joined

    def _ask(self, container: Container, message: Mapping[str, Any]) -> None:
        """Has the supervisor do it; tried for a while, since it waits for nobody who may wait for it."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                supervisor.request(container.state().socket, message)
                return
            except supervisor.NobodyThere as error:
                raise WrongState(f"container {container.name} has just ended", "start it again") from error
            except StartError as error:
                if "(EAGAIN)" not in error.message or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _rewrite(self, container: Container, document: dict[str, Any], joined: dict[str, Any]) -> None:
        """container.json and config.json with other networks."""
        mode = next(iter(joined), GATE if (document.get("link") or {}).get("name_server") else BRIDGE)
        document["HostConfig"] = {**document["HostConfig"], "NetworkMode": mode}
        document["networks"] = joined
        path = f"{container.directory}/config.json"
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            config = json.load(file)
        block = json.loads(config["annotations"]["io.duckweed.container"])
        block["network"] = membership.annotation(self._engine, mode, document.get("link") or {}, joined)
        if "auto_remove" in block:
            names = [name for name in block["auto_remove"]["names"] if "/addresses/" not in name]
            block["auto_remove"]["names"] = names + membership.claims(self._engine, joined)
        config["annotations"]["io.duckweed.container"] = json.dumps(block)
        # The record first: the name server looks there, and a crash between leaves a network too many.
        self._engine.container_store.write(container.id, document)
        half = scratch.new_path(self._engine.layout, "config")
        with open(half, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(config, file)
        os.rename(half, path)


def _member(name: str, container_id: str, entry: Mapping[str, Any]) -> dict[str, str]:
    address6 = entry.get("address6")
    return {
        "Name": name,
        "EndpointID": container_id,
        "MacAddress": membership.mac_of(entry["address"]),
        "IPv4Address": f"{entry['address']}/{entry['prefix']}",
        "IPv6Address": f"{address6}/{entry['prefix6']}" if address6 else "",
    }
