"""Reading a container's json-file log: from the right place, in order, and to the very end.

The supervisor appends one JSON entry a line and rotates by renaming: `container.log` is the newest, `.1`
older, and so on. A reader holds the file open, so a rename beneath it loses nothing; at the end of a file
it asks whether the name still means that file, and moves on only after reading once more.
"""

from __future__ import annotations

import json
import os

from duckweed.containers.quantities import parse_moment, parse_rfc3339
from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_BLOCK = 64 * 1024
# How often a log that is being rotated is opened anew.
_ROTATIONS = 100


def parse_tail(value: int | str | None) -> int:
    """How many lines from the end; -1 is all of them. What is not a number is "all", as in Docker."""
    if value is None or value == "all":
        return -1
    try:
        number = int(value)
    except ValueError:
        raise UsageError(f'invalid value for "tail": {value}', "write a number of lines, or `all`") from None
    return number if number >= 0 else -1


def rotated_files(path: str) -> list[str]:
    """The log's files that exist, oldest first."""
    directory, name = os.path.split(path)
    try:
        entries = os.listdir(directory)
    except FileNotFoundError:
        return []
    numbers = [
        int(entry[len(name) + 1 :])
        for entry in entries
        if entry.startswith(name + ".") and entry[len(name) + 1 :].isdigit()
    ]
    files = [f"{path}.{number}" for number in sorted(numbers, reverse=True)]
    return files + ([path] if name in entries else [])


def read_log(
    path: str,
    *,
    tail: int = -1,
    since: str | float | None = None,
    until: str | float | None = None,
    timestamps: bool = False,
    wait: Callable[[float], bool] | None = None,
) -> Iterator[tuple[str, bytes]]:
    """The log's entries as `(stream, bytes)`.

    `wait(seconds)` makes it follow: it is called at the end of the log, sleeps at most that long, and
    says whether the container may still write; after it has said no, the rest is read and the iteration
    ends.
    """
    after = None if since in (None, "") else parse_moment(since)
    before = None if until in (None, "") else parse_moment(until)
    for line in _lines(path, tail, wait):
        entry = _decode(line)
        if entry is None:
            continue
        stream, text, time = entry
        if after is not None or before is not None:
            moment = parse_rfc3339(time)
            if moment is not None and after is not None and moment < after:
                continue
            if moment is not None and before is not None and moment > before:
                return
        yield stream, (f"{_fixed(time)} {text}" if timestamps else text).encode("utf-8", "surrogateescape")


def _fixed(time: str) -> str:
    """A logged time with nine digits of a second, as `docker logs -t` shows it: its lines begin in one
    column.
    """
    seconds, _, fraction = time[:-1].partition(".")
    return f"{seconds}.{fraction:0<9}Z" if time.endswith("Z") else time


def _decode(line: bytes) -> tuple[str, str, str] | None:
    try:
        entry = json.loads(line)
        return str(entry.get("stream", "stdout")), str(entry["log"]), str(entry.get("time", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # torn by a crash


def _open_all(path: str) -> list[BinaryIO]:
    """All files, oldest first, each once. A rotation between listing and opening gives names to other files,
    and one could be passed over: what was opened must be what the names mean afterwards, too.
    """
    for _ in range(_ROTATIONS):
        files = _open_each(rotated_files(path))
        if list(map(_inode, files)) == _inodes(rotated_files(path)):
            break
        for file in files:
            file.close()
    else:
        files = _open_each(rotated_files(path))
    return files


def _open_each(names: list[str]) -> list[BinaryIO]:
    files: list[BinaryIO] = []
    for name in names:
        try:
            file = open(name, "rb", buffering=0)
        except FileNotFoundError:
            continue
        if _inode(file) in map(_inode, files):
            file.close()
            continue
        files.append(file)
    return files


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _inodes(names: list[str]) -> list[int]:
    found = []
    for name in names:
        try:
            found.append(os.stat(name).st_ino)
        except FileNotFoundError:
            found.append(0)
    return found


def _lines(path: str, tail: int, wait: Callable[[float], bool] | None) -> Iterator[bytes]:
    files = _open_all(path)
    if tail >= 0:
        files = _seek_tail(files, tail)
    if wait is not None and not files:
        files = _await_first(path, wait)
    try:
        while files:
            file = files[0]
            if len(files) == 1 and wait is not None:
                yield from _follow(path, file, files, wait)
                return
            yield from _complete_lines(file)
            files.pop(0).close()
    finally:
        for file in files:
            file.close()


def _complete_lines(file: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while True:
        block = file.read(_BLOCK)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def _await_first(path: str, wait: Callable[[float], bool]) -> list[BinaryIO]:
    alive = True
    while True:
        files = _open_all(path)
        if files or not alive:
            return files
        alive = wait(0.1)


def _follow(
    path: str, file: BinaryIO, files: list[BinaryIO], wait: Callable[[float], bool]
) -> Iterator[bytes]:
    rest = b""
    pause_s = 0.01
    alive = True
    while True:
        block = file.read(_BLOCK)
        if block:
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            pause_s = 0.01
            continue
        successors = _successors(path, file)
        if successors:
            # Renamed away: what was written just before that is still unread.
            yield from _last_lines(file, rest)
            file.close()
            files[:] = successors
            for older in successors[:-1]:
                yield from _complete_lines(older)
                older.close()
            file, rest = successors[-1], b""
            files[:] = [file]
            continue
        if os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)  # a log of one file starts again when it is full
            rest = b""
            continue
        if not alive:
            if rest:
                yield rest
            return
        alive = wait(pause_s)
        pause_s = min(pause_s * 2, 0.1)


def _last_lines(file: BinaryIO, rest: bytes) -> Iterator[bytes]:
    while True:
        block = file.read(_BLOCK)
        if not block:
            break
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _successors(path: str, file: BinaryIO) -> list[BinaryIO]:
    """The files newer than `file`, oldest first; empty while `path` still means `file` (or nothing)."""
    inode = _inode(file)
    try:
        if os.stat(path).st_ino == inode:
            return []
    except FileNotFoundError:
        return []
    newer: list[BinaryIO] = []
    for candidate in _open_all(path):
        if _inode(candidate) == inode:
            # All before it are older still, and read already.
            for older in (*newer, candidate):
                older.close()
            newer = []
        else:
            newer.append(candidate)
    return newer


def _seek_tail(files: list[BinaryIO], count: int) -> list[BinaryIO]:
    """Positions the files so that `count` lines remain; those before are closed. Reads from the end in
    blocks.
    """
    for index in range(len(files) - 1, -1, -1):
        file = files[index]
        missing, position = _seek_lines_from_end(file, count)
        file.seek(position)
        if missing == 0:
            for older in files[:index]:
                older.close()
            return files[index:]
        count = missing
    return files


def _seek_lines_from_end(file: BinaryIO, count: int) -> tuple[int, int]:
    """(lines still missing, offset at which the wanted ones begin)."""
    end = file.seek(0, os.SEEK_END)
    if count == 0:
        return 0, end
    position = end
    found = 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        at = len(block)
        while True:
            at = block.rfind(b"\n", 0, at)
            if at < 0:
                break
            if position + at == end - 1:
                continue  # the newline that ends the last line begins no line
            found += 1
            if found == count:
                return 0, position + at + 1
    found += 1 if end > 0 else 0
    return max(0, count - found), 0
