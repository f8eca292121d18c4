"""An image as a container needs it: its config and its trees, found once and then only checked.

`engine.run` asks for the same image again and again; what it needs is kept with the identity of the file that said so
(a tag's record is only ever replaced by rename, so its inode and time change with its meaning).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class RunImage:
    """`asked` is what the user typed; `lower` are the layers' trees, topmost first; `layers` their names in the store."""

    __slots__ = ("architecture", "asked", "id", "is_host", "layers", "lower", "os", "run_config", "_record", "_seen")

    def __init__(
        self,
        asked: str,
        image_id: str,
        run_config: Mapping[str, Any],
        *,
        lower: Sequence[str] = (),
        layers: Sequence[str] = (),
        os_name: str = "linux",
        architecture: str = "",
        is_host: bool = False,
        record: str = "",
    ) -> None:
        self.asked = asked
        self.id = image_id
        self.run_config = run_config
        self.lower = list(lower)
        self.layers = list(layers)
        self.os = os_name
        self.architecture = architecture
        self.is_host = is_host
        self._record = record
        self._seen = _identity(record) if record else None

    def is_current(self) -> bool:
        """Whether the record it was read from is still the same file."""
        return self._seen is not None and _identity(self._record) == self._seen


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
