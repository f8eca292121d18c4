"""Networks: what `duckweed network create` makes, and who has which address in it.

`networks/<name>/network.json` is the network, `networks/<name>/addresses/<address>` a link to the id of the
container that has the address: making the link is the claim, so no two containers get the same one. The
network itself lives only while a member runs, in the kernel (rust/runtime, `network::members`).
"""

from __future__ import annotations

import os
import re

from duckweed.errors import Conflict, DuckweedError, InUse, NotFound, StoreError, UsageError
from duckweed.oci import timestamp
from duckweed.store import scratch
from duckweed.store.layout import cannot
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from duckweed.store.layout import Layout

    Names = list[str]  # in the class that has a `list`, the word means that

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_BUILT_IN = ("bridge", "host", "none")
_FILTERS = frozenset(("name", "id", "driver", "label", "type"))
_PRUNE_FILTERS = frozenset(("label", "label!"))
MTU_OPTION = "com.docker.network.driver.mtu"


class Network:
    """One network: `name`, `id`, `attrs` (docker inspect's dict, without its containers)."""

    __slots__ = ("attrs", "id", "name")

    def __init__(self, attrs: dict[str, Any]) -> None:
        self.attrs = attrs
        self.name: str = attrs["Name"]
        self.id: str = attrs["Id"]

    def __repr__(self) -> str:
        return f"<Network {self.name}>"

    @property
    def is_built_in(self) -> bool:
        return self.name in _BUILT_IN

    def subnet(self, version: int) -> Any:
        """The `ipaddress` network of this IP version, or None."""
        import ipaddress

        for config in self.attrs["IPAM"]["Config"]:
            found = ipaddress.ip_network(config["Subnet"])
            if found.version == version:
                return found
        return None

    def gateway(self, version: int) -> str:
        """The address that is nobody's but looks like a gateway's."""
        import ipaddress

        for config in self.attrs["IPAM"]["Config"]:
            if ipaddress.ip_network(config["Subnet"]).version == version:
                return str(config.get("Gateway", ""))
        return ""

    @property
    def mtu(self) -> int:
        """The largest packet; 0 for the usual."""
        return int(self.attrs["Options"].get(MTU_OPTION, "0"))


