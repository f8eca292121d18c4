"""What refusals mean: the doctor's knowledge, one test a finding.

Each test looks at the facts and returns a `Finding` or None. The codes are stable. The causes were gathered from
kernels and containers measured by us and from the issue threads of many container tools: one errno has several
causes, and which it is shows in what else is true (a seccomp filter, a sysctl, a chroot).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from duckweed.host.facts import Facts

# Weights: nothing is lost; something is done in a poorer way; no container can run. Also the exit status.
INFORMATION, DEGRADED, CANNOT = 0, 1, 2

_NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "lustre", "gpfs", "fuse", "ceph", "cifs", "smb2", "9p", "fhgfs", "orangefs", "afs")
)
_LOW_SPACE_BYTES = 1 << 30
_LOW_FILES = 20_000
_USUAL_NOFILE = 65_536
_TRAP = "nothing in this release; the trap isolation, which needs no user namespaces, is planned"


class Finding:
    """`found`, `means`, `instead`, `admin`: the four sentences (the last may be empty); `weight` as above."""

    __slots__ = ("admin", "code", "found", "instead", "means", "weight")

    def __init__(self, code: str, weight: int, found: str, means: str, instead: str, admin: str = "") -> None:
        self.code = code
        self.weight = weight
        self.found = found
        self.means = means
        self.instead = instead
        self.admin = admin

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            name: getattr(self, name) for name in ("code", "weight", "found", "means", "instead", "admin")
        }


def _space(why: str) -> str:
    return f" {why}" if why else ""


def userns_finding(facts: Facts) -> Finding | None:
    """Why user namespaces, or what is done in them, are refused; None when they work."""
    for name in ("userns", "uid_map", "mntns", "mount"):
        if not facts.ok(name):
            break
    else:
        return None
    code, means, admin = _userns_cause(facts, name)
    step = facts.detail(name) or name
    return Finding(code, CANNOT, f"{name}: {step} was refused{_space(facts.why(name))}", means, _TRAP, admin)


def _userns_cause(facts: Facts, name: str) -> tuple[str, str, str]:
    errno = facts.errno_name(name)
    restricted = facts.setting("kernel.apparmor_restrict_unprivileged_userns") == "1"
    if errno == "ENOSPC" and name == "userns":
        limit = facts.setting("user.max_user_namespaces") or "?"
        if limit != "0":
            return (
                "NS-SYSCTL",
                "the limit of user namespaces is used up here or in a namespace above this one",
                "",
            )
        means = "user namespaces are switched off here (`user.max_user_namespaces` is 0)"
        return "NS-SYSCTL", means, "an administrator could set it: `sysctl -w user.max_user_namespaces=15000`"
    if errno == "ENOSPC":
        kind = {"mntns": "mnt", "mount": "mnt"}.get(name, "user")
        means = f"the limit of namespaces of this kind is used up (`user.max_{kind}_namespaces`)"
        return (
            "NS-SUBLIMIT",
            means,
            f"an administrator could raise it: `sysctl -w user.max_{kind}_namespaces=15000`",
        )
    if errno == "EINVAL":
        return (
            "NS-EINVAL",
            "this kernel was built or booted without user namespaces",
            "an administrator could boot with user namespaces on",
        )
    if errno == "ENOSYS":
        return "NS-EINVAL", "this kernel, or a sandbox that plays one, has no user namespaces", ""
    if facts.setting("kernel.unprivileged_userns_clone") == "0":
        means = "this kernel forbids user namespaces to users (`kernel.unprivileged_userns_clone` is 0)"
        return (
            "NS-CLONE",
            means,
            "an administrator could set it: `sysctl -w kernel.unprivileged_userns_clone=1`",
        )
    if restricted and (name != "userns" or facts.process.get("seccomp") != 2):
        means = "AppArmor lets only listed programs use user namespaces (Ubuntu's default since 23.10)"
        admin = (
            "an administrator could add an AppArmor profile with `userns,` for the helper, or set "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
        )
        return "NS-APPARMOR", means, admin
    if facts.process.get("seccomp") == 2 and name == "userns":
        means = "this is a container whose seccomp profile blocks namespaces, as Docker's and Kubernetes' default does"
        return (
            "NS-SECCOMP",
            means,
            "whoever starts the outer container could give it a seccomp profile that allows `unshare` and `mount`",
        )
    if not facts.ok("not_chroot"):
        return (
            "NS-CHROOT",
            "inside a chroot the kernel refuses user namespaces",
            "use `pivot_root` or a mount namespace instead of the chroot",
        )
    return "NS-DENIED", "a security module or a sandbox refuses user namespaces", ""


def _limited_namespaces(facts: Facts) -> Finding | None:
    if not facts.ok("userns"):
        return None
    kinds = {"pidns": "pid", "netns": "net", "ipcns": "ipc", "utsns": "uts", "cgroupns": "cgroup"}
    refused = [name for name in kinds if not facts.ok(name)]
    if not refused:
        return None
    said = ", ".join(f"{name}{_space(facts.why(name))}" for name in refused)
    settings = " ".join(f"user.max_{kinds[name]}_namespaces=15000" for name in refused)
    means = "user namespaces work, these kinds are refused one by one: each has a limit of its own"
    instead = "containers share these with this machine"
    return Finding(
        "NS-SUBLIMIT", DEGRADED, said, means, instead, f"an administrator could set: `sysctl -w {settings}`"
    )


def _masked_proc(facts: Facts) -> Finding | None:
    if facts.ok("proc") or not facts.ok("pidns") or not facts.ok("mount"):
        return None
    means = "parts of /proc are hidden from this place, and the kernel then refuses a fresh one, which would show them"
    instead = "containers see this machine's /proc and its processes"
    admin = "whoever starts the outer container could leave /proc unmasked (Docker: `--security-opt systempaths=unconfined`)"
    return Finding(
        "PROC-MASK",
        DEGRADED,
        f"proc: {facts.detail('proc')} was refused{_space(facts.why('proc'))}",
        means,
        instead,
        admin,
    )


def _ids(facts: Facts) -> Finding | None:
    if facts.ok("newuidmap") and facts.ok("newgidmap") or not facts.ok("uid_map"):
        return None
    instead = "containers have one real id; other owners are kept in the image's index"
    short = facts.document["subids"]["short"]
    if short:
        found = f"your subordinate range has {short} ids"
        means = "an image needs 65536; a shorter range would fail in the middle of a layer, so it is not used"
        return Finding(
            "ID-SHORT",
            INFORMATION,
            found,
            means,
            instead,
            "an administrator could widen it: `usermod --add-subuids START-END --add-subgids START-END`",
        )
    if not facts.ids("uid") or not facts.ids("gid"):
        found, means = "no subordinate ids for this account", "they are not needed"
        admin = "an administrator could give a range: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`"
        return Finding("ID-RANGE", INFORMATION, found, means, instead, admin)
    name = "newuidmap" if not facts.ok("newuidmap") else "newgidmap"
    found = f"{name}: {facts.detail(name)}{_space(facts.errno_name(name))}"
    means = "there is a range, but the setuid programs newuidmap and newgidmap are missing or refuse it"
    return Finding(
        "ID-RANGE",
        INFORMATION,
        found,
        means,
        instead,
        "an administrator could install the package `uidmap` (or `shadow-utils`), with its setuid bits",
    )


def _overlay(facts: Facts) -> Finding | None:
    if facts.ok("overlay") or facts.ok("overlay_lowerdir_add") or not facts.ok("mount"):
        return None
    found = f"overlay: {facts.detail('overlay')} was refused{_space(facts.why('overlay'))}"
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
    if kind not in _NETWORK_FILE_SYSTEMS:
        return None
    means = "many small files are slow there, and overlay and locks may not work"
    instead = (
        "the store stays where it is"
        if facts.ok("overlay")
        else "the store stays where it is; containers are copies"
    )
    return Finding(
        "OVL-FS",
        INFORMATION,
        f"the store is on {kind}",
        means,
        instead + "; `DUCKWEED_ROOT` on a local disk is faster",
    )


def _xattrs(facts: Facts) -> Finding | None:
    if facts.ok("store_xattr") or not facts.ok("store_write"):
        return None
    means = "attributes of files cannot be kept on the files themselves"
    instead = "they are kept in the image's index; opaque directories are spelled out as whiteouts"
    return Finding(
        "XATTR",
        DEGRADED,
        f"no extended attributes on the store{_space(facts.why('store_xattr'))}",
        means,
        instead,
    )


def _noexec(facts: Facts) -> Finding | None:
    if facts.ok("store_exec") or not facts.ok("store_write"):
        return None
    means = "the store's file system is mounted noexec, so programs of an image cannot start from it"
    return Finding(
        "STORE-NOEXEC",
        CANNOT,
        f"store: a program could not be started{_space(facts.why('store_exec'))}",
        means,
        "nothing; set `DUCKWEED_ROOT` to a directory on a file system without noexec",
    )


def _unwritable(facts: Facts) -> Finding | None:
    if facts.ok("store_write"):
        return None
    found = f"store: {facts.detail('store_write')} was refused{_space(facts.why('store_write'))}"
    return Finding(
        "STORE-WRITE",
        CANNOT,
        found,
        "images and containers have nowhere to go",
        "nothing; set `DUCKWEED_ROOT` to a directory of your own",
    )


def _space_left(facts: Facts) -> Finding | None:
    place = facts.filesystem
    if not place:
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
    found = f"cgroup: {facts.detail('cgroup')}{_space(facts.errno_name('cgroup'))}"
    means = "no cgroup is delegated to you, so the kernel enforces no limits of memory, processors or processes for you"
    instead = "containers run without such limits, and asking for one says so"
    admin = "log in through systemd with cgroup v2 (`systemd-run --user --scope -p Delegate=yes`), or ask for delegation of the memory and pids controllers"
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
    found = f"no tun device{_space(facts.why('tun'))}"
    return Finding(
        "NET-TUN",
        INFORMATION,
        found,
        "a network of its own could not be connected to the outside by a tap",
        "this release does not need it",
        "an administrator could allow it: `modprobe tun; chmod 0666 /dev/net/tun`",
    )


def _ping(facts: Facts) -> Finding | None:
    if facts.ok("ping"):
        return None
    group_range = facts.setting("net.ipv4.ping_group_range") or "?"
    found = f"ping is not allowed to users{_space(facts.why('ping'))}; `net.ipv4.ping_group_range` is {group_range}"
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
        f"no FUSE device{_space(facts.why('fuse'))}",
        "it is not needed",
        "nothing has to be",
    )


def _whiteouts(facts: Facts) -> Finding | None:
    if facts.ok("store_whiteout") or not facts.ok("store_write"):
        return None
    found = f"0:0 device nodes cannot be made in the store{_space(facts.why('store_whiteout'))}"
    return Finding(
        "DEV-MKNOD",
        DEGRADED,
        found,
        "overlay's mark for a deleted file cannot be written",
        "deletions are kept in the layer's index, and containers are copies where a layer has any",
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
        f"ptrace is refused{_space(facts.why('ptrace'))}",
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
        f"seccomp notification is incomplete{_space(facts.why(name))}",
        "the kernel is older than 5.14, or another program listens already",
        "nothing changes for user namespaces",
    )


def _no_engine(facts: Facts) -> Finding | None:
    if any(facts.ok(name) for name in ("userns", "seccomp_notify", "ptrace")):
        return None
    said = ", ".join(f"{name}{_space(facts.why(name))}" for name in ("userns", "seccomp_notify", "ptrace"))
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
        f"no Landlock{_space(facts.why('landlock'))}",
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
    _limited_namespaces,
    _masked_proc,
    _overlay,
    _whiteouts,
    _xattrs,
    _space_left,
    _file_system,
    _ids,
    _cgroup,
    _cgroup_controllers,
    _open_files,
    _tun,
    _ping,
    _low_ports,
    _fuse,
    _tracing,
    _notification,
    _landlock,
    _root_without_capabilities,
)
