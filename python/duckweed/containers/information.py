"""`info` and `version`: this engine and this machine, in the shape that Docker's clients expect."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.engine import Engine


def info(engine: Engine) -> dict[str, Any]:
    """What `docker info` would say."""
    from duckweed import __version__
    from duckweed.oci.reference import DEFAULT_REGISTRY
    from duckweed.store import scratch

    place = engine.place("auto")
    states = [container.status for container in engine.containers.list(all=True)]
    kernel = os.uname()
    return {
        "ID": scratch.boot_id(),
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(engine.images.list()),
        "Driver": place.rootfs,
        "DriverStatus": [
            ["Id map", place.idmap],
            ["Root emulation", place.root_emulation],
            ["Layers", place.layers.name],
            *(["Read-only store", root] for root in engine.layout.read_stores),
            *([["Scratch", place.scratch]] if place.scratch else []),
        ],
        "Plugins": {"Volume": ["local"], "Network": ["none", "host"], "Log": ["json-file", "none"]},
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        "KernelVersion": kernel.release,
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": kernel.machine,
        "NCPU": cpus(),
        "MemTotal": memory_bytes(),
        "Name": kernel.nodename,
        "DockerRootDir": engine.root,
        "IndexServerAddress": DEFAULT_REGISTRY,
        "ServerVersion": __version__,
        "DefaultRuntime": "duckweed-runtime",
        "Runtimes": {"duckweed-runtime": {"path": _runtime()}},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
        "Isolation": place.isolation,
        "IdMap": place.idmap,
        "RootEmulation": place.root_emulation,
        "Rootfs": place.rootfs,
        "ReadStores": list(engine.layout.read_stores),
        "Scratch": place.scratch,
        "Notes": place.notes,
        "Warnings": place.notes,
    }


def version() -> dict[str, Any]:
    """In the shape of `docker version --format json`: there is no server, so both halves are this program."""
    from duckweed import __version__, _core
    from duckweed.oci.platform import Platform

    kernel = os.uname()
    facts = {
        "Version": __version__,
        "Os": "linux",
        "Arch": Platform.host().architecture,
        "KernelVersion": kernel.release,
        "PythonVersion": ".".join(str(part) for part in sys.version_info[:3]),
    }
    components = [
        {"Name": "Engine", "Version": __version__},
        {"Name": "duckweed-runtime", "Version": _runtime_version()},
        {"Name": "_core", "Version": getattr(_core, "__version__", "")},
    ]
    return {"Client": facts, "Server": {**facts, "Components": components}}


def _runtime() -> str:
    from duckweed.containers.supervisor import RUNTIME

    return RUNTIME


def _runtime_version() -> str:
    import subprocess

    try:
        done = subprocess.run([_runtime(), "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().rpartition(" ")[2]


def operating_system() -> str:
    """PRETTY_NAME of os-release(5)."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith("PRETTY_NAME="):
                        return line.partition("=")[2].strip().strip("\"'")
        except OSError:
            continue
    return "Linux"


def cpus() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
