"""The result as files: `--output type=local` and `type=tar`.

The tar is the merged view as a container would see it. A directory gets what can be had without privilege:
contents, modes, links and times, all of it the caller's.
"""

from __future__ import annotations

import os
import sys
import tarfile

from duckweed.errors import BuildError
from duckweed.store import scratch
from duckweed.store.tree_stream import TreeStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.build.export import Output
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState


def export_files(build: Build, state: StageState, output: Output) -> None:
    """Writes the files of a state. Raises BuildError, StoreError."""
    build.layering.ensure(state.chain, state.diff_ids)
    request: dict[str, Any] = {
        "kind": "merged",
        "trees": build.layering.lower(state),
        "owners": build.layering.owners,
    }
    if build.epoch is not None:
        request["epoch"] = build.epoch
    try:
        if output.kind == "local":
            _to_directory(build, request, output.destination)
        elif output.destination == "-":
            sys.stdout.flush()
            _to_descriptor(build, request, 1)
        else:
            _to_file(build, request, output.destination)
    except OSError as error:
        raise BuildError(
            f"cannot write `{output.destination}`: {(error.strerror or str(error)).lower()}"
        ) from None


def _to_descriptor(build: Build, request: dict[str, Any], fd: int) -> None:
    if not request["trees"]:
        os.write(fd, bytes(1024))
        return
    with TreeStream(request, build.place.map_texts(), fd) as stream:
        stream.check()


def _to_file(build: Build, request: dict[str, Any], path: str) -> None:
    half = f"{path}.{os.getpid()}.part"
    fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _to_descriptor(build, request, fd)
        os.rename(half, path)
    finally:
        os.close(fd)
        scratch.discard_file(half)


def _to_directory(build: Build, request: dict[str, Any], directory: str) -> None:
    os.makedirs(directory, exist_ok=True)
    whole = scratch.new_path(build.layout, "output")
    fd = os.open(whole, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(whole)
        _to_descriptor(build, request, fd)
        os.lseek(fd, 0, os.SEEK_SET)
        with os.fdopen(os.dup(fd), "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            _extract(tar, os.path.realpath(directory))
    finally:
        os.close(fd)


def _extract(tar: tarfile.TarFile, root: str) -> None:
    """The members beneath the directory; one whose place a link leads away from is refused."""
    times: list[tuple[str, int, int]] = []
    for member in tar:
        target = os.path.join(root, member.name.rstrip("/"))
        parent = os.path.realpath(os.path.dirname(target))
        if not (parent + "/").startswith(root + "/"):
            raise BuildError(f"cannot write `{member.name}`: a link leads outside")
        os.makedirs(parent, exist_ok=True)
        if member.isdir():
            if not os.path.isdir(target) or os.path.islink(target):
                scratch.discard_file(target)
                os.mkdir(target)
            times.append((target, member.mode & 0o7777, int(member.mtime)))
            continue
        if os.path.lexists(target):
            os.unlink(target)
        if member.issym():
            os.symlink(member.linkname, target)
        elif member.islnk():
            os.link(os.path.join(root, member.linkname), target, follow_symlinks=False)
        elif member.isfifo():
            os.mkfifo(target, member.mode & 0o7777)
        elif member.isfile():
            _write(tar, member, target)
    for target, mode, when in reversed(times):
        os.chmod(target, mode)
        os.utime(target, (when, when))


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    source = tar.extractfile(member)
    assert source is not None
    with open(target, "xb") as file:
        while True:
            chunk = source.read(1 << 20)
            if not chunk:
                break
            file.write(chunk)
        # A setuid file would be the caller's own here: nobody asked for that.
        os.fchmod(file.fileno(), member.mode & 0o777)
        file.flush()  # what is written after it would change the time again
        os.utime(file.fileno(), (member.mtime, member.mtime))
