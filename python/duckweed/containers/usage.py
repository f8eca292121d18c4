"""How much room a tree takes, for `ps --size` and `prune`."""

from __future__ import annotations

import os


def tree_bytes(path: str) -> int:
    """The sum of the file sizes below `path`; hard links count once, what cannot be read counts nothing."""
    total = 0
    seen: set[tuple[int, int]] = set()
    waiting = [path]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif facts.st_nlink == 1 or (facts.st_dev, facts.st_ino) not in seen:
                    seen.add((facts.st_dev, facts.st_ino))
                    total += facts.st_size
    return total
