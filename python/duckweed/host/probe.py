"""Running the probe once, and remembering what it said.

The probe tries some thirty things in forked children (`rust/runtime/src/probe`), which takes tens of
milliseconds: too long for every command, so its answer is kept in the store, one file per boot and *place*.
The same store can be seen from different places during one boot (from a host and from a pod on it, with and
without a tracer), so the key holds what tells them apart: the helper, the namespaces, the privileges, the
root directory, the sysctls an administrator may have just changed, and the files that hold subordinate ids.
The key is also written into the document and compared, so that a clash of its checksum costs a probe and no
more.
"""

from __future__ import annotations

import json
import os
from zlib import crc32

from duckweed.errors import StoreError
from duckweed.host.facts import Facts, pretend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

RUNTIME = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_bin", "duckweed-runtime"
)

# Changes when the document's meaning does.
_FORMAT = 1
_FILES = ("/etc/subuid", "/etc/subgid", "/usr/bin/newuidmap", "/usr/bin/newgidmap", "/dev/net/tun")
_SETTINGS = (
    "user/max_user_namespaces",
    "user/max_net_namespaces",
    "user/max_pid_namespaces",
    "user/max_mnt_namespaces",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/unprivileged_userns_clone",
)
_STATUS = ("CapEff", "NoNewPrivs", "Seccomp", "TracerPid")


def facts(
    root: str,
    runtime_path: str | None = None,
    *,
    fresh: bool = False,
    environ: Mapping[str, str] = os.environ,
    is_store: bool = True,
) -> Facts:
    """What this place allows to containers whose store is `root`; without `is_store`, whose scratch directory
    it is.

    `fresh` probes whatever the cache says (the doctor does: the patient may have just been treated). Raises
    StoreError when the helper cannot be run, UsageError for a bad `DUCKWEED_PRETEND`.
    """
    runtime = runtime_path or RUNTIME
    key = _key(root, runtime)
    path = _cache_path(root, key)
    document = None if fresh else _read(path, key)
    if document is None:
        document = _probe(root, runtime)
        document["key"] = key
        _write(path, document)
    return pretend(Facts(document), environ, is_store)


def _key(root: str, runtime: str) -> str:
    parts = [str(_FORMAT), os.path.abspath(root), str(os.getuid()), str(os.getgid())]
    for path in (runtime, *_FILES):
        try:
            facts = os.stat(path)
            parts.append(f"{facts.st_mtime_ns}:{facts.st_size}")
        except OSError:
            parts.append("-")
    top = os.stat("/")
    parts.append(f"{top.st_dev}:{top.st_ino}")
    for kind in ("user", "mnt", "net"):
        try:
            parts.append(os.readlink("/proc/self/ns/" + kind))
        except OSError:
            parts.append("-")
    parts.extend(_text("/proc/sys/" + name) for name in _SETTINGS)
    for line in _text("/proc/self/status").split("\n"):
        name, _, value = line.partition(":")
        if name in _STATUS:
            # Which tracer does not matter, only whether there is one.
            parts.append(str(value.strip() != "0") if name == "TracerPid" else value.strip())
    return "|".join(parts)


def _text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "-"
    try:
        return os.read(fd, 8192).decode("utf-8", "replace").strip()
    except OSError:
        return "-"
    finally:
        os.close(fd)


def _cache_path(root: str, key: str) -> str:
    boot_id = _text("/proc/sys/kernel/random/boot_id")
    return f"{os.path.abspath(root)}/cache/probe-{boot_id}-{crc32(key.encode()):08x}.json"


def _read(path: str, key: str) -> dict[str, Any] | None:
    """The cached document; None when there is none that fits."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
    except (OSError, ValueError):
        return None
    if isinstance(document, dict) and document.get("key") == key:
        return document
    return None


def _write(path: str, document: dict[str, Any]) -> None:
    """Puts the document in place by rename and forgets those of earlier boots. Failing is no harm."""
    directory = os.path.dirname(path)
    half = f"{directory}/.{os.path.basename(path)}.{os.getpid()}"
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o700)
        with open(half, "w") as file:
            json.dump(document, file)
        os.rename(half, path)
        ours = os.path.basename(path).rpartition("-")[0]
        for name in os.listdir(directory):
            if name.lstrip(".").startswith("probe-") and not name.lstrip(".").startswith(ours):
                os.unlink(f"{directory}/{name}")
    except OSError:
        pass


def _probe(root: str, runtime: str) -> dict[str, Any]:
    from duckweed.host import subid

    found = subid.find()
    argv = [runtime, "probe", "--store", os.path.abspath(root)]
    if found.uids and found.gids:
        argv += ["--subuid", found.uids[0].text(), "--subgid", found.gids[0].text()]
    document = _run(argv)
    document["subids"] = {
        "uid": [[item.start, item.count] for item in found.uids],
        "gid": [[item.start, item.count] for item in found.gids],
        "short": found.short,
        "source": found.source,
    }
    return document


def _run(argv: list[str]) -> dict[str, Any]:
    import subprocess

    # newuidmap may be outside a bare PATH.
    environ = dict(os.environ)
    environ["PATH"] = environ.get("PATH", "") + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=environ, timeout=120, check=False
        )
        document = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"cannot probe this machine with `{argv[0]}`: {error}") from None
    if not isinstance(document, dict):
        said = done.stderr.decode("utf-8", "replace").strip()
        raise StoreError(f"cannot probe this machine with `{argv[0]}`: {said or 'it said nothing'}")
    return document
