"""The flags of `run` and `create`: one line each, in the words `--help` shows.

A flag of Docker's that this release cannot honour is in `REFUSED` with what to do instead: it is understood,
so that the answer is about the flag and not about the spelling, and never passed over in silence.
"""

from __future__ import annotations

from duckweed.cli.parse import BOOL, INT, LIST, MAP, STRING, Flag
from duckweed.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CREATE_FLAGS = (
    Flag("add-host", "", LIST, "Add a line to /etc/hosts (name:address)"),
    Flag("allow-host-loopback", "", BOOL, "The gateway leads to this machine's loopback"),
    Flag("attach", "a", LIST, "Attach only to these of stdin, stdout and stderr"),
    Flag("cap-add", "", LIST, "Add Linux capabilities"),
    Flag("cap-drop", "", LIST, "Drop Linux capabilities"),
    Flag("cidfile", "", STRING, "Write the container's id to this file", completes="file"),
    Flag("dns", "", LIST, "Name servers of the container"),
    Flag("dns-opt", "", LIST, "Resolver options", key="dns_option", hidden=True),
    Flag("dns-option", "", LIST, "Resolver options"),
    Flag("dns-search", "", LIST, "Domains in which short names are looked up"),
    Flag("domainname", "", STRING, "NIS domain name of the container"),
    Flag("entrypoint", "", STRING, "Program to run instead of the image's entrypoint"),
    Flag("env", "e", LIST, "Set an environment variable (NAME=VALUE, or NAME to pass yours on)"),
    Flag("env-file", "", LIST, "Read environment variables from a file", completes="file"),
    Flag("expose", "", LIST, "Note a port or a range of ports as used by the container"),
    Flag("group-add", "", LIST, "Add groups to the container's user"),
    Flag("hostname", "h", STRING, "Host name of the container"),
    Flag("init", "", BOOL, "Run an init that forwards signals and reaps zombies"),
    Flag("interactive", "i", BOOL, "Keep stdin open"),
    Flag("ip", "", STRING, "Address in the network (IPv4)"),
    Flag("ip6", "", STRING, "Address in the network (IPv6)"),
    Flag("isolation", "", STRING, "How containers are held apart (auto|userns|trap)"),
    Flag("label", "l", LIST, "Set a label (NAME=VALUE)"),
    Flag("label-file", "", LIST, "Read labels from a file", completes="file"),
    Flag("log-driver", "", STRING, "Where output is kept (json-file|none)"),
    Flag("log-opt", "", LIST, "Options of the log driver (max-size, max-file)"),
    Flag("mount", "", "mount", "Mount a volume, a host path or a tmpfs (type=...,source=...,target=...)"),
    Flag("name", "", STRING, "Name of the container"),
    Flag("net", "", LIST, "Network of the container", key="network", hidden=True),
    Flag("network", "", LIST, "Network of the container (bridge|none|host|container:NAME|a network's name)"),
    Flag("network-alias", "", LIST, "One more name of the container in its network"),
    Flag("platform", "", STRING, "Platform wanted of an image with several"),
    Flag("privileged", "", BOOL, "All capabilities of the container's user namespace, nothing masked"),
    Flag("publish", "p", LIST, "Publish a port of the container (host:container)"),
    Flag("publish-all", "P", BOOL, "Publish all exposed ports"),
    Flag("pull", "", STRING, "When to pull the image (always|missing|never)"),
    Flag("quiet", "q", BOOL, "Do not show progress of a pull"),
    Flag("read-only", "", BOOL, "Mount the root file system read-only"),
    Flag("remap-ports", "", BOOL, "Publish on another port when one cannot be had"),
    Flag("restart", "", STRING, "What to do when the container ends (no)"),
    Flag(
        "root-emulation",
        "",
        STRING,
        "Users and owners for a container with one uid (auto|off|owners|full)",
    ),
    Flag("rm", "", BOOL, "Remove the container and its anonymous volumes when it ends"),
    Flag("scratch", "", STRING, "Directory for what the container writes (default: the store, if it can)"),
    Flag("security-opt", "", LIST, "Security options (no-new-privileges, seccomp=unconfined, seccomp=FILE)"),
    Flag("shm-size", "", "bytes", "Size of /dev/shm"),
    Flag("stop-signal", "", STRING, "Signal that asks the container to stop"),
    Flag("stop-timeout", "", INT, "Seconds until a container asked to stop is killed"),
    Flag("tmpfs", "", LIST, "Mount a tmpfs (path[:options])"),
    Flag("tty", "t", BOOL, "Give the container a terminal"),
    Flag("ulimit", "", "ulimit", "Resource limits (name=soft[:hard])"),
    Flag("user", "u", STRING, "User of the process (name|uid[:group|gid])"),
    Flag("volume", "v", LIST, "Mount a volume or a host path (source:target[:options])"),
    Flag("workdir", "w", STRING, "Working directory inside the container"),
)

