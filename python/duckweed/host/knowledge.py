"""What refusals mean: the doctor's knowledge, one test a finding.

Each test looks at the facts and returns a `Finding` or None. The codes are stable. The causes were gathered
from kernels and containers measured by us and from the issue threads of many container tools. `refusals.py`
has those of namespaces and ids; here are storage, limits, devices, network and tracing.
"""

from __future__ import annotations

from duckweed.host.facts import NETWORK_FILE_SYSTEMS
from duckweed.host.finding import CANNOT, DEGRADED, INFORMATION, Finding, after_space
from duckweed.host.refusals import limited_namespaces, masked_proc, subordinate_ids, userns_finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from duckweed.host.facts import Facts

_LOW_SPACE_BYTES = 1 << 30
_LOW_FILES = 20_000
_USUAL_NOFILE = 65_536


def _overlay(facts: Facts) -> Finding | None:
    if facts.ok("overlay") or facts.ok("overlay_lowerdir_add") or not facts.ok("mount"):
        return None
    found = f"overlay: {facts.detail('overlay')} was refused{after_space(facts.why('overlay'))}"
    means = "the kernel is older than 5.11, has no overlay, or refuses it on the store's file system"
    instead = "every container gets its own copy of the image: the first start is slower and takes space"
    return Finding(
        "OVL-NODEV",
        DEGRADED,
        found,
        means,
        instead,
        "the store could move to a local disk: set `DUCKWEED_ROOT`",
    )


def _file_system(facts: Facts) -> Finding | None:
    kind = facts.filesystem.get("type")
    if kind not in NETWORK_FILE_SYSTEMS:
        return None
    means = "many small files are slow there, and overlay and locks may not work"
    instead = _elsewhere(facts) or "the store stays where it is; no better place for running copies was found"
    return Finding(
        "OVL-FS",
        INFORMATION,
        f"the store is on {kind}",
        means,
        instead + "; `DUCKWEED_ROOT` on a local disk is faster",
    )


def _elsewhere(facts: Facts) -> str:
    """What is done about a store that images are not run from; "" when there is no scratch directory."""
    if not facts.scratch:
        return ""
    return f"images stay in the store, running copies are in `{facts.scratch}` (`DUCKWEED_SCRATCH` chooses)"


def _xattrs(facts: Facts) -> Finding | None:
    if facts.ok("store_xattr") or not facts.ok("store_write"):
        return None
    means = "overlay keeps its marks in them, and cannot do without beneath a container"
    instead = _elsewhere(facts) or "containers are copies, and attributes are kept in the image's index"
    return Finding(
        "XATTR",
        DEGRADED,
        f"no extended attributes on the store{after_space(facts.why('store_xattr'))}",
        means,
        instead,
    )


def _hard_links(facts: Facts) -> Finding | None:
    if facts.ok("store_hardlink") or not facts.ok("store_write"):
        return None
    return Finding(
        "HARDLINK",
        DEGRADED,
        f"no hard links in the store{after_space(facts.why('store_hardlink'))}",
        "an image whose files have several names cannot be laid out there as it is",
        _elsewhere(facts) or "such a file becomes several copies",
    )


def _noexec(facts: Facts) -> Finding | None:
    if facts.ok("store_exec") or not facts.ok("store_write"):
        return None
    means = "the store's file system is mounted noexec, so programs of an image cannot start from it"
    return Finding(
        "STORE-NOEXEC",
        DEGRADED if facts.scratch else CANNOT,
        f"store: a program could not be started{after_space(facts.why('store_exec'))}",
        means,
        _elsewhere(facts) or "nothing; set `DUCKWEED_SCRATCH` to a directory on a file system without noexec",
    )


def _unwritable(facts: Facts) -> Finding | None:
    if facts.ok("store_write"):
        return None
    found = f"store: {facts.detail('store_write')} was refused{after_space(facts.why('store_write'))}"
    return Finding(
        "STORE-WRITE",
        CANNOT,
        found,
        "images and containers have nowhere to go",
        "nothing; set `DUCKWEED_ROOT` to a directory of your own",
    )


