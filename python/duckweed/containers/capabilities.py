"""Capabilities: Docker's default set, and what `--cap-add`, `--cap-drop` and `--privileged` make of it.

They are capabilities of the container's own user namespace: none of them reaches the host.
"""

# ruff: noqa: SIM905 (a list of words is read as one)

from __future__ import annotations

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# capabilities(7), in the kernel's order: the index is the number.
ALL = tuple(
    "CAP_" + name
    for name in """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE  NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT  SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL  SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
    """.split()
)

# What a container has in Docker when nothing is said ("Runtime privilege and Linux capabilities",
# docs.docker.com).
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def parse_capability(text: str, option: str) -> str:
    """`CAP_NET_ADMIN` for `net_admin`; `ALL` stays. `option` is `CapAdd` or `CapDrop`, for the message."""
    name = text.strip().upper()
    if name == "ALL":
        return name
    full = name if name.startswith("CAP_") else "CAP_" + name
    if full not in ALL:
        raise UsageError(f'invalid {option}: unknown capability: "{full}"')
    return full


def effective_set(add: Sequence[str], drop: Sequence[str], privileged: bool = False) -> tuple[str, ...]:
    """The set a container runs with. `add` and `drop` are parsed names; what is named beats `ALL`, dropping
    beats adding.
    """
    if privileged:
        return ALL
    if not add and not drop:
        return DEFAULT
    if "ALL" in drop:
        base: tuple[str, ...] = ()
    elif "ALL" in add:
        base = ALL
    else:
        base = DEFAULT
    if "ALL" in drop and "ALL" in add:
        base = ALL
        drop = [name for name in drop if name != "ALL"]
    return tuple(name for name in ALL if (name in base or name in add) and name not in drop)
