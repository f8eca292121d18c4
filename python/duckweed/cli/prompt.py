"""The question before something is removed wholesale."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.cli.parse import Call


def is_confirmed(call: Call, warning: str) -> bool:
    """True with `--force`, or when the answer on stdin is yes; no answer is no."""
    if call.get("force"):
        return True
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
