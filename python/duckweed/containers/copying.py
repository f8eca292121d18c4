"""`cp`: files out of a container and into it, running or not, by Docker's rules.

Inside, the runtime works as root of the container, with its `/` and its mounts: links lead nowhere else, and
files belong to whom they should. Outside, the extension works as the user and follows no link that a
container could have made. Between them is a pipe with a tar in it.
"""

from __future__ import annotations

import json
import os

from duckweed import _core
from duckweed.containers.claim import Claim
from duckweed.errors import DuckweedError, NotFound, StoreError, UsageError, WrongState
from duckweed.store.within import RUNTIME, own_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.containers.container import Container

_ERROR_LIMIT = 4096
_NOT_THERE, _NO_DIRECTORY, _ONTO_FILE = 3, 4, 5


class Copied:
    """What a copy was: `size` of its tar in bytes, and `skipped`, what was left out, one line each."""

    __slots__ = ("size", "skipped")

    def __init__(self, size: int, skipped: list[str]) -> None:
        self.size = size
        self.skipped = skipped


def copy_from(container: Container, path: str, target: str | int, *, follow_link: bool = False) -> Copied:
    """Copies `path` of the container to a path of this machine, or as a tar to a descriptor.

    Raises NotFound, UsageError, StoreError.
    """
    name = _base_name(path)
    if isinstance(target, int):
        request = {"send": path, "follow": follow_link, "name": name or "."}
        with _Worker(container, path, request, stdout=target) as worker:
            worker.finish()
        return Copied(0, [])
    request = {"send": path, "follow": follow_link, "name": "."}
    read_end, write_end = os.pipe()
    try:
        with _Worker(container, path, request, stdout=write_end) as worker:
            os.close(write_end)
            write_end = -1
            try:
                size, skipped = _core.receive_path(
                    read_end, _absolute(target), os.fsencode(name), _is_contents(path)
                )
            except (OSError, DuckweedError) as error:
                # The other side may be waiting for somebody to read.
                os.close(read_end)
                read_end = -1
                worker.blame()
                if isinstance(error, OSError):
                    raise _local_fault(error, target, is_source=False) from None
                raise
            worker.finish()
    finally:
        for fd in (read_end, write_end):
            if fd >= 0:
                os.close(fd)
    return Copied(size, skipped)


def copy_to(
    container: Container,
    source: str | int,
    path: str,
    *,
    follow_link: bool = False,
    archive: bool = False,
) -> Copied:
    """Copies a path of this machine to `path` of the container, owned by its root unless `archive` keeps the
    ids; or unpacks a tar (plain, gzip, zstd) from a descriptor into the directory `path`.

    Raises NotFound, UsageError, StoreError.
    """
    if isinstance(source, int):
        with _Worker(container, path, {"unpack": path}, stdin=source) as worker:
            return Copied(0, worker.finish())
    request = {
        "receive": path,
        "name": _base_name(_absolute(source)),
        "contents": _is_contents(source),
        "owner": None if archive else [0, 0],
    }
    absolute = _absolute(source)
    if not os.path.lexists(absolute.rstrip("/") or "/"):
        raise _local_fault(FileNotFoundError(2, ""), source, is_source=True)
    read_end, write_end = os.pipe()
    try:
        with _Worker(container, path, request, stdin=read_end) as worker:
            os.close(read_end)
            read_end = -1
            try:
                size = _core.send_path(absolute, follow_link, write_end)
            except BrokenPipeError:
                worker.finish()  # it says why it reads no more
                raise StoreError(f"cannot copy to `{path}`: the helper has ended") from None
            except OSError as error:
                raise _local_fault(error, source, is_source=True) from None
            finally:
                os.close(write_end)
                write_end = -1
            return Copied(size, worker.finish())
    finally:
        for fd in (read_end, write_end):
            if fd >= 0:
                os.close(fd)


def _absolute(path: str) -> str:
    """The path from the machine's root, what it ends with untouched: `x/.` and `x` are not the same."""
    return path if path.startswith("/") else f"{os.getcwd()}/{path}"


def _is_contents(path: str) -> bool:
    return path == "." or path.endswith("/.")


