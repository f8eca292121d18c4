"""Where images run: in the store, or, where its file system is not fit for that, in a scratch directory.

A home on NFS or a disk mounted noexec keeps blobs, records and logs well enough, but overlay wants extended
attributes and whiteouts beneath a container, and programs want to be started. So the layers' trees and the
containers' files go to the first directory of `$TMPDIR`, /tmp, /var/tmp and /dev/shm that is better, each
tried by the probe as the store is. There they lie in `duckweed-<uid>/<hash of the store's root>`, which is
ours and 0700 or not used at all, so that one machine finds them again; another machine makes its own.
"""

from __future__ import annotations

import os
import stat

from duckweed.errors import Unsupported
from duckweed.host import probe
from duckweed.host.facts import NETWORK_FILE_SYSTEMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from duckweed.host.facts import Facts

_LOW_SPACE_BYTES = 1 << 30
_USUAL = ("/tmp", "/var/tmp", "/dev/shm")
# What overlay and its layers need of a file system, and what to say of one without it.
_NEEDED = (
    ("store_xattr", "has no extended attributes"),
    ("store_whiteout", "cannot hold whiteouts"),
    ("store_hardlink", "has no hard links"),
)


class RunningPlace:
    """`path` is the scratch directory, `facts` the probe's of it, `why` what the store lacks ("" when a
    scratch directory was only asked for), `is_for_layers` whether the trees go there too.
    """

    __slots__ = ("facts", "is_for_layers", "path", "why")

    def __init__(self, path: str, facts: Facts, why: str, is_for_layers: bool) -> None:
        self.path = path
        self.facts = facts
        self.why = why
        self.is_for_layers = is_for_layers

    @property
    def note(self) -> str:
        """What to tell people, in one line."""
        if not self.is_for_layers:
            return f"what containers write is in `{self.path}`"
        return f"the store {self.why}: images stay there, running copies are in `{self.path}`"


def why_not(facts: Facts) -> str:
    """What this store lacks for running from it, as the end of a sentence; "" when it lacks nothing."""
    if facts.ok("store_write") and not facts.ok("store_exec"):
        return f"is mounted noexec {facts.why('store_exec')}".rstrip()
    kind = facts.filesystem.get("type")
    if kind in NETWORK_FILE_SYSTEMS:
        return f"is on {kind}"
    for name, words in _NEEDED:
        if facts.ok("store_write") and not facts.ok(name):
            return f"{words} {facts.why(name)}".rstrip()
    return ""


def rank(facts: Facts) -> tuple[bool, bool]:
    """How good a directory is for running: programs start; overlay works and all its marks can be held."""
    has_overlay = facts.ok("overlay_lowerdir_add") or facts.ok("overlay")
    return facts.ok("store_write") and facts.ok("store_exec"), has_overlay and not why_not(facts)


def find(
    root: str, facts: Facts, asked: str = "", environ: Mapping[str, str] = os.environ
) -> RunningPlace | None:
    """Where to run what the store at `root` holds; None for the store itself.

    `asked` is the user's own choice. Raises Unsupported when that cannot be used.
    """
    why = why_not(facts)
    if asked:
        found = _try(root, os.path.abspath(asked), environ)
        if found is None or not rank(found[1])[0]:
            raise Unsupported(
                f"cannot use the scratch directory `{asked}`: "
                + ("it cannot be written" if found is None else "programs cannot be started from it"),
                "name another with `DUCKWEED_SCRATCH`, or leave the choice to duckweed",
            )
        return RunningPlace(found[0], found[1], why, rank(found[1]) > rank(facts))
    if not why:
        return None
    second = None
    for directory in _candidates(environ):
        found = _try(root, directory, environ) if _is_kept(directory) else None
        if found is None or rank(found[1]) <= rank(facts):
            continue
        place = RunningPlace(found[0], found[1], why, True)
        if rank(found[1]) == (True, True) and found[1].filesystem.get("free_bytes", 0) >= _LOW_SPACE_BYTES:
            return place
        second = second or place
    return second


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    own = environ.get("TMPDIR", "")
    if own.startswith("/"):
        yield own
    yield from (directory for directory in _USUAL if directory != own)


def _is_kept(directory: str) -> bool:
    """Whether what is ours there stays ours: without the sticky bit, whoever may write there may move it."""
    try:
        mode = os.stat(directory).st_mode
    except OSError:
        return False
    return not mode & 0o022 or bool(mode & stat.S_ISVTX)


def _try(root: str, directory: str, environ: Mapping[str, str]) -> tuple[str, Facts] | None:
    """Our directory beneath `directory`, made if need be, with its facts; None when it cannot be ours."""
    from hashlib import sha256

    top = f"{directory}/duckweed-{os.geteuid()}"
    path = f"{top}/{sha256(os.fsencode(root)).hexdigest()[:12]}"
    if not (_is_ours(top) and _is_ours(path)):
        return None
    # What DUCKWEED_PRETEND takes from the store is not taken from here.
    return path, probe.facts(path, environ=environ, is_store=False)


def _is_ours(path: str) -> bool:
    """Makes a directory, or finds one that is ours alone: /tmp is everybody's, and names can be guessed."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    facts = os.lstat(path)
    is_private = stat.S_IMODE(facts.st_mode) & 0o077 == 0
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and is_private
