"""From an image's config and the user's options to config.json: the bundle that the runtime executes.

The skeleton that all containers of an image share is made once (`Skeleton`); each container then fills in
its id and what was asked for. Everything is plain dicts of the OCI runtime spec; what the spec lacks
stands in the annotation `io.duckweed.container` (docs/contracts.md §4).
"""

from __future__ import annotations

import json

from duckweed.containers.capabilities import effective_set
from duckweed.containers.environment import merge
from duckweed.containers.limits import rlimit
from duckweed.containers.options import DEFAULT_SHM_BYTES
from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.containers.options import Options

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Docker's lists (moby `oci/defaults.go`, 2025): what a container must not read of the host's kernel, or not
# write.
MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def process_args(config: Mapping[str, Any], options: Options) -> list[str]:
    """The words to execute: entrypoint and command, an own entrypoint hiding the image's command."""
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    if options.entrypoint is not None:
        entrypoint = options.entrypoint
        command = []
    if options.command:
        command = options.command
    args = [*entrypoint, *command]
    if not args:
        raise UsageError(
            "no command specified", "name a command after the image: this image has no default one"
        )
    return args


def configured_environment(config: Mapping[str, Any], options: Options) -> list[str]:
    """`Config.Env` as inspect shows it: the user's variables, then the image's that were not overridden."""
    image = config.get("Env") or ()
    if not (options.env or options.env_file):
        return list(image)
    mine = merge(options.env_file, options.env)
    names = {entry.partition("=")[0] for entry in mine}
    return mine + [entry for entry in image if entry.partition("=")[0] not in names]


def process_environment(environment: Sequence[str], hostname: str, tty: bool) -> list[str]:
    """What the process gets: a PATH, the host name, TERM with a terminal, then `Config.Env`. HOME is the
    runtime's.
    """
    first = [DEFAULT_PATH, "HOSTNAME=" + hostname]
    if tty:
        first.append("TERM=xterm")
    return merge(first, environment)


def capability_sets(options: Options) -> dict[str, list[str]]:
    """config.json's `process.capabilities`: nothing inheritable or ambient, as Docker since 20.10.14."""
    names = list(effective_set(options.cap_add, options.cap_drop, options.privileged))
    return {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}


def system_mounts(options: Options) -> list[dict[str, Any]]:
    """/proc, /dev and /sys; the runtime knows what to do where a fresh sysfs is refused."""
    access = "rw" if options.privileged else "ro"
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "duckweed-dev", "source": "duckweed-dev", "options": []},
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", access],
        },
    ]
    if options.shm_size != DEFAULT_SHM_BYTES:
        words = ["nosuid", "noexec", "nodev", "mode=1777", f"size={options.shm_size}"]
        mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": words})
    return mounts


def text_mounts(texts: Mapping[str, str], read_only: bool) -> list[dict[str, Any]]:
    """The same files for an ephemeral container: their text is in config.json, not on the disk."""
    options = ["ro"] if read_only else []
    return [
        {"destination": f"/etc/{name}", "type": "duckweed-file", "options": options, "text": text}
        for name, text in texts.items()
    ]


def file_mounts(directory: str, read_only: bool) -> list[dict[str, Any]]:
    """/etc/resolv.conf, /etc/hostname and /etc/hosts, from the container's directory."""
    options = ["bind", "rprivate", "create=file"]
    if read_only:
        options.append("ro")
    return [
        {"destination": f"/etc/{name}", "type": "bind", "source": f"{directory}/{name}", "options": options}
        for name in ("resolv.conf", "hostname", "hosts")
    ]


