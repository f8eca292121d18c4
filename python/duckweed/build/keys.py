"""Keys: what a step's result depends on, as one digest. Times never go in.

A key is over the layers below (their chain id, hence their content), the instruction with its variables
replaced, and the digests of what it reads. So two builds that would do the same find the same layer, in
whatever file, context or isolation they stand.
"""

from __future__ import annotations

import hashlib
import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VERSION = 1


def key_of(kind: str, parent: str, facts: dict[str, Any]) -> str:
    """64 hex digits for a step of this kind on these layers."""
    text = json.dumps([_VERSION, kind, parent, facts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
