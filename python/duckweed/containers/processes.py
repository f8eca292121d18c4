"""`top`: the processes of a container, as ps would list them on this machine.

They are found by their pid namespace: whatever shares that of the container's init belongs to it, however it
was started. Without one (the trap isolation) they are those that the container's tracer traces.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]


def list_processes(init_pid: int) -> dict[str, Any]:
    """`{"Titles", "Processes"}` for the pid namespace of `init_pid` (pids are this machine's)."""
    rows = [row for pid in sorted(pids(init_pid)) if (row := _row(pid)) is not None]
    return {"Titles": TITLES, "Processes": rows}


def pids(init_pid: int) -> list[int]:
    """All processes of the pid namespace of `init_pid`, by their numbers on this machine."""
    family, find = _namespace(init_pid), _namespace
    if family is None or family == _namespace(os.getpid()):
        family, find = _tracer(init_pid), _tracer
    entries = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in entries if family is not None and find(pid) == family]


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _tracer(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read()
    except OSError:
        return None
    number = text.partition(b"\nTracerPid:")[2].split(maxsplit=1)[:1]
    return number[0].decode() if number and number != [b"0"] else None


def _row(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read().decode(errors="replace")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
        uid = os.stat(f"/proc/{pid}").st_uid
        with open("/proc/uptime", "rb") as file:
            uptime = float(file.read().split()[0])
    except (OSError, ValueError):
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    ticks = os.sysconf("SC_CLK_TCK")
    used_s = (int(fields[11]) + int(fields[12])) / ticks
    age_s = max(uptime - int(fields[19]) / ticks, 0.0)
    command = b" ".join(words).decode(errors="replace") or f"[{name}]"
    share = int(100 * used_s / age_s) if age_s > 0 else 0
    started = time.localtime(time.time() - age_s)
    when = time.strftime("%H:%M" if age_s < 86400 else "%b%d", started)
    return [
        _user(uid),
        str(pid),
        fields[1],
        str(share),
        when,
        _terminal(int(fields[4])),
        _clock(used_s),
        command,
    ]


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(device: int) -> str:
    major, minor = (device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00)
    if device == 0:
        return "?"
    return f"pts/{minor}" if 136 <= major <= 143 else f"tty{minor}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
