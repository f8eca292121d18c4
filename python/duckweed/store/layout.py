"""Every path on disk, and the one place that knows them (docs/contracts.md §2)."""

from __future__ import annotations

import os

from duckweed.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION = "1\n"
_DIRECTORIES = (
    "blobs",
    "blobs/sha256",
    "images",
    "layers",
    "containers",
    "names",
    "volumes",
    "tmp",
    "run",
    "cache",
    "mountpoints",
    "mountpoints/dev",
    "mountpoints/etc",
    "mountpoints/proc",
    "mountpoints/sys",
)
_TREE_DIRECTORIES = (
    "layers",
    "tmp",
    "containers",
    *(name for name in _DIRECTORIES if name.startswith("mountpoints")),
)
_MOUNTED_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf")


def default_root(environ: Mapping[str, str] = os.environ) -> str:
    """`$DUCKWEED_ROOT`, else `$XDG_DATA_HOME/duckweed`, else `~/.local/share/duckweed`; absolute."""
    root = environ.get("DUCKWEED_ROOT")
    if not root:
        data = environ.get("XDG_DATA_HOME", "")
        if not data.startswith("/"):  # the XDG specification: relative paths are invalid and to be ignored
            data = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local/share")
        root = os.path.join(data, "duckweed")
    return os.path.abspath(root)


