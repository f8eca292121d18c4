"""One user namespace for the ephemeral containers of one engine.

Making a user namespace and having newuidmap and newgidmap write its maps costs one to three milliseconds
of a start that takes three to five. An engine that runs container after container makes it once and keeps
it by a descriptor alone: no process, no file. Rootless podman shares one namespace between all containers
of a user in the same way; mount, pid, ipc, network, host name and cgroup namespaces stay each container's
own. A privileged container gets a user namespace of its own.
"""

from __future__ import annotations

import atexit
import os
import threading

from duckweed import _core
from duckweed.containers import supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.containers.place import Place

# What it is called in the supervisor.
NUMBER = 4

# A program that ends right after a run leaves nothing that is still being removed.
atexit.register(_core.settle)


class SharedNamespace:
    """A user namespace with `place`'s maps, made when a second container asks for it: one alone would not
    gain by it.
    """

    __slots__ = ("_asked", "_fd", "_lock", "_place", "standbys")

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._asked = 0
        self._fd = -1
        # Supervisors in it that wait for the next container.
        self.standbys: _core.Standbys | None = None

    def descriptor(self) -> int:
        """The descriptor, or -1 where the container should make its own. Never raises: sharing is only a
        saving.
        """
        if self._fd < 0 and self._asked >= 0:
            with self._lock:
                self._asked += 1
                if self._fd < 0 and self._asked == 2:
                    self._fd = _make(*self._place.map_texts())
                    self._asked = -1 if self._fd < 0 else 0
                    if self._fd >= 0:
                        argv = [supervisor.RUNTIME, "supervise", "--channel", "3", "--inherit"]
                        argv += ["--userns", str(NUMBER)]
                        self.standbys = _core.Standbys(argv, [(self._fd, NUMBER)], _most())
        return self._fd

    def close(self) -> None:
        """Ends the standbys, and returns when nothing of past runs is being removed any more."""
        if self.standbys is not None:
            self.standbys.close()
        _core.settle()

    def __del__(self) -> None:
        if self.standbys is not None:
            self.standbys.close()
        if self._fd >= 0:
            os.close(self._fd)


def _most() -> int:
    """How many containers may be starting at once, and how many supervisors are kept for the next ones.

    Starting is work for processors alone: a few for each keep them busy, more are only in each other's way.
    """
    return min(4 * (os.cpu_count() or 1), 32)


def _make(uid_map: str, gid_map: str) -> int:
    ours, theirs = _core.channel()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        argv = [supervisor.RUNTIME, "userns", "--uid-map", uid_map, "--gid-map", gid_map, "--channel", "3"]
        pid = _core.spawn(argv, [(null, 0), (null, 1), (null, 2), (theirs, 3)])
        os.close(theirs)
        theirs = -1
        answer = _core.receive(ours, None)
        supervisor.reap(pid)
        return answer[2][0] if answer and answer[2] else -1
    except OSError:
        return -1
    finally:
        for fd in (ours, theirs, null):
            if fd >= 0:
                os.close(fd)
