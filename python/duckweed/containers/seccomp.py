"""A seccomp profile given by the user: from Docker's file format to the runtime spec's `linux.seccomp`.

Docker's format is the spec's plus conditions: a rule may name architectures, capabilities and a least
kernel version for which it holds (`includes`) or does not (`excludes`). They are decided here, once, for
this machine.
"""

from __future__ import annotations

import json
import os

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_ARCHES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}


def read_profile(path: str) -> dict[str, Any]:
    """The profile in the file, unjudged but for its shape."""
    try:
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
    except OSError as error:
        raise UsageError(
            f"opening seccomp profile ({path}) failed: open {path}: {(error.strerror or '').lower()}"
        ) from None
    except ValueError as error:
        raise UsageError(
            f"opening seccomp profile ({path}) failed: compacting json failed: {error}"
        ) from None
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise UsageError(f"seccomp profile `{path}` has no defaultAction")
    return profile


def linux_seccomp(profile: dict[str, Any], capabilities: Sequence[str]) -> dict[str, Any]:
    """The part of config.json for `profile` in a container with these capabilities."""
    machine = os.uname().machine
    arch, scmp_arch = _ARCHES.get(machine, (machine, "SCMP_ARCH_" + machine.upper()))
    result: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    result["architectures"] = _architectures(profile, scmp_arch)
    if profile.get("flags"):
        result["flags"] = profile["flags"]
    rules: list[dict[str, Any]] = []
    for rule in profile.get("syscalls") or []:
        if not isinstance(rule, dict) or not _holds(rule, arch, capabilities):
            continue
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        entry: dict[str, Any] = {"names": names, "action": rule.get("action", "SCMP_ACT_ALLOW")}
        if rule.get("errnoRet") is not None:
            entry["errnoRet"] = rule["errnoRet"]
        if rule.get("args"):
            entry["args"] = rule["args"]
        rules.append(entry)
    result["syscalls"] = rules
    return result


def _architectures(profile: dict[str, Any], scmp_arch: str) -> list[str]:
    for entry in profile.get("archMap") or []:
        if entry.get("architecture") == scmp_arch:
            return [scmp_arch, *(entry.get("subArchitectures") or [])]
    return list(profile.get("architectures") or [scmp_arch])


def _holds(rule: dict[str, Any], arch: str, capabilities: Sequence[str]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if any(name not in capabilities for name in includes.get("caps") or ()):
        return False
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    if includes.get("minKernel") and _kernel() < _version(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and _kernel() >= _version(excludes["minKernel"]))


def _version(text: str) -> tuple[int, int]:
    major, _, rest = str(text).partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major) if major.isdigit() else 0, int(minor) if minor.isdigit() else 0)


def _kernel() -> tuple[int, int]:
    return _version(os.uname().release)