def _space_left(facts: Facts) -> Finding | None:
    place = facts.filesystem
    if not place or not place["total_bytes"]:  # ramfs counts nothing and takes all
        return None
    free, files = place["free_bytes"], place["free_inodes"]
    # Some file systems (btrfs) count no inodes at all: total 0.
    few_files = place["total_inodes"] > 0 and files < _LOW_FILES
    if free >= _LOW_SPACE_BYTES and not few_files:
        return None
    found = f"the store has {free / 2**20:.0f} MiB and {files} files left"
    return Finding(
        "STORE-QUOTA",
        DEGRADED,
        found,
        "an ordinary image has hundreds of megabytes and ten thousand files",
        "small images only; free space with `duckweed system prune` or move `DUCKWEED_ROOT`",
    )


def _cgroup(facts: Facts) -> Finding | None:
    if facts.ok("cgroup"):
        return None
    found = f"cgroup: {facts.detail('cgroup')}{after_space(facts.errno_name('cgroup'))}"
    means = "no cgroup is delegated to you, so the kernel enforces no limits of memory or processes"
    instead = "containers run without such limits, and asking for one says so"
    admin = (
        "log in through systemd with cgroup v2 (`systemd-run --user --scope -p Delegate=yes`), or ask for"
        " delegation of the memory and pids controllers"
    )
    return Finding("CG-NONE", INFORMATION, found, means, instead, admin)


def _cgroup_controllers(facts: Facts) -> Finding | None:
    controllers = facts.detail("cgroup").split() if facts.ok("cgroup") else []
    missing = [name for name in ("cpu", "memory", "pids") if name not in controllers]
    if not facts.ok("cgroup") or not missing:
        return None
    found = f"cgroup controllers not delegated: {', '.join(missing)}"
    return Finding(
        "CG-CPU",
        INFORMATION,
        found,
        "limits of these kinds cannot be enforced by the kernel",
        "asking for one says so",
        "an administrator could delegate them in `user@.service` (`Delegate=cpu memory pids`)",
    )


def _open_files(facts: Facts) -> Finding | None:
    hard = (facts.limits.get("nofile") or {}).get("hard")
    if hard is None or hard >= _USUAL_NOFILE:
        return None
    found = f"at most {hard} open files a process (hard limit)"
    return Finding(
        "RLIM-NOFILE",
        INFORMATION,
        found,
        "only an administrator can raise a hard limit",
        "containers get that many; asking for more is refused",
        "an administrator could raise `nofile` in limits.conf",
    )


def _tun(facts: Facts) -> Finding | None:
    if facts.ok("tun"):
        return None
    found = f"no tun device{after_space(facts.why('tun'))}"
    return Finding(
        "NET-TUN",
        INFORMATION,
        found,
        "a container's network cannot be connected to the outside by a tap",
        "a veth pair with a packet socket is used instead",
        "an administrator could allow it: `modprobe tun; chmod 0666 /dev/net/tun`",
    )


def _link(facts: Facts) -> Finding | None:
    if facts.ok("link") or not facts.ok("netns"):
        return None
    return Finding(
        "NET-LINK",
        INFORMATION,
        f"network interfaces cannot be made in a namespace of your own{after_space(facts.why('link'))}",
        "containers cannot be connected to the outside, publish ports or find each other",
        "containers have `--network none` or `--network host`",
        "an administrator could load the module: `modprobe veth`",
    )


def _ping(facts: Facts) -> Finding | None:
    if facts.ok("ping"):
        return None
    group_range = facts.setting("net.ipv4.ping_group_range") or "?"
    why = after_space(facts.why("ping"))
    found = f"ping is not allowed to users{why}; `net.ipv4.ping_group_range` is {group_range}"
    return Finding(
        "NET-PING",
        INFORMATION,
        found,
        "`ping` fails in containers; TCP and UDP work",
        "nothing",
        'an administrator could set: `sysctl -w net.ipv4.ping_group_range="0 2147483647"`',
    )


def _low_ports(facts: Facts) -> Finding | None:
    text = facts.setting("net.ipv4.ip_unprivileged_port_start")
    first = int(text) if text and text.isdecimal() else 0
    if first <= 80 or facts.process["euid"] == 0:
        return None
    found = f"ports below {first} need privilege here"
    return Finding(
        "NET-LOWPORT",
        INFORMATION,
        found,
        "a container cannot listen on port 80 of this machine",
        "use ports from there on, for example 8080",
        "an administrator could set: `sysctl -w net.ipv4.ip_unprivileged_port_start=80`",
    )