def user_mounts(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mounts for the resolved mount points of `volumes.resolve`, outermost first."""
    result: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: str(point["Destination"]).count("/")):
        if point["Type"] == "tmpfs":
            result.append(
                {
                    "destination": point["Destination"],
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": point["Options"]
                    + (["ro"] if not point["RW"] and "ro" not in point["Options"] else []),
                }
            )
            continue
        kind = "dir" if point["IsDirectory"] else "file"
        options = [
            "rbind" if point["Recursive"] else "bind",
            point["Propagation"] or "rprivate",
            f"create={kind}",
        ]
        if not point["RW"]:
            options.append("ro")
        result.append(
            {
                "destination": point["Destination"],
                "type": "bind",
                "source": point["Source"],
                "options": options,
            }
        )
    return result


def rootfs_of(kind: str, directory: str, lower: Sequence[str]) -> dict[str, Any]:
    """The annotation's `rootfs`. `kind` is "overlay", "copy" or "host"."""
    if kind == "copy":
        return {"kind": "copy", "lower": list(lower), "path": f"{directory}/rootfs"}
    rootfs: dict[str, Any] = {"kind": kind}
    if kind == "overlay":
        rootfs["lower"] = list(lower)
    rootfs["upper"] = f"{directory}/upper"
    rootfs["work"] = f"{directory}/work"
    return rootfs


def shares_network(mode: str) -> bool:
    """Whether the container has no network namespace of its own."""
    return mode == "host" or mode.startswith("container:")


def network_sysctls(gid_map: Sequence[Mapping[str, int]]) -> dict[str, str]:
    """What a network of its own begins with, as in Docker: every port for everybody, and ping."""
    last = max(line["containerID"] + line["size"] for line in gid_map) - 1
    return {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last}"}


def compose(
    options: Options,
    config: Mapping[str, Any],
    *,
    container_id: str,
    directory: str,
    hostname: str,
    rootfs: Mapping[str, Any],
    uid_map: Sequence[Mapping[str, int]],
    gid_map: Sequence[Mapping[str, int]],
    namespaces: Sequence[str],
    points: Sequence[Mapping[str, Any]] = (),
    auto_remove: Mapping[str, Sequence[str]] | None = None,
    texts: Mapping[str, str] | None = None,
    network: Mapping[str, Any] | None = None,
    ephemeral: bool = False,
    root_emulation: str = "off",
    isolation: str = "userns",
) -> dict[str, Any]:
    """The whole config.json of one container."""
    capabilities = capability_sets(options)
    environment = process_environment(configured_environment(config, options), hostname, options.tty)
    process: dict[str, Any] = {
        "terminal": options.tty,
        "user": {"uid": 0, "gid": 0},
        "args": process_args(config, options),
        "env": environment,
        "cwd": options.workdir or config.get("WorkingDir") or "/",
        "capabilities": capabilities,
        "noNewPrivileges": options.no_new_privileges,
    }
    if options.ulimit:
        process["rlimits"] = [rlimit(limit) for limit in options.ulimit]
    linux: dict[str, Any] = {
        "namespaces": [
            {"type": name} for name in namespaces if name != "network" or not shares_network(options.network)
        ],
        "uidMappings": uid_map,
        "gidMappings": gid_map,
    }
    if network is not None and "shares" not in network:
        linux["sysctl"] = network_sysctls(gid_map)
    if not options.privileged:
        linux["maskedPaths"] = MASKED_PATHS
        linux["readonlyPaths"] = READONLY_PATHS
    if isinstance(options.seccomp, dict):
        from duckweed.containers.seccomp import linux_seccomp

        linux["seccomp"] = linux_seccomp(options.seccomp, capabilities["effective"])
    mounts = system_mounts(options)
    mounts += text_mounts(texts, options.read_only) if texts else file_mounts(directory, options.read_only)
    if points:
        taken = {point["Destination"] for point in points}
        mounts = [mount for mount in mounts if mount["destination"] not in taken]
    mounts += user_mounts(points)
    annotation = _annotation(options, config, container_id, directory, rootfs, auto_remove, ephemeral)
    if root_emulation != "off":
        annotation["root_emulation"] = root_emulation
        if options.refuses_setuid:
            annotation["refuses_setuid"] = True
    if isolation != "userns":
        annotation["isolation"] = isolation
    if network is not None:
        annotation["network"] = network
    spec: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": process,
        "root": {"path": f"{directory}/rootfs", "readonly": options.read_only},
        "hostname": hostname,
        "mounts": mounts,
        "linux": linux,
        "annotations": {"io.duckweed.container": json.dumps(annotation)},
    }
    if options.domainname:
        spec["domainname"] = options.domainname
    return spec


def _annotation(
    options: Options,
    config: Mapping[str, Any],
    container_id: str,
    directory: str,
    rootfs: Mapping[str, Any],
    auto_remove: Mapping[str, Sequence[str]] | None,
    ephemeral: bool,
) -> dict[str, Any]:
    annotation: dict[str, Any] = {
        "version": 1,
        "id": container_id,
        "name": options.name,
        "rootfs": rootfs,
        "user": options.user or config.get("User") or "",
        "path_search": True,
        "make_cwd": True,
        "seccomp": "unconfined" if options.privileged or options.seccomp == "unconfined" else "default",
    }
    if options.group_add:
        annotation["groups"] = list(options.group_add)
    if options.init:
        annotation["init"] = True
    if auto_remove:
        annotation["auto_remove"] = auto_remove
    if not ephemeral:
        annotation["stdin"] = stdin_mode(options)
        annotation["log"] = log_settings(options, directory)
        annotation["stop_signal"] = stop_signal(options, config)
        annotation["stop_timeout_s"] = 10 if options.stop_timeout is None else options.stop_timeout
    return annotation


def stdin_mode(options: Options) -> str:
    """Docker's OpenStdin and StdinOnce: `-i` keeps stdin open, and only the one attached client's when not
    detached.
    """
    if not options.interactive:
        return "null"
    return "open" if options.detach else "once"


def log_settings(options: Options, directory: str) -> dict[str, Any]:
    """The annotation's `log`; unlimited unless `--log-opt max-size` says otherwise, as Docker's json-file."""
    from duckweed.containers.quantities import parse_size

    settings: dict[str, Any] = {"driver": options.log_driver, "path": f"{directory}/container.log"}
    size = options.log_opt.get("max-size")
    if size and size != "-1":
        settings["max_size"] = parse_size(size)
        settings["max_file"] = int(options.log_opt.get("max-file", "1"))
    return settings


def stop_signal(options: Options, config: Mapping[str, Any]) -> int:
    """The user's, the image's, or SIGTERM. An image's nonsense is not the user's error."""
    if options.stop_signal is not None:
        return options.stop_signal
    named = config.get("StopSignal")
    if named:
        from duckweed.containers.signals import parse_signal

        try:
            return parse_signal(named)
        except UsageError:
            return 15
    return 15
