"""Subordinate ids: which ranges this account may map, from whoever knows.

The ranges of an account may live in /etc/subuid and /etc/subgid or in a directory service (SSSD, FreeIPA),
and only libsubid knows which: it reads the `subid:` line of nsswitch.conf and loads the plugin. A static
helper cannot, so this is asked here, through cffi, when the library is there; then the program `getsubids` of
the same package, then the two files. It is asked only when the probe's cache is cold.

libsubid changed its function names between ABI 3 (`get_subuid_ranges`) and ABI 4 (`subid_get_uid_ranges`),
not their shape. It has no function of its own to free the result: that is free(3)'s.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    class Library(Protocol):
        """The part of libsubid that is used, whatever its version calls it."""

        def uid_ranges(self, owner: str) -> list[Range] | None:
            """The account's uid ranges; None when the library could not say."""

        def gid_ranges(self, owner: str) -> list[Range] | None:
            """The account's gid ranges; None when the library could not say."""


# Images use ids up to 65535 (nobody is 65534): a shorter range would fail halfway through a layer.
NEEDED = 65536
_SONAMES = ("libsubid.so.5", "libsubid.so.4", "libsubid.so.3")
_DECLARATIONS = """
struct subid_range { unsigned long start; unsigned long count; };
int subid_get_uid_ranges(const char *owner, struct subid_range **ranges);
int subid_get_gid_ranges(const char *owner, struct subid_range **ranges);
int get_subuid_ranges(const char *owner, struct subid_range **ranges);
int get_subgid_ranges(const char *owner, struct subid_range **ranges);
void free(void *);
"""
_NAMES = (("subid_get_uid_ranges", "subid_get_gid_ranges"), ("get_subuid_ranges", "get_subgid_ranges"))


class Range:
    """`count` ids from `start` on."""

    __slots__ = ("count", "start")

    def __init__(self, start: int, count: int) -> None:
        self.start = start
        self.count = count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Range) and (self.start, self.count) == (other.start, other.count)

    def __hash__(self) -> int:
        return hash((self.start, self.count))

    def __repr__(self) -> str:
        return f"Range({self.start}, {self.count})"

    def text(self) -> str:
        """`start:count`, as the helper's probe takes it."""
        return f"{self.start}:{self.count}"


class Found:
    """`uids`, `gids`: the usable ranges, longest first; `short`: the size of the longest one when all are
    shorter than 65536; `source`: who said so.
    """

    __slots__ = ("gids", "short", "source", "uids")

    def __init__(self, uids: Iterable[Range], gids: Iterable[Range], source: str) -> None:
        uids, gids = list(uids), list(gids)
        longest = min(max((item.count for item in ranges), default=0) for ranges in (uids, gids))
        self.short = longest if longest < NEEDED else 0
        self.uids = _usable(uids)
        self.gids = _usable(gids)
        self.source = source


def _usable(ranges: list[Range]) -> list[Range]:
    return sorted((item for item in ranges if item.count >= NEEDED), key=lambda item: -item.count)


def find(name: str | None = None, uid: int | None = None) -> Found:
    """The ranges of this account. Never raises: not having any is usual."""
    uid = os.getuid() if uid is None else uid
    name = account(uid) if name is None else name
    library = load()
    if library is not None:
        uids, gids = library.uid_ranges(name), library.gid_ranges(name)
        if uids and gids:
            return Found(uids, gids, "libsubid")
    uids, gids = _program(name, ()), _program(name, ("-g",))
    if uids and gids:
        return Found(uids, gids, "getsubids")
    uids, gids = read_file("/etc/subuid", name, uid), read_file("/etc/subgid", name, uid)
    return Found(uids, gids, "files" if uids and gids else "none")


def account(uid: int) -> str:
    """The name of the account; its number when it has none (usual in pods)."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def read_file(path: str, name: str, uid: int) -> list[Range]:
    """The lines `owner:start:count` of an account, by name and by number (subuid(5)); skips bad ones."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    ranges = []
    for line in lines:
        fields = line.strip().split(":")
        if (
            len(fields) == 3
            and fields[0] in (name, str(uid))
            and fields[1].isdecimal()
            and fields[2].isdecimal()
        ):
            ranges.append(Range(int(fields[1]), int(fields[2])))
    return ranges


def parse_program(text: str) -> list[Range]:
    """The lines `0: owner start count` that getsubids prints."""
    ranges = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and words[2].isdecimal() and words[3].isdecimal():
            ranges.append(Range(int(words[2]), int(words[3])))
    return ranges


def _program(name: str, options: tuple[str, ...]) -> list[Range]:
    import subprocess

    try:
        done = subprocess.run(
            ["getsubids", *options, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_program(done.stdout.decode("utf-8", "replace")) if done.returncode == 0 else []


def load() -> Library | None:
    """libsubid in the newest version present; None without it or without cffi."""
    try:
        import cffi  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    for soname in _SONAMES:
        try:
            library = ffi.dlopen(soname)
            free = getattr(ffi.dlopen(None), "free")  # noqa: B009  # typed stubs know no symbols
        except OSError:
            continue
        for uid_name, gid_name in _NAMES:
            try:
                return _Bound(ffi, getattr(library, uid_name), getattr(library, gid_name), free)
            except AttributeError:
                continue
    return None


class _Bound:
    """libsubid behind the Protocol."""

    __slots__ = ("_ffi", "_free", "_gid", "_uid")

    def __init__(self, ffi: Any, uid: Any, gid: Any, free: Any) -> None:
        self._ffi = ffi
        self._uid = uid
        self._gid = gid
        self._free = free

    def uid_ranges(self, owner: str) -> list[Range] | None:
        return self._ask(self._uid, owner)

    def gid_ranges(self, owner: str) -> list[Range] | None:
        return self._ask(self._gid, owner)

    def _ask(self, function: Any, owner: str) -> list[Range] | None:
        pointer = self._ffi.new("struct subid_range **")
        count = function(owner.encode(), pointer)
        if count < 0:
            return None
        try:
            return [Range(int(pointer[0][at].start), int(pointer[0][at].count)) for at in range(count)]
        finally:
            self._free(pointer[0])
