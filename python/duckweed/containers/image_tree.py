"""Finding a directory of an image in its layers, without mounting anything.

Needed for the first contents of a volume. The layers' trees are hostile: links are read, never followed,
and resolved here as the container would, beneath the image's root.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LINK_LIMIT = 40
_OPAQUE = "user.overlay.opaque"


def sources_of(lower: Sequence[str], target: str) -> list[str]:
    """The directories that make up `target` in the image whose trees are `lower` (topmost first), topmost
    first.

    Empty when the image has no directory there.
    """
    trees = list(lower)
    waiting = _parts(target)
    below: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            # A container's /.. is /. What was merged above is found again from the top.
            waiting = below[:-1] + waiting
            trees, below = list(lower), []
            continue
        found, link = _step(trees, part)
        if link is not None:
            links += 1
            if links > _LINK_LIMIT:
                return []
            waiting = ([] if link.startswith("/") else list(below)) + _parts(link) + waiting
            trees, below = list(lower), []
            continue
        if not found:
            return []
        trees = found
        below.append(part)
    return trees


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _step(trees: Sequence[str], part: str) -> tuple[list[str], str | None]:
    """The directories called `part` in these merged ones, or the link that hides them."""
    found: list[str] = []
    for tree in trees:
        path = f"{tree}/{part}"
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if stat.S_ISLNK(mode):
            return (found, None) if found else ([], os.readlink(path))
        if not stat.S_ISDIR(mode):
            break  # a file, or a whiteout: what lies below it is hidden
        found.append(path)
        if _is_opaque(path):
            break
    return found, None


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