class Networks:
    """All networks of a store."""

    __slots__ = ("_layout",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def path(self, name: str) -> str:
        """A network's directory."""
        return f"{self._layout.root}/networks/{name}"

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: list[str] | None = None,
        gateways: list[str] | None = None,
        internal: bool = False,
        ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Network:
        """Makes a network. Raises UsageError, Conflict, StoreError."""
        name = check_name(name)
        if name in _BUILT_IN or name == "gate":
            raise Conflict(
                f"operation is not permitted on predefined {name} network", "choose another name", exit_code=1
            )
        if driver != "bridge":
            raise UsageError(
                f'plugin "{driver}" not found',
                "the driver `bridge` is the only one: leave `--driver` out",
                exit_code=1,
            )
        given = dict(options or {})
        mtu = given.get(MTU_OPTION, "1500")
        if not mtu.isdigit() or not 576 <= int(mtu) <= 65535:
            raise UsageError(f"invalid mtu `{mtu}`: it is a number from 576 to 65535", exit_code=1)
        document = {
            "Name": name,
            "Id": os.urandom(32).hex(),
            "Created": timestamp.now(),
            "Scope": "local",
            "Driver": driver,
            "EnableIPv4": True,
            "EnableIPv6": ipv6,
            "IPAM": {
                "Driver": "default",
                "Options": {},
                "Config": self._address_ranges(subnets or [], gateways or [], ipv6),
            },
            "Internal": internal,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Options": given,
            "Labels": dict(labels or {}),
        }
        self._put(name, document)
        return Network(document)

    def _put(self, name: str, document: dict[str, Any]) -> None:
        self._layout.ensure()
        half = scratch.new_directory(self._layout, "network")
        try:
            os.mkdir(half + "/addresses")
            scratch.write_json(self._layout, half + "/network.json", document)
            os.makedirs(os.path.dirname(self.path(name)), mode=0o700, exist_ok=True)
            os.rename(half, self.path(name))
        except OSError as error:
            remove_tree(half)
            if os.path.isdir(self.path(name)):
                raise Conflict(
                    f"network with name {name} already exists",
                    "choose another name, or remove that one",
                    exit_code=1,
                ) from None
            raise cannot("make the network", self.path(name), error) from None

    def _address_ranges(self, subnets: list[str], gateways: list[str], ipv6: bool) -> list[dict[str, str]]:
        import ipaddress

        nets = [_subnet(text) for text in subnets]
        if not any(net.version == 4 for net in nets):
            nets.insert(0, self._free_subnet())
        if ipv6 and not any(net.version == 6 for net in nets):
            # A unique local prefix, RFC 4193: 40 random bits.
            digits = "fd" + os.urandom(5).hex()
            nets.append(ipaddress.ip_network(f"{digits[:4]}:{digits[4:8]}:{digits[8:]}::/64"))
        result = []
        for net in nets:
            chosen = next((text for text in gateways if _inside(text, net)), str(net.network_address + 1))
            result.append({"Subnet": str(net), "Gateway": chosen})
        for text in gateways:
            if not any(_inside(text, net) for net in nets):
                raise UsageError(f"no matching subnet for gateway {text}", exit_code=1)
        return result

    def _free_subnet(self) -> Any:
        import ipaddress

        taken = [network.subnet(4) for network in self.list() if not network.is_built_in]
        for number in range(256):
            net = ipaddress.ip_network(f"10.89.{number}.0/24")
            if not any(other is not None and other.overlaps(net) for other in taken):
                return net
        raise StoreError("all predefined address pools have been fully subnetted", "name one with `--subnet`")

    def get(self, name_or_id: str) -> Network:
        """By name, id, or an id's beginning. Raises NotFound, Conflict."""
        if name_or_id in _BUILT_IN:
            return _built_in(name_or_id)
        if _NAME.match(name_or_id):
            document = scratch.read_json(self.path(name_or_id) + "/network.json")
            if document is not None:
                return Network(document)
        found = [one for one in self.list() if name_or_id and one.id.startswith(name_or_id)]
        if len(found) == 1:
            return found[0]
        if found:
            raise Conflict(f"multiple IDs found with provided prefix: {name_or_id}", "give more of the id")
        raise NotFound(f"network {name_or_id} not found", f"make it: `duckweed network create {name_or_id}`")

    def list(self, filters: Mapping[str, Any] | None = None) -> list[Network]:
        """All networks, by name."""
        from duckweed.store.image_filter import check_names, has_labels, values

        filters = filters or {}
        check_names(filters, _FILTERS)
        found = [_built_in(name) for name in _BUILT_IN]
        for name in scratch.list_directory(f"{self._layout.root}/networks"):
            document = scratch.read_json(self.path(name) + "/network.json")
            if document is not None:
                found.append(Network(document))
        result = []
        for network in sorted(found, key=lambda network: network.name):
            kind = "builtin" if network.is_built_in else "custom"
            matches = (
                any(text in network.name for text in values(filters, "name") or [""])
                and any(network.id.startswith(text) for text in values(filters, "id") or [""])
                and network.attrs["Driver"] in (values(filters, "driver") or [network.attrs["Driver"]])
                and kind in (values(filters, "type") or [kind])
                and has_labels(network.attrs["Labels"], values(filters, "label"))
            )
            if matches:
                result.append(network)
        return result

    def remove(self, name_or_id: str) -> str:
        """Removes a network that nobody is in; its name. Raises NotFound, InUse, Conflict."""
        network = self.get(name_or_id)
        if network.is_built_in:
            raise Conflict(
                f"{network.name} is a pre-defined network and cannot be removed",
                "it is always there",
                exit_code=1,
            )
        users = self.members(network.name)
        if users:
            raise InUse(
                f"error while removing network: network {network.name} has active endpoints "
                f"({', '.join(sorted(set(one[:12] for one in users.values())))})",
                "remove its containers, or disconnect them",
            )
        gone = scratch.new_path(self._layout, "goneNetwork")
        try:
            os.rename(self.path(network.name), gone)
        except OSError as error:
            raise cannot("remove the network", self.path(network.name), error) from None
        remove_tree(gone)
        return network.name

    def prune(self, filters: Mapping[str, Any] | None = None) -> Names:
        """Removes the networks that nobody is in; their names."""
        from duckweed.store.image_filter import check_names, has_labels, values

        filters = filters or {}
        check_names(filters, _PRUNE_FILTERS)
        removed = []
        for network in self.list():
            labels = network.attrs["Labels"]
            if network.is_built_in or not has_labels(labels, values(filters, "label")):
                continue
            if any(has_labels(labels, [text]) for text in values(filters, "label!")):
                continue
            try:
                removed.append(self.remove(network.name))
            except DuckweedError:
                continue
        return removed

    # Addresses.

    def members(self, name: str) -> dict[str, str]:
        """Container ids by address; what is left of containers that are gone is swept on the way."""
        directory = self.path(name) + "/addresses"
        found = {}
        for address in scratch.list_directory(directory):
            try:
                holder = os.readlink(f"{directory}/{address}")
            except OSError:
                continue
            if self._is_there(holder):
                found[address] = holder
            else:
                scratch.discard_file(f"{directory}/{address}")
        return found

    def _is_there(self, container_id: str) -> bool:
        """A container, or a draft of a living process."""
        if os.path.lexists(self._layout.container(container_id)):
            return True
        ending = "-container-" + container_id
        drafts = scratch.list_directory(self._layout.tmp)
        return any(entry.endswith(ending) and not scratch.is_stale(entry) for entry in drafts)

    def claim(self, network: Network, container_id: str, version: int, wanted: str = "") -> str:
        """An address for a container, `wanted` or the first that is free. Raises UsageError, StoreError."""
        net = network.subnet(version)
        if net is None:
            return ""
        if wanted:
            if not _inside(wanted, net):
                raise UsageError(
                    f"invalid config for network {network.name}: "
                    f"no configured subnet contains IP address {wanted}"
                )
            if not self._link(network, wanted, container_id):
                raise Conflict(f"Address already in use: {wanted}", "choose another, or leave it to duckweed")
            return wanted
        taken = {network.gateway(version), str(net.network_address)}
        if version == 4:
            taken.add(str(net.broadcast_address))
        taken.update(self.members(network.name))
        for number in range(1, min(net.num_addresses, 1 << 16)):
            address = str(net.network_address + number)
            if address not in taken and self._link(network, address, container_id):
                return address
        raise StoreError(f"no available IPv{version} addresses on the network {network.name} ({net})")

    def _link(self, network: Network, address: str, container_id: str) -> bool:
        try:
            os.symlink(container_id, f"{self.path(network.name)}/addresses/{address}")
        except FileExistsError:
            if address in self.members(network.name):
                return False
            try:
                os.symlink(container_id, f"{self.path(network.name)}/addresses/{address}")
            except OSError:
                return False
        except OSError as error:
            raise cannot("claim an address in", self.path(network.name), error) from None
        return True

    def release(self, name: str, container_id: str) -> None:
        """Gives back all addresses of a container; nothing when it has none."""
        directory = self.path(name) + "/addresses"
        for address in scratch.list_directory(directory):
            try:
                if os.readlink(f"{directory}/{address}") == container_id:
                    os.unlink(f"{directory}/{address}")
            except OSError:
                continue


def _built_in(name: str) -> Network:
    config = [{"Subnet": "10.0.2.0/24", "Gateway": "10.0.2.2"}] if name == "bridge" else []
    driver = {"bridge": "bridge", "host": "host", "none": "null"}[name]
    return Network(
        {
            "Name": name,
            "Id": name.encode().hex().ljust(64, "0"),
            "Created": "1970-01-01T00:00:00Z",
            "Scope": "local",
            "Driver": driver,
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": config},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Options": {},
            "Labels": {},
        }
    )


def check_name(name: str) -> str:
    """The name, if it can be a network's. Raises UsageError."""
    if not _NAME.match(name) or len(name) > 200:
        raise UsageError(
            f"invalid network name {name[:80]!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed", exit_code=1
        )
    return name


def _subnet(text: str) -> Any:
    import ipaddress

    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(f"invalid subnet {text}: write it as ADDRESS/BITS", exit_code=1) from None
    if net.num_addresses < 4:
        raise UsageError(f"invalid subnet {text}: it has no room for containers", exit_code=1)
    return net


def _inside(text: str, net: Any) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(text) in net
    except ValueError:
        raise UsageError(f"invalid IP address: {text}", exit_code=1) from None
