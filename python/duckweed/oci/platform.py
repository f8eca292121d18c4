"""Platforms: which of an index's manifests this machine can run.

The names are Go's (`amd64`, `arm64` `v8`): image-spec, image-index.md, "platform".
"""

from __future__ import annotations

import os

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# uname's machine -> (architecture, variant); the kernel's names, Go's names.
_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
}
# Spellings that mean the same as another.
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
_VARIANTS = {("arm64", "v8"): "", ("amd64", "v1"): "", ("arm", ""): "v7"}
# What a machine also runs, best first.
_ALSO_RUNS = {"arm64": [("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")], "amd64": [("386", "")]}


class Platform:
    """`os`, `architecture` and `variant`, each in its one spelling."""

    __slots__ = ("architecture", "os", "variant")

    def __init__(self, os_name: str, architecture: str, variant: str = "") -> None:
        self.os = os_name.lower()
        self.architecture = _ARCHITECTURES.get(architecture.lower(), architecture.lower())
        self.variant = _VARIANTS.get((self.architecture, variant.lower()), variant.lower())

    @classmethod
    def host(cls) -> Platform:
        """The machine we run on."""
        machine = os.uname().machine
        return cls("linux", *_MACHINES.get(machine, (machine, "")))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Reads `linux/arm64/v8`, `linux/amd64` or `amd64`. Raises UsageError."""
        parts = text.split("/")
        if len(parts) > 3 or not all(part.replace("_", "").replace("-", "").isalnum() for part in parts):
            raise UsageError(f"invalid platform `{text}`", "write it as `linux/amd64` or `linux/arm64/v8`")
        if len(parts) == 1:
            return cls("linux", text) if text.lower() != "linux" else cls.host()
        return cls(*parts)

    @classmethod
    def of(cls, document: dict[str, Any]) -> Platform:
        """The platform that an index entry or an image config states; empty strings where it says nothing."""
        fields = (document.get("os"), document.get("architecture"), document.get("variant"))
        return cls(*(field if isinstance(field, str) else "" for field in fields))

    def as_dict(self) -> dict[str, str]:
        """As it stands in an index."""
        found = {"architecture": self.architecture, "os": self.os}
        return {**found, "variant": self.variant} if self.variant else found

    def rank(self, wanted: Platform) -> int | None:
        """How well this platform's images suit `wanted`: 0 is exact, larger is worse, None cannot run."""
        if self.os != wanted.os:
            return None
        if self.architecture == wanted.architecture:
            return _variant_rank(self, wanted)
        for position, other in enumerate(_ALSO_RUNS.get(wanted.architecture, ())):
            if (self.architecture, self.variant) == other:
                return 10 + position
        return None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Platform) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _variant_rank(have: Platform, wanted: Platform) -> int | None:
    """An older variant of the same architecture runs on a newer one: v6 on v7, plain amd64 on amd64 v3."""
    if have.variant == wanted.variant:
        return 0
    older = have.variant[1:2] or "0"
    newer = wanted.variant[1:2] or "0"
    if older.isdigit() and newer.isdigit() and int(older) < int(newer):
        return int(newer) - int(older)
    return None
