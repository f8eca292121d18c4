"""Runs a command in the place that most pods and CI jobs are: `restricted.py WORD COMMAND...`.

`pod`: no_new_privs, and a seccomp filter that refuses what Docker's default profile refuses to a process without
capabilities. `no-userns`: a user namespace in which no further one may be made (max_user_namespaces is 0), and
no capability in it. Both are made by an ordinary user, and lower nothing that the machine has not lowered.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_EPERM, _ENOSYS, _ALLOW, _ERRNO = 1, 38, 0x7FFF0000, 0x00050000
_X86_64 = 0xC000003E
# What a process without capabilities may not call under Docker's default profile (moby 27), by number on x86_64.
_REFUSED = {
    "acct": 163, "add_key": 248, "bpf": 321, "clock_settime": 227, "delete_module": 176, "fanotify_init": 300,
    "finit_module": 313, "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 175,
    "io_uring_enter": 426, "io_uring_register": 427, "io_uring_setup": 425, "ioperm": 173, "iopl": 172,
    "kcmp": 312, "kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212, "mount": 165, "mount_setattr": 442,
    "move_mount": 429, "open_by_handle_at": 304, "open_tree": 428, "perf_event_open": 298, "pidfd_getfd": 438,
    "pivot_root": 155, "process_madvise": 440, "quotactl": 179, "reboot": 169, "request_key": 249, "setns": 308,
    "settimeofday": 164, "swapoff": 168, "swapon": 167, "syslog": 103, "umount2": 166, "unshare": 272,
    "userfaultfd": 323, "vhangup": 153,
}  # fmt: skip
_CLONE, _CLONE3, _PERSONALITY = 56, 435, 135
_NEW_NAMESPACES = 0x7E020000


def _fail(what: str) -> None:
    error = ctypes.get_errno()
    print(f"restricted: {what}: {os.strerror(error)}", file=sys.stderr)
    sys.exit(125)


def _program() -> bytes:
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    lines = [(load, 0, 0, 4), (equal, 1, 0, _X86_64), (answer, 0, 0, _ERRNO | _ENOSYS), (load, 0, 0, 0)]
    for number in _REFUSED.values():
        lines += [(equal, 0, 1, number), (answer, 0, 0, _ERRNO | _EPERM)]
    lines += [(equal, 0, 1, _CLONE3), (answer, 0, 0, _ERRNO | _ENOSYS)]
    lines += [(equal, 0, 3, _CLONE), (load, 0, 0, 16), (any_bit, 0, 1, _NEW_NAMESPACES)]
    lines += [(answer, 0, 0, _ERRNO | _EPERM), (load, 0, 0, 0)]
    lines += [(equal, 0, 4, _PERSONALITY), (load, 0, 0, 16), (equal, 2, 0, 0), (equal, 1, 0, 0xFFFFFFFF)]
    lines += [(answer, 0, 0, _ERRNO | _EPERM), (answer, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def pod() -> None:
    """Filters this process for good."""
    program = _program()

    class Header(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    if _LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        _fail("no_new_privs")
    header = Header(len(program) // 8, program)
    if _LIBC.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(header), 0, 0):
        _fail("seccomp")


def no_userns() -> None:
    """Moves into a user namespace that can have none below it, as nobody special there."""
    uid, gid = os.geteuid(), os.getegid()
    if _LIBC.unshare(0x10000000):
        _fail("unshare")
    for name, text in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"{uid} {uid} 1"),
        ("/proc/self/gid_map", f"{gid} {gid} 1"),
        ("/proc/sys/user/max_user_namespaces", "0"),
    ):
        with open(name, "w") as file:
            file.write(text)
    # Whoever is not root there loses all capabilities with the next execve.


def main() -> None:
    """Makes the place and runs the command in it."""
    {"pod": pod, "no-userns": no_userns}[sys.argv[1]]()
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
