"""Facts of a good machine, for tests to take things away from."""

from __future__ import annotations

from errno import errorcode
from typing import Any

from duckweed.host.facts import Facts

NAMES = [
    "userns",
    "uid_map",
    "mntns",
    "pidns",
    "netns",
    "link",
    "ipcns",
    "utsns",
    "cgroupns",
    "mount",
    "proc",
    "newuidmap",
    "newgidmap",
    "overlay",
    "overlay_lowerdir_add",
    "tun",
    "fuse",
    "ping",
    "ptrace",
    "ptrace_seccomp",
    "seccomp_notify",
    "seccomp_addfd",
    "landlock",
    "not_chroot",
    "store_write",
    "store_exec",
    "store_xattr",
    "store_hardlink",
    "store_symlink",
    "store_whiteout",
    "store_flock",
    "store_reflink",
]


def works(detail: str = "") -> dict[str, Any]:
    return {"ok": True, "errno": None, "errno_name": None, "detail": detail}


def refused(errno: int | None, detail: str = "trying") -> dict[str, Any]:
    name = None if errno is None else errorcode[errno]
    return {"ok": False, "errno": errno, "errno_name": name, "detail": detail}


def good_place(**changes: Any) -> Facts:
    """A machine where all works. `changes` are facts by name; `settings`, `process`, ... are merged."""
    document: dict[str, Any] = {
        "version": 1,
        "facts": {name: works() for name in NAMES},
        "settings": {"net.ipv4.ip_unprivileged_port_start": "80"},
        "process": {"uid": 1000, "euid": 1000, "gid": 1001, "seccomp": 0, "tracer_pid": 0},
        "limits": {"nofile": {"soft": 1024, "hard": 1048576}},
        "filesystem": {
            "type": "ext4",
            "magic": "0xef53",
            "free_bytes": 1 << 36,
            "total_bytes": 1 << 37,
            "free_inodes": 10**6,
            "total_inodes": 10**7,
        },
        "subids": {"uid": [[100000, 65536]], "gid": [[200000, 65536]], "short": 0, "source": "files"},
    }
    document["process"]["capabilities"] = {"effective": "0000000000000000"}
    document["facts"]["cgroup"] = works("cpu memory pids")
    for name, change in changes.items():
        if name in document["facts"]:
            document["facts"][name] = change
        else:
            document[name] = {**document[name], **change}
    return Facts(document)


def without_userns(errno: int, **changes: Any) -> Facts:
    """A machine whose refusal of user namespaces takes all that needs them along."""
    names = [
        "userns",
        "uid_map",
        "mntns",
        "pidns",
        "netns",
        "link",
        "ipcns",
        "utsns",
        "cgroupns",
        "mount",
        "proc",
        "overlay",
        "newuidmap",
        "newgidmap",
    ]
    return good_place(**{name: refused(errno, "unshare") for name in names}, **changes)