def read_only_roots(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The read-only stores of `$DUCKWEED_READ_STORES`, separated by colons, in their order; absolute."""
    text = environ.get("DUCKWEED_READ_STORES")
    return tuple(os.path.abspath(path) for path in text.split(":") if path) if text else ()


class Layout:
    """The paths below one root. Making a Layout touches nothing; `ensure` makes the directories.

    `read_stores` are the roots of other stores, never written, where what is not here is looked for
    (`shared`).
    """

    __slots__ = (
        "blobs",
        "build",
        "cache",
        "containers",
        "images",
        "layers",
        "link",
        "mountpoints",
        "names",
        "partial",
        "read_stores",
        "root",
        "tmp",
        "tree_tmp",
        "trees",
        "volumes",
    )

    def __init__(self, root: str | None = None, read_stores: Sequence[str] | None = None) -> None:
        self.root = os.path.abspath(root) if root else default_root()
        others = read_only_roots() if read_stores is None else read_stores
        self.read_stores = tuple(other for other in others if other != self.root)
        self.blobs = self.root + "/blobs/sha256"
        self.images = self.root + "/images"
        self.containers = self.root + "/containers"
        self.names = self.root + "/names"
        self.volumes = self.root + "/volumes"
        self.tmp = self.root + "/tmp"
        self.partial = self.root + "/partial"
        self.cache = self.root + "/cache"
        # Made by the first build: stores of before have none.
        self.build = self.root + "/build"
        # Says where this machine keeps layers, when not here; another machine may share the store.
        self.link = f"{self.cache}/trees.{os.uname().nodename}"
        try:
            self._place_trees(os.readlink(self.link))
        except OSError:
            self._place_trees(self.root)

    def _place_trees(self, directory: str) -> None:
        self.trees = directory
        self.layers = directory + "/layers"
        self.tree_tmp = directory + "/tmp"
        # The lowest lowerdir of every overlay: what an image lacks of the usual mount points is there, so
        # that mounting on them copies nothing up. Whatever the image has covers it.
        self.mountpoints = directory + "/mountpoints"

    def keep_trees_in(self, directory: str) -> bool:
        """Keeps layers in a scratch directory from now on, or (the root) in the store again; true when that
        is new. Raises StoreError.
        """
        try:
            if directory != self.root:
                _make_directories(directory, _TREE_DIRECTORIES)
            if directory == self.trees:
                return False
            if directory == self.root:
                os.unlink(self.link)
            else:
                from duckweed.store import scratch

                half = scratch.new_path(self, "link")
                os.symlink(directory, half)
                os.rename(half, self.link)
        except OSError as error:
            raise cannot("make the scratch directory", directory, error) from None
        self._place_trees(directory)
        return True

    def tells_first(self, word: str) -> bool:
        """Whether what `word` stands for is said for the first time on this machine, in this store."""
        try:
            os.close(
                os.open(
                    f"{self.cache}/told-{word}.{os.uname().nodename}", os.O_CREAT | os.O_EXCL | os.O_WRONLY
                )
            )
        except OSError:
            return False
        return True

    def alone(self) -> Layout:
        """The same store without the read-only ones."""
        return Layout(self.root, ())

    def ensure(self) -> None:
        """Makes the store when it is not there. Raises StoreError; one stat when all is well.

        `version` is written last, so its presence promises the directories.
        """
        try:
            with open(self.root + "/version") as file:
                version = file.read(64)
        except FileNotFoundError:
            self._make()
            return
        except OSError as error:
            raise cannot("open the store", self.root, error) from None
        if version != VERSION:
            raise StoreError(
                f"cannot use the store `{self.root}`: it has version {version.strip()!r},"
                f" this release knows {VERSION.strip()!r}",
                "set `DUCKWEED_ROOT` to another directory, or install the release that made it",
            )

    def _make(self) -> None:
        try:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            # A layer may hold setuid files, which nobody else must reach.
            os.chmod(self.root, 0o700)
            _make_directories(self.root, _DIRECTORIES)
            half = f"{self.tmp}/version.{os.getpid()}"
            with open(half, "w") as file:
                file.write(VERSION)
            os.rename(half, self.root + "/version")
        except OSError as error:
            raise cannot("make the store", self.root, error) from None

    def blob(self, digest: str) -> str:
        """A blob by its (checked) digest."""
        return f"{self.blobs}/{digest[7:]}"

    def tag(self, reference: str) -> str:
        """The record of one tag, by its canonical reference."""
        return f"{self.images}/{quote(reference)}.json"

    def image(self, image_id: str) -> str:
        """The record of one image, tagged or not, by its id (the config's digest)."""
        return f"{self.images}/@{image_id}.json"

    def layer(self, chain_id: str, flavour: str) -> str:
        """One extracted layer."""
        return f"{self.layers}/{chain_id[7:]}.{flavour}"

    def container(self, container_id: str) -> str:
        """One container's directory."""
        return f"{self.containers}/{container_id}"

    def name(self, name: str) -> str:
        """The symlink that claims a container name."""
        return f"{self.names}/{name}"

    def volume(self, name: str) -> str:
        """One volume's directory; its data is in `_data`."""
        return f"{self.volumes}/{name}"

    def probe(self, boot_id: str, key: str) -> str:
        """The cached result of the host probe of this boot; `key` stands for what else it depends on."""
        return f"{self.cache}/probe-{boot_id}-{key}.json"

    def run(self, environ: Mapping[str, str] = os.environ) -> str:
        """The directory for sockets: `$XDG_RUNTIME_DIR/duckweed` when that is ours, else `run/` of the
        store. Not created.
        """
        runtime = environ.get("XDG_RUNTIME_DIR", "")
        if runtime.startswith("/"):
            try:
                facts = os.stat(runtime)
            except OSError:
                facts = None
            if facts is not None and facts.st_uid == os.geteuid() and facts.st_mode & 0o077 == 0:
                return runtime + "/duckweed"
        return self.root + "/run"


def _make_directories(top: str, names: Sequence[str]) -> None:
    for name in names:
        os.makedirs(f"{top}/{name}", exist_ok=True)
        os.chmod(f"{top}/{name}", 0o755 if name.startswith("mountpoints") else 0o700)
    for name in _MOUNTED_FILES:
        os.close(os.open(f"{top}/mountpoints/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def quote(reference: str) -> str:
    """A reference as a file name: urllib's `quote(reference, safe="")`, whose import costs more than a
    whole lookup.
    """
    if reference.isascii():
        return "".join(c if c.isalnum() or c in "_.-~" else f"%{ord(c):02X}" for c in reference)
    from urllib.parse import quote as quote_any

    return quote_any(reference, safe="")


def tag_of(file_name: str) -> str | None:
    """The canonical reference that a file of images/ is named for; None for the record of an image."""
    from urllib.parse import unquote

    return None if file_name.startswith("@") else unquote(file_name[: -len(".json")])


def hint_for(number: int | None) -> str:
    """What to do about an errno of the store's disk, without privilege; empty when nothing is known."""
    import errno

    hints = {
        errno.ENOSPC: "free some, as with `duckweed system prune`, or set `DUCKWEED_ROOT` to a larger disk",
        errno.EDQUOT: "your quota is used up; free some space, or set `DUCKWEED_ROOT` to another disk",
        errno.EROFS: "set `DUCKWEED_ROOT` to a directory that can be written",
        errno.EACCES: "set `DUCKWEED_ROOT` to a directory of your own",
    }
    return hints.get(number or 0, "")


def cannot(operation: str, path: str, error: OSError) -> StoreError:
    """The one-line StoreError for an operating system's refusal."""
    import errno

    name = errno.errorcode.get(error.errno or 0, "EIO")
    words = (error.strerror or str(error)).lower()
    return StoreError(f"cannot {operation} `{path}`: {words} ({name})", hint_for(error.errno))
