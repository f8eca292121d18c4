"""`stats`: what a container uses, from /proc and its supervisor.

Without delegated cgroups nobody adds it up, so it is added up here, over the processes that share the pid
namespace of the container's init. Memory is what is theirs alone (anonymous pages and shared memory, not
file pages, which the kernel can drop); network bytes are those of the container's way out, not of what
members of a network say to each other; through the gate they are not counted.
"""

from __future__ import annotations

import os
import time

from duckweed.containers import processes, supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_NOTHING = {"rx_bytes": 0, "rx_packets": 0, "tx_bytes": 0, "tx_packets": 0}


def sample(init_pid: int, socket: str, limit_bytes: int) -> dict[str, Any]:
    """One reading in the fields of docker's /stats that can be had; times in ns, sizes in bytes."""
    cpu_ticks, memory_kib, count = 0, 0, 0
    blocks = {"read": 0, "write": 0}
    for pid in processes.pids(init_pid):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            # Its own, and that of children it has waited for.
            cpu_ticks += sum(int(field) for field in fields[11:15])
            memory_kib += sum(_kib(pid, ("RssAnon:", "RssShmem:")))
            count += 1
            _add_blocks(pid, blocks)
        except (OSError, ValueError, IndexError):
            continue
    ticks = os.sysconf("SC_CLK_TCK")
    return {
        "read_ns": time.time_ns(),
        "cpu_ns": cpu_ticks * (1_000_000_000 // ticks),
        "memory_usage": memory_kib * 1024,
        "memory_limit": limit_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "network": _network(socket),
        "blocks": blocks,
        "pids": count,
    }


def _kib(pid: int, names: tuple[str, ...]) -> Iterator[int]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(names):
                yield int(line.split()[1])


def _add_blocks(pid: int, blocks: dict[str, int]) -> None:
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            facts = dict(line.strip().split(": ") for line in file)
    except OSError:
        return  # another uid's are not for us
    blocks["read"] += int(facts["read_bytes"])
    blocks["write"] += int(facts["write_bytes"])


def _network(socket: str) -> dict[str, int]:
    try:
        return supervisor.request(socket, {"op": "status"}).get("network") or dict(_NOTHING)
    except supervisor.NobodyThere:
        return dict(_NOTHING)


def cpu_percent(before: dict[str, Any], after: dict[str, Any]) -> float:
    """How much of one processor was used between two readings, in per cent."""
    span = after["read_ns"] - before["read_ns"]
    return 100 * max(after["cpu_ns"] - before["cpu_ns"], 0) / span if span > 0 else 0.0