def _base_name(path: str) -> str:
    """What the source is called: the last part; nothing for a root."""
    return os.path.basename(os.path.normpath(path)).lstrip("/") if path.strip("/.") else ""


def _local_fault(error: OSError, path: str, *, is_source: bool) -> DuckweedError:
    if isinstance(error, FileNotFoundError) and is_source:
        return NotFound(f"lstat {_absolute(path)}: no such file or directory")
    if isinstance(error, FileNotFoundError):
        parent = os.path.dirname(_absolute(path).rstrip("/"))
        return NotFound(f'invalid output path: directory "{parent}" does not exist')
    if isinstance(error, IsADirectoryError):
        return UsageError("cannot copy directory", f"`{path}` is a file", exit_code=1)
    if isinstance(error, NotADirectoryError):
        words = "not a directory" if is_source else "no such directory"
        return NotFound(f"{words}: {path}")
    return StoreError(f"cannot copy `{path}`: {(error.strerror or str(error)).lower()}")


class _Worker:
    """The runtime's `copy` at work in one container; a context manager that ends it."""

    def __init__(
        self, container: Container, path: str, request: dict[str, Any], *, stdin: int = -1, stdout: int = -1
    ) -> None:
        self._container = container
        self._path = path
        self._request = request
        self._stdin = stdin
        self._stdout = stdout
        self._claim: Claim | None = None
        self._pid = 0
        self._err = -1

    def __enter__(self) -> _Worker:
        argv = [RUNTIME, "copy", "--container", self._container.directory]
        state = self._container.state()
        if state.elsewhere:
            raise WrongState(
                f"cannot copy: container {self._container.short_id} runs on the host `{state.elsewhere}`"
            )
        if state.running:
            argv += ["--pid", str(state.pid)]
        else:
            # Nobody may start it while its files are mounted here.
            self._claim = Claim(self._container.directory)
            self._claim.__enter__()
        try:
            self._spawn([*argv, json.dumps(self._request)])
        except BaseException:
            self.__exit__()
            raise
        return self

    def _spawn(self, argv: list[str]) -> None:
        self._err, err_write = os.pipe()
        actions: list[Any] = [(os.POSIX_SPAWN_DUP2, err_write, 2)]
        for fd, target, flags in ((self._stdin, 0, os.O_RDONLY), (self._stdout, 1, os.O_WRONLY)):
            if fd < 0:
                actions.append((os.POSIX_SPAWN_OPEN, target, "/dev/null", flags, 0))
            else:
                actions.append((os.POSIX_SPAWN_DUP2, fd, target))
        try:
            self._pid = os.posix_spawn(RUNTIME, argv, os.environ, file_actions=actions)
        except OSError as error:
            raise StoreError(f"cannot run `{RUNTIME}`: {(error.strerror or str(error)).lower()}") from None
        finally:
            os.close(err_write)

    def finish(self) -> list[str]:
        """Waits for its end; its notes. Raises what it says in Docker's words."""
        words = b""
        while chunk := os.read(self._err, 65536):
            words = (words + chunk)[-_ERROR_LIMIT:]
        pid, self._pid = self._pid, 0
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 0:
            lines = words.decode(errors="replace").splitlines()
            return [line[len("note: ") :] for line in lines if line.startswith("note: ")]
        raise self._fault(code, own_words(words, code))

    def blame(self) -> None:
        """After the other side has failed: raises when this one was the first to."""
        try:
            self.finish()
        except StoreError as error:
            if "cannot write the archive" not in error.message:
                raise

    def _fault(self, code: int, words: str) -> DuckweedError:
        if code == _NOT_THERE:
            return NotFound(f"Could not find the file {self._path} in container {self._container.name}")
        if code == _NO_DIRECTORY:
            return NotFound(f"no such directory: {self._container.name}:{self._path}")
        if code == _ONTO_FILE:
            return UsageError(
                "cannot copy directory", f"`{self._path}` of the container is a file", exit_code=1
            )
        return StoreError(words)

    def __exit__(self, *_: object) -> None:
        if self._pid:
            import signal

            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
            self._pid = 0
        if self._err >= 0:
            os.close(self._err)
            self._err = -1
        if self._claim is not None:
            self._claim.release()
            self._claim = None
