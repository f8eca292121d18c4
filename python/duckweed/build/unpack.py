"""Archives: told by what is in them, unpacked into a context or, for ADD, straight into a layer.

Names in an archive are hostile. A layer goes through the same extraction as a pulled one; a context is
unpacked by Python's `data` filter, beneath its directory.
"""

from __future__ import annotations

import os
import tarfile

from duckweed import _core
from duckweed.errors import BuildError
from duckweed.store import scratch
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.build.copy_plan import CopyPlan
    from duckweed.build.layering import NewLayer
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState
    from duckweed.store.layout import Layout

_ZSTD = b"\x28\xb5\x2f\xfd"
_MAGICS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", _ZSTD)


def is_archive(path: str) -> bool:
    """Whether a file is a tar, plain or packed with gzip, bzip2, xz or zstd: by its contents."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return False
    if head.startswith(_ZSTD):
        return _is_zstd_tar(path)
    if not head.startswith(_MAGICS) and head[257:262] != b"ustar" and not _has_checksum(head):
        return False
    try:
        with tarfile.open(path, "r:*") as tar:
            return tar.next() is not None
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return False


def _has_checksum(head: bytes) -> bool:
    """An old tar has no magic, but its header adds up."""
    if len(head) < 512 or not any(head):
        return False
    digits = head[148:156].strip(b" \0")
    total = sum(head[:148]) + 8 * 32 + sum(head[156:])
    return bool(digits) and not digits.strip(b"01234567") and int(digits, 8) == total


def _is_zstd_tar(path: str) -> bool:
    try:
        with open_tar(path) as tar:
            return tar.next() is not None
    except (tarfile.TarError, OSError, EOFError, ValueError, BuildError):
        return False


def open_tar(path: str) -> tarfile.TarFile:
    """The archive in a file, whatever it is packed with. Raises BuildError, TarError, OSError."""
    with open(path, "rb") as file:
        is_zstd = file.read(4) == _ZSTD
    if not is_zstd:
        return tarfile.open(path, "r:*")
    import tempfile

    plain = tempfile.TemporaryFile()
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _core.decompress(source, plain.fileno())
    finally:
        os.close(source)
    plain.seek(0)
    return tarfile.open(fileobj=plain, mode="r:")


def unpack_context(layout: Layout, archive: str, directory: str) -> None:
    """Unpacks a context. Raises BuildError."""
    try:
        with open_tar(archive) as tar:
            _extract(tar, directory)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        words = " ".join(str(error).split())
        raise BuildError(f"cannot unpack the context: {words}") from None


def _extract(tar: tarfile.TarFile, directory: str) -> None:
    """Regular files, directories and links, none of them outside; devices mean nothing in a context."""
    root = os.path.realpath(directory)
    for member in tar:
        name = os.path.normpath(member.name.lstrip("/"))
        if name == ".":
            continue
        target = os.path.join(root, name)
        parent = os.path.realpath(os.path.dirname(target))
        if name.startswith("..") or not (parent + "/").startswith(root + "/"):
            raise BuildError(f"cannot unpack the context: `{member.name}` leads outside")
        os.makedirs(parent, exist_ok=True)
        if member.isdir():
            os.makedirs(target, exist_ok=True)
            os.chmod(target, member.mode & 0o7777 | 0o700)
        elif member.issym():
            scratch.discard_file(target)
            os.symlink(member.linkname, target)
        elif member.isfile() or member.islnk():
            source = tar.extractfile(member)
            if source is not None:
                scratch.discard_file(target)
                _write(target, source, member)


def _write(target: str, source: object, member: tarfile.TarInfo) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        while True:
            chunk = source.read(1 << 20)  # type: ignore[attr-defined]
            if not chunk:
                break
            file.write(chunk)
        os.fchmod(file.fileno(), member.mode & 0o7777)
        os.utime(file.fileno(), (member.mtime, member.mtime))


def layer_with_archives(
    build: Build, state: StageState, plan: CopyPlan, archives: list[str], target: str
) -> NewLayer:
    """The layer of an ADD that unpacks: the archives' members beneath the target, then the plan's files."""
    work = scratch.new_directory(build.layout, "add")
    try:
        path = work + "/layer.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
            try:
                for archive in archives:
                    with open_tar(archive) as tar:
                        _Rewriter(plan, target, out, build.epoch).add(tar)
            except (tarfile.TarError, EOFError) as error:
                raise BuildError(f"cannot unpack `{os.path.basename(archive)}`: {error}") from None
            _Rewriter(plan, target, out, build.epoch).add_plan()
        return build.layering.add_tar(state, path)
    finally:
        remove_tree(work)


class _Rewriter:
    """Puts the members of an archive beneath a directory of the image."""

    def __init__(self, plan: CopyPlan, target: str, out: tarfile.TarFile, epoch: int | None) -> None:
        self._plan = plan
        self._latest = float("inf") if epoch is None else epoch
        self._base = plan.below.resolve(target.strip("/"))
        self._out = out
        plan.make_directories(self._base)

    def add(self, tar: tarfile.TarFile) -> None:
        self._add_made()
        for member in tar:
            where = self._where(member.name)
            if not where:
                continue
            source = tar.extractfile(member) if member.isfile() else None
            new = tarfile.TarInfo(where)
            for name in ("mode", "mtime", "type", "size", "devmajor", "devminor", "uid", "gid"):
                setattr(new, name, getattr(member, name))
            new.mtime = int(min(member.mtime, self._latest))
            new.linkname = self._where(member.linkname) if member.islnk() else member.linkname
            if member.issparse():
                new.type = tarfile.REGTYPE
            if self._plan.owner is not None:
                new.uid, new.gid = self._plan.owner
            new.pax_headers = {
                key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")
            }
            self._out.addfile(new, source)

    def _where(self, name: str) -> str:
        """The member's path in the image: links of the image's directories on the way are followed."""
        clean = os.path.normpath("/" + name).lstrip("/")
        if not clean or clean == ".":
            return ""
        parent, _, last = f"{self._base}/{clean}".lstrip("/").rpartition("/")
        return f"{self._plan.below.resolve(parent)}/{last}".lstrip("/")

    def _add_made(self) -> None:
        """The directories that were made on the way come first."""
        for path, entry in list(self._plan.entries.items()):
            if entry.node is None and entry.data is None:
                self._add_entry(path)
                del self._plan.entries[path]

    def _add_entry(self, path: str) -> None:
        entry = self._plan.entries[path]
        info = tarfile.TarInfo(path)
        info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.time
        info.mtime = min(info.mtime, self._latest)
        if entry.is_directory:
            info.type = tarfile.DIRTYPE
            self._out.addfile(info)
        elif entry.data is not None:
            import io

            info.size = len(entry.data)
            self._out.addfile(info, io.BytesIO(entry.data))
        elif entry.node is not None and entry.node.kind == "symlink":
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(entry.node.path)
            self._out.addfile(info)
        elif entry.node is not None and entry.node.kind == "file":
            with open(entry.node.path, "rb") as file:
                info.size = os.fstat(file.fileno()).st_size
                self._out.addfile(info, file)

    def add_plan(self) -> None:
        for path in sorted(self._plan.entries, key=os.fsencode):
            self._add_entry(path)