def _fuse(facts: Facts) -> Finding | None:
    if facts.ok("fuse"):
        return None
    return Finding(
        "DEV-FUSE",
        INFORMATION,
        f"no FUSE device{after_space(facts.why('fuse'))}",
        "it is not needed",
        "nothing has to be",
    )


def _whiteouts(facts: Facts) -> Finding | None:
    if facts.ok("store_whiteout") or not facts.ok("store_write"):
        return None
    found = f"0:0 device nodes cannot be made in the store{after_space(facts.why('store_whiteout'))}"
    return Finding(
        "DEV-MKNOD",
        DEGRADED,
        found,
        "overlay's mark for a deleted file cannot be written",
        _elsewhere(facts) or "deletions are kept in the layer's index, and containers are copies",
    )


def _tracing(facts: Facts) -> Finding | None:
    """What the trap isolation will ask for; said only as far as it is lost."""
    scope = facts.setting("kernel.yama.ptrace_scope")
    if facts.process.get("tracer_pid"):
        found = f"this process is traced by process {facts.process['tracer_pid']}"
        return Finding(
            "NESTED-TRACE",
            INFORMATION,
            found,
            "a process can have one tracer",
            "nothing changes for user namespaces",
        )
    if facts.ok("ptrace"):
        return None
    if scope in ("2", "3"):
        return Finding(
            "PT-YAMA",
            INFORMATION,
            f"ptrace is restricted (`kernel.yama.ptrace_scope` is {scope})",
            "0 and 1 would not matter, 2 and 3 forbid it to users",
            "nothing changes for user namespaces",
        )
    return Finding(
        "PT-DENIED",
        INFORMATION,
        f"ptrace is refused{after_space(facts.why('ptrace'))}",
        "a seccomp profile or a security module forbids it",
        "nothing changes for user namespaces",
    )


def _notification(facts: Facts) -> Finding | None:
    if facts.ok("seccomp_notify") and facts.ok("seccomp_addfd"):
        return None
    name = "seccomp_notify" if not facts.ok("seccomp_notify") else "seccomp_addfd"
    return Finding(
        "NO-NOTIF",
        INFORMATION,
        f"seccomp notification is incomplete{after_space(facts.why(name))}",
        "the kernel is older than 5.14, or another program listens already",
        "nothing changes for user namespaces",
    )


def _no_engine(facts: Facts) -> Finding | None:
    if any(facts.ok(name) for name in ("userns", "seccomp_notify", "ptrace")):
        return None
    said = ", ".join(
        f"{name}{after_space(facts.why(name))}" for name in ("userns", "seccomp_notify", "ptrace")
    )
    return Finding(
        "NO-ENGINE",
        CANNOT,
        f"refused: {said}",
        "no way to hold a container is left here",
        "images can still be loaded, inspected and exported",
    )


def _landlock(facts: Facts) -> Finding | None:
    if facts.ok("landlock"):
        return None
    return Finding(
        "NO-LANDLOCK",
        INFORMATION,
        f"no Landlock{after_space(facts.why('landlock'))}",
        "an extra wall is missing",
        "namespaces and seccomp hold containers without it",
    )


def _root_without_capabilities(facts: Facts) -> Finding | None:
    if facts.process["euid"] != 0 or int(facts.process["capabilities"]["effective"] or "0", 16) != 0:
        return None
    return Finding(
        "UID0-NOCAP",
        INFORMATION,
        "running as uid 0 without capabilities",
        "the number is root's, the power is not",
        "treated as an ordinary user",
    )


TESTS: tuple[Callable[[Facts], Finding | None], ...] = (
    userns_finding,
    _no_engine,
    _unwritable,
    _noexec,
    limited_namespaces,
    masked_proc,
    _overlay,
    _whiteouts,
    _xattrs,
    _hard_links,
    _space_left,
    _file_system,
    subordinate_ids,
    _cgroup,
    _cgroup_controllers,
    _open_files,
    _tun,
    _link,
    _ping,
    _low_ports,
    _fuse,
    _tracing,
    _notification,
    _landlock,
    _root_without_capabilities,
)