RUN_FLAGS = (
    Flag("detach", "d", BOOL, "Run in the background and print the container's id"),
    Flag("detach-keys", "", STRING, "Keys that detach from the container (default ctrl-p,ctrl-q)"),
    Flag("sig-proxy", "", BOOL, "Pass signals on to the process (default true)"),
)

_LIMITS = "wrap the command in `systemd-run --user --scope -p MemoryMax=...`, or use `--ulimit`"
_NETWORK = "containers of one network find each other by name: `duckweed network create`"
_HEALTH = "probe it from outside with `duckweed exec`"
_NAMESPACES = "every container has its own namespaces"

# name, short, kind, what to do instead
REFUSED: tuple[tuple[str, str, str, str], ...] = (
    ("annotation", "", MAP, "use `--label`"),
    ("blkio-weight", "", INT, _LIMITS),
    ("cgroup-parent", "", STRING, _LIMITS),
    ("cgroupns", "", STRING, _NAMESPACES),
    ("cpu-period", "", INT, _LIMITS),
    ("cpu-quota", "", INT, _LIMITS),
    ("cpu-shares", "c", INT, _LIMITS),
    ("cpus", "", "decimal", _LIMITS),
    ("cpuset-cpus", "", STRING, "run it under `taskset -c CPUS`"),
    ("cpuset-mems", "", STRING, "run it under `numactl --membind NODES`"),
    ("device", "", LIST, "bind the node with `-v /dev/NODE:/dev/NODE` if you may open it"),
    ("gpus", "", STRING, "bind the device nodes and driver libraries with `-v`"),
    ("health-cmd", "", STRING, _HEALTH),
    ("health-interval", "", "duration", _HEALTH),
    ("health-retries", "", INT, _HEALTH),
    ("health-start-period", "", "duration", _HEALTH),
    ("health-timeout", "", "duration", _HEALTH),
    ("ipc", "", STRING, _NAMESPACES),
    ("link", "", LIST, _NETWORK),
    ("mac-address", "", STRING, _NETWORK),
    ("memory", "m", "bytes", _LIMITS),
    ("memory-reservation", "", "bytes", _LIMITS),
    ("memory-swap", "", "bytes", _LIMITS),
    ("no-healthcheck", "", BOOL, "leave it out: health checks are not run"),
    ("oom-score-adj", "", INT, "leave it out"),
    ("pid", "", STRING, _NAMESPACES),
    ("pids-limit", "", INT, "use `--ulimit nproc=N`"),
    ("sysctl", "", MAP, "leave it out"),
    ("userns", "", STRING, "leave it out: every container has its own user namespace"),
    ("uts", "", STRING, _NAMESPACES),
    ("volume-driver", "", STRING, "only the local driver exists"),
    ("volumes-from", "", LIST, "name the volumes with `-v`"),
)

REFUSED_FLAGS = tuple(Flag(name, short, kind, "", hidden=True) for name, short, kind, _ in REFUSED)

_ONLY_HERE = ("detach_keys", "sig_proxy", "quiet")


def engine_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `containers.create` is told of the flags given. Raises `Unsupported` for a refused one."""
    for name, _, _, instead in REFUSED:
        if name.replace("-", "_") in given:
            raise Unsupported(f"`--{name}` is not supported in this release", instead)
    return {key: value for key, value in given.items() if key not in _ONLY_HERE}
