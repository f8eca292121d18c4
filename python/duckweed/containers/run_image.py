"""An image as a container needs it: its config and its trees, found once and then only checked.

`engine.run` asks for the same image again and again; what it needs is kept with the identity of the file
that said so (a tag's record is only ever replaced by rename, so its inode and time change with its
meaning).
"""

from __future__ import annotations

import os

from duckweed.errors import UsageError
from duckweed.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from duckweed.engine import Engine
    from duckweed.store.image import Image


class RunImage:
    """`asked` is what the user typed; `lower` are the layers' trees, topmost first; `layers` their names in
    the store.
    """

    __slots__ = (
        "architecture",
        "asked",
        "id",
        "is_host",
        "layers",
        "lower",
        "os",
        "run_config",
        "_record",
        "_seen",
    )

    def __init__(self, image: Image, record: str) -> None:
        self.asked = image.asked
        self.id = image.id
        self.run_config: Mapping[str, Any] = image.run_config
        self.lower = image.lower
        self.layers = image.layers
        self.os = image.os
        self.architecture = image.architecture
        self.is_host = image.is_host
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


def find(engine: Engine, name: str) -> RunImage:
    """The image that `name` means, its layers all there in this place's flavour. Raises NoSuchImage,
    BadImage.
    """
    image = engine.images.get_ready(name)
    return RunImage(image, "" if image.is_host else _record_path(engine, name, image.id))


def _record_path(engine: Engine, name: str, image_id: str) -> str:
    """The file that decides what `name` means, or "" when there is no single one."""
    if name == image_id:
        return engine.layout.image(image_id)
    try:
        path = engine.layout.tag(str(Reference.parse(name)))
    except UsageError:
        return ""
    return path if os.path.exists(path) else ""
