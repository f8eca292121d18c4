"""Trees as streams: a container's changes or a whole view as a tar, made while it is read.

A request (docs/contracts.md §8) says what of which trees. Files of subordinate ids can be read in their user
namespace only, so the runtime helper does the work there and writes into a pipe; nothing whole is ever in
memory.
"""

from __future__ import annotations

import json
import os

from duckweed.errors import StoreError
from duckweed.store import within
from duckweed.store.layers import LayerBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_F_SETPIPE_SZ = 1031  # <linux/fcntl.h>; fcntl has it since Python 3.10
_PIPE_BYTES = 1 << 20
_ERROR_LIMIT = 4096
_ARGUMENT_LIMIT = 100_000


class TreeStream(LayerBytes):
    """The tar of a request, to be read from the descriptor `source` as it is made. A context manager; `check`
    after the last byte.

    `out_fd` names a descriptor to write to instead: there is nothing to read then.
    """

    __slots__ = ("_err", "_pid", "_reading")

    def __init__(self, request: dict[str, Any], maps: tuple[str, str], out_fd: int | None = None) -> None:
        read_end = -1
        if out_fd is None:
            read_end, write_end = os.pipe()
            _widen(write_end)
        else:
            write_end = os.dup(out_fd)
        self._err, err_write = os.pipe()
        try:
            self._pid = _spawn(request, maps, write_end, err_write)
        except BaseException:
            os.close(self._err)
            if read_end >= 0:
                os.close(read_end)
            raise
        finally:
            os.close(write_end)
            os.close(err_write)
        self._reading = read_end
        super().__init__(read_end)

    def check(self) -> None:
        """Waits for the maker. Raises StoreError with its own line when the archive is not complete."""
        pid, self._pid = self._pid, 0
        if not pid:
            return
        words = b""
        while chunk := os.read(self._err, 65536):
            words = (words + chunk)[-_ERROR_LIMIT:]
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise StoreError(within.own_words(words, status))

    def blame(self) -> None:
        """After the taker has failed: raises StoreError when the maker was the one that failed first."""
        self._stop_reading()
        try:
            self.check()
        except StoreError as error:
            if "cannot write the archive" not in error.message:
                raise

    def _stop_reading(self) -> None:
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1

    def close(self) -> None:
        """Lets the maker go: it ends at the latest when it finds nobody reading."""
        self._stop_reading()
        os.close(self._err)
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0

    def __enter__(self) -> TreeStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spawn(request: dict[str, Any], maps: tuple[str, str], out: int, err: int) -> int:
    """Starts the maker. A long request comes on its stdin: execve(2) takes no argument over 128 KiB."""
    text = json.dumps(request)
    if len(text) < _ARGUMENT_LIMIT:
        return within.spawn(*maps, "archive", text, out=out, err=err)
    memory = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(memory, 0, os.SEEK_SET)
        return within.spawn(*maps, "archive", "-", out=out, err=err, input=memory)
    finally:
        os.close(memory)


def _widen(fd: int) -> None:
    """A pipe of a mebibyte, where the user's limit allows it."""
    import fcntl

    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass


def changes(request: dict[str, Any], maps: tuple[str, str]) -> list[tuple[str, bytes]]:
    """What a request's tree changes: `("A" | "C" | "D", path)`, sorted by path. Raises StoreError."""
    answer = within.run(*maps, "changes", json.dumps(request))
    return [(chr(line[0]), line[1:]) for line in answer.split(b"\0") if line]
