"""Where an archive goes: a file that appears when it is whole, or a stream."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from duckweed.store.layout import cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@contextmanager
def open_output(target: str | int | BinaryIO) -> Iterator[int]:
    """A descriptor to write to: of stdout (`-`), of a descriptor or file object, or of a new file beside
    `target` that takes its place at the end, and is gone after an error. Raises StoreError.

    What is there and no regular file (a pipe, /dev/null) is written to as it is.
    """
    if isinstance(target, int) or not isinstance(target, (str, os.PathLike)):
        yield target if isinstance(target, int) else target.fileno()
    elif target == "-":
        yield 1
    elif _is_special(target):
        fd = _open(target, os.O_WRONLY)
        try:
            yield fd
        finally:
            os.close(fd)
    else:
        yield from _replace(os.fspath(target))


def _replace(path: str) -> Iterator[int]:
    half = f"{path}.{os.getpid()}.part"
    fd = _open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, shown=path)
    try:
        yield fd
        os.rename(half, path)
    except OSError as error:
        _discard(half)
        raise cannot("write", path, error) from None
    except BaseException:
        _discard(half)
        raise
    finally:
        os.close(fd)


def _is_special(path: str | os.PathLike[str]) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _open(path: str | os.PathLike[str], flags: int, shown: str = "") -> int:
    try:
        if shown and os.path.isdir(shown):
            raise IsADirectoryError(21, os.strerror(21))
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot("write", shown or os.fspath(path), error) from None


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
