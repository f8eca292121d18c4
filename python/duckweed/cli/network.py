"""`network create`, `ls`, `rm`, `prune`, `connect` and `disconnect` (`network inspect` is with the other
inspects).
"""

from __future__ import annotations

import sys

from duckweed.cli import render
from duckweed.cli.failure import each
from duckweed.cli.parse import BOOL, FILTER, INT, LIST, MAP, STRING, Call, Flag, filters_of, verb
from duckweed.cli.prompt import is_confirmed
from duckweed.cli.rows import pairs, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADERS = {
    "CreatedAt": "CREATED AT",
    "Driver": "DRIVER",
    "ID": "NETWORK ID",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "Name": "NAME",
    "Scope": "SCOPE",
}
_COLUMNS = ("ID", "Name", "Driver", "Scope")
_RAW = (("network_id", "ID"), ("name", "Name"), ("driver", "Driver"), ("scope", "Scope"))


@verb(
    "network create",
    "[OPTIONS] NETWORK",
    flags=(
        Flag("attachable", "", BOOL, "Without effect: every container can be connected", hidden=True),
        Flag("driver", "d", STRING, "Network driver (default bridge, the only one)"),
        Flag("gateway", "", LIST, "Address that looks like the gateway's"),
        Flag("internal", "", BOOL, "No way out of the network"),
        Flag("ipv6", "", BOOL, "Addresses of IPv6 too"),
        Flag("label", "", LIST, "Set a label (NAME=VALUE)"),
        Flag("mtu", "", INT, "Largest packet (default 1500)"),
        Flag("opt", "o", MAP, "Option of the driver (com.docker.network.driver.mtu=N)"),
        Flag("subnet", "", LIST, "Addresses of the network (ADDRESS/BITS)"),
    ),
    at_least=1,
    at_most=1,
)
def create(call: Call) -> int:
    """Make a network

    Containers in it reach each other by name; those of other networks do not. Its id is printed.
    """
    network = call.engine.networks.create(
        call.arguments[0],
        driver=call.get("driver", "bridge"),
        subnet=call.get("subnet", ()),
        gateway=call.get("gateway", ()),
        internal=call.get("internal", False),
        ipv6=call.get("ipv6", False),
        label=pairs(call.get("label", ())),
        opt=pairs(call.get("opt", ())),
        mtu=call.get("mtu"),
    )
    sys.stdout.write(f"{network.id}\n")
    return 0


@verb(
    "network ls",
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", FILTER, "Only networks that match (driver=, id=, label=, name=, type=)"),
        Flag("format", "", STRING, "table, table TEMPLATE, json, raw or a Go template"),
        Flag("no-trunc", "", BOOL, "Do not shorten ids"),
        Flag("quiet", "q", BOOL, "Show ids only"),
    ),
    at_most=0,
)
def ls(call: Call) -> int:
    """List networks"""
    networks = call.engine.networks.list(filters_of(call) or None)
    template = call.get("format", "")
    rows = [row(network.attrs, full=call.get("no_trunc", False)) for network in networks]
    if call.get("quiet") and not template:
        sys.stdout.write("".join(f"{line['ID']}\n" for line in rows))
        return 0
    show(rows, template, HEADERS, _COLUMNS, _RAW)
    return 0


def row(attrs: dict[str, Any], *, full: bool = False) -> dict[str, Any]:
    """The fields of one network as `--format` knows them."""
    labels = attrs.get("Labels") or {}
    return {
        "CreatedAt": attrs["Created"],
        "Driver": attrs["Driver"],
        "ID": attrs["Id"] if full else attrs["Id"][:12],
        "IPv4": "true",
        "IPv6": str(attrs["EnableIPv6"]).lower(),
        "Internal": str(attrs["Internal"]).lower(),
        "LabelMap": labels,
        "Labels": render.labels_text(labels),
        "Name": attrs["Name"],
        "Scope": attrs["Scope"],
    }


@verb(
    "network rm",
    "[OPTIONS] NETWORK [NETWORK...]",
    flags=(Flag("force", "f", BOOL, "Forgive missing networks"),),
    at_least=1,
    completes="network",
)
def rm(call: Call) -> int:
    """Remove networks that no container is in"""
    from duckweed.errors import NotFound

    def remove_one(name: str) -> str:
        try:
            return str(call.engine.networks.remove(name))
        except NotFound:
            if not call.get("force"):
                raise
            return name

    return each(call.arguments, remove_one)


@verb(
    "network prune",
    "[OPTIONS]",
    flags=(
        Flag("filter", "", FILTER, "Only networks that match (label=NAME[=VALUE])"),
        Flag("force", "f", BOOL, "Do not ask"),
    ),
    at_most=0,
)
def prune(call: Call) -> int:
    """Remove all networks that no container is in"""
    if not is_confirmed(call, "This will remove all custom networks not used by at least one container."):
        return 0
    removed = call.engine.networks.prune(filters_of(call) or None)
    if removed:
        sys.stdout.write("Deleted Networks:\n" + "".join(f"{name}\n" for name in removed) + "\n")
    return 0


@verb(
    "network connect",
    "[OPTIONS] NETWORK CONTAINER",
    flags=(
        Flag("alias", "", LIST, "One more name of the container in the network"),
        Flag("ip", "", STRING, "Address in the network (IPv4)"),
        Flag("ip6", "", STRING, "Address in the network (IPv6)"),
    ),
    at_least=2,
    at_most=2,
    completes="network",
)
def connect(call: Call) -> int:
    """Make a stopped container a member of one more network"""
    network, container = call.arguments
    call.engine.networks.connect(
        network,
        container,
        alias=call.get("alias", ()),
        ip=call.get("ip", ""),
        ip6=call.get("ip6", ""),
    )
    return 0


@verb(
    "network disconnect",
    "[OPTIONS] NETWORK CONTAINER",
    flags=(Flag("force", "f", BOOL, "Without effect: nothing holds a stopped container in a network"),),
    at_least=2,
    at_most=2,
    completes="network",
)
def disconnect(call: Call) -> int:
    """Take a stopped container out of a network"""
    network, container = call.arguments
    call.engine.networks.disconnect(network, container, force=call.get("force", False))
    return 0
