"""A finding: one thing the doctor has to say, in four sentences and under a stable code."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Weights: nothing is lost; something is done in a poorer way; no container can run. Also the exit status.
INFORMATION, DEGRADED, CANNOT = 0, 1, 2
PARTS = ("code", "weight", "found", "means", "instead", "admin")


class Finding:
    """`found`, `means`, `instead`, `admin`: the four sentences (the last may be empty); `weight` as above."""

    __slots__ = ("admin", "code", "found", "instead", "means", "weight")

    def __init__(self, code: str, weight: int, found: str, means: str, instead: str, admin: str = "") -> None:
        self.code = code
        self.weight = weight
        self.found = found
        self.means = means
        self.instead = instead
        self.admin = admin

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {name: getattr(self, name) for name in PARTS}


def after_space(why: str) -> str:
    """The reason with a space before it, or nothing."""
    return f" {why}" if why else ""
