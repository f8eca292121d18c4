"""Who owns what is half-made, and whether a process that was written down still lives.

A process is named by boot, pid and start time, so that a pid used again never passes for the old process.
"""

from __future__ import annotations

import os

from duckweed import _core

_boot = ""
_own: tuple[int, str] = (0, "")


def boot_id() -> str:
    """The kernel's id of this boot, read once."""
    global _boot
    if not _boot:
        _boot = _core.boot_id()
    return _boot


def own_name() -> str:
    """`<boot id, 8 hex>.<pid>.<start ticks>` of this process; right after a fork, too."""
    global _own
    pid = os.getpid()
    if _own[0] != pid:
        _own = (pid, f"{boot_id()[:8]}.{pid}.{_core.process_start(pid)}")
    return _own[1]


def is_alive(owner: str) -> bool:
    """Whether the process that an owner's name names is still there."""
    boot, _, rest = owner.partition(".")
    pid, _, ticks = rest.partition(".")
    if boot != boot_id()[:8] or not pid.isdigit() or not ticks.isdigit():
        return False
    return _core.process_start(int(pid)) == int(ticks)
