"""Claims: how two commands that would change one container at once are kept apart, without a lock server or
flock.

A claim is an empty file in the container's directory named `claim.<owner>.<random>`. One puts up one's
own claim, then looks: if nobody else's living claim is there, the container is claimed; otherwise one
takes one's own away and tries again a little later. Of two at once, whoever looked last has seen the
other, so they never both go on. The claim of a dead process is nobody's: it is passed over and swept
away. Names are never used twice, so sweeping a dead claim cannot hit a living one.
"""

from __future__ import annotations

import os
import time

from duckweed.errors import NoSuchContainer, WrongState
from duckweed.store.scratch import is_stale, owner

_PATIENCE_S = 30.0


class Claim:
    """Holds a container's directory against other commands, as a context manager."""

    __slots__ = ("directory", "path")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = ""

    def __enter__(self) -> Claim:
        deadline = time.monotonic() + _PATIENCE_S
        wait_s = 0.002
        while not self.attempt():
            if time.monotonic() > deadline:
                raise WrongState(
                    f"container {os.path.basename(self.directory)[:12]} is being changed by another command"
                )
            # Unequal steps, so that two who met once do not meet for ever.
            time.sleep(wait_s * (0.5 + os.urandom(1)[0] / 255))
            wait_s = min(wait_s * 2, 0.1)
        return self

    def attempt(self) -> bool:
        """Tries once. Raises NoSuchContainer when the directory is gone."""
        name = f"claim.{owner()}.{os.urandom(4).hex()}"
        path = f"{self.directory}/{name}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            entries = os.listdir(self.directory)
        except FileNotFoundError:
            raise NoSuchContainer(f"No such container: {os.path.basename(self.directory)[:12]}") from None
        for entry in entries:
            if entry == name or not entry.startswith("claim."):
                continue
            if not is_stale(entry[len("claim.") :].rpartition(".")[0]):
                self._unlink(path)
                return False
            self._unlink(f"{self.directory}/{entry}")
        self.path = path
        return True

    def release(self) -> None:
        """Gives the container back; nothing happens when its directory is gone."""
        if self.path:
            self._unlink(self.path)
            self.path = ""

    def __exit__(self, *_: object) -> None:
        self.release()

    @staticmethod
    def _unlink(path: str) -> None:
        try:
            os.unlink(path)
        except OSError:
            pass
