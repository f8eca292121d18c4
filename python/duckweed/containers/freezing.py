"""A container that stands still for a while, as Docker's commit and cp want it.

The runtime's `freeze` does it, for as long as a pipe from here is open: when this process is killed, the
container goes on.
"""

from __future__ import annotations

import os

from duckweed.errors import StoreError
from duckweed.store.within import RUNTIME, own_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.containers.container import Container

_ERROR_LIMIT = 4096


class Frozen:
    """A context manager: the container's processes are stopped inside. A container that does not run is left
    alone.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._hold = -1
        self._pid = 0

    def __enter__(self) -> Frozen:
        state = self._container.state()
        if state.running and not state.elsewhere:
            self._freeze(state.pid)
        return self

    def _freeze(self, init: int) -> None:
        stdin, self._hold = os.pipe()
        answer, stdout = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, stdout, 2))
        try:
            argv = [RUNTIME, "freeze", "--pid", str(init)]
            self._pid = os.posix_spawn(RUNTIME, argv, os.environ, file_actions=actions)
        except OSError as error:
            raise StoreError(f"cannot run `{RUNTIME}`: {(error.strerror or str(error)).lower()}") from None
        finally:
            os.close(stdin)
            os.close(stdout)
        words = os.read(answer, _ERROR_LIMIT)
        os.close(answer)
        if not words.startswith(b"ok") and self._container.state().running:
            self.__exit__()
            raise StoreError(
                f"cannot pause container {self._container.short_id}: {own_words(words, 1)}",
                "stop it first, or use `--pause=false`",
            )

    def __exit__(self, *_: object) -> None:
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0
