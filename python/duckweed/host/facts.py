"""The probe's answers, and the switch that makes any machine act as a poorer one.

`DUCKWEED_PRETEND` holds words joined by commas. Each takes something away, with the errno that the kernel
gives where it is really missing, and everything that needs it goes with it. A pretended fact says so in its
detail, and nothing pretended is ever cached.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENODEV, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, errorcode

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PRETENDED = "pretended"
NETWORK_FILE_SYSTEMS = frozenset(
    ["nfs", "lustre", "gpfs", "fuse", "ceph", "cifs", "smb2", "9p", "fhgfs", "orangefs", "afs"]
)
_FOR_RUNNING = ("store_exec", "store_xattr", "store_whiteout", "store_hardlink")

_IN_USERNS = (
    "userns uid_map mntns pidns netns link ipcns utsns cgroupns mount proc overlay overlay_lowerdir_add"
    " newuidmap newgidmap"
)

# What each word takes away, and how it fails.
PRETEND = {
    "no-userns": (_IN_USERNS, EPERM),
    "no-overlay": ("overlay overlay_lowerdir_add", ENODEV),
    "no-subid": ("newuidmap newgidmap", EPERM),
    "no-tun": ("tun", ENOENT),
    "no-fuse": ("fuse", ENOENT),
    "no-ptrace": ("ptrace ptrace_seccomp", EPERM),
    "no-notify": ("seccomp_notify seccomp_addfd", EINVAL),
    "no-netns": ("netns link", ENOSPC),
    "no-link": ("link", EOPNOTSUPP),
    "no-pidns": ("pidns proc", ENOSPC),
    "no-landlock": ("landlock", ENOSYS),
    "no-xattr": ("store_xattr", EOPNOTSUPP),
    "no-whiteout": ("store_whiteout", EPERM),
    "no-hardlink": ("store_hardlink", EPERM),
    "noexec-store": ("store_exec", EACCES),
    "nfs-store": ("", 0),
    "no-cgroup": ("cgroup", EACCES),
}


class Facts:
    """What `duckweed-runtime probe` said, with the subordinate ids found beside it.

    `document` is the JSON object; `pretended` the words of `DUCKWEED_PRETEND` already applied to it;
    `scratch` the directory where images are run instead of the store, or "".
    """

    __slots__ = ("document", "pretended", "scratch")

    def __init__(self, document: dict[str, Any], pretended: tuple[str, ...] = ()) -> None:
        self.document = document
        self.pretended = pretended
        self.scratch = ""

    def ok(self, name: str) -> bool:
        """Whether the thing works here; False when the probe could not even try it."""
        fact = self.document["facts"].get(name)
        return fact is not None and fact["ok"] is True

    def errno_name(self, name: str) -> str:
        """The name of the error that refused it; "" when it works or no system call said no."""
        fact = self.document["facts"].get(name)
        return (fact and fact["errno_name"]) or ""

    def detail(self, name: str) -> str:
        """A value, or the step that failed."""
        fact = self.document["facts"].get(name)
        return fact["detail"] if fact else "not tried"

    def why(self, name: str) -> str:
        """The refusal in brackets, ready for the end of a sentence: the errno's name, else the detail."""
        reason = self.errno_name(name) or self.detail(name)
        return f"({reason})" if reason else ""

    def setting(self, name: str) -> str | None:
        """A sysctl's value; None where this kernel does not have it."""
        value = self.document["settings"].get(name)
        return value if isinstance(value, str) else None

    @property
    def process(self) -> dict[str, Any]:
        """Ids, capabilities, seccomp mode and tracer of this process."""
        process: dict[str, Any] = self.document["process"]
        return process

    @property
    def filesystem(self) -> dict[str, Any]:
        """Type and free space of the store's file system; empty when the store could not be written."""
        return self.document.get("filesystem") or {}

    @property
    def limits(self) -> dict[str, Any]:
        """Soft and hard resource limits."""
        return self.document.get("limits") or {}

    @property
    def holds_running(self) -> bool:
        """Whether images can be run from this file system as they are."""
        return all(map(self.ok, _FOR_RUNNING)) and self.filesystem.get("type") not in NETWORK_FILE_SYSTEMS

    def ids(self, kind: str) -> list[list[int]]:
        """The usable subordinate ranges `[start, count]`; `kind` is "uid" or "gid"."""
        return list(self.document["subids"][kind])


def pretend(facts: Facts, environ: Mapping[str, str], is_store: bool = True) -> Facts:
    """The facts as `DUCKWEED_PRETEND` wants them; words about the store are not heeded elsewhere. Raises
    UsageError for a word it does not know.
    """
    text = environ.get("DUCKWEED_PRETEND", "")
    words = tuple(word for word in text.replace(" ", ",").split(",") if word)
    if not words:
        return facts
    document = dict(facts.document)
    document["facts"] = answers = dict(document["facts"])
    for word in words:
        if word not in PRETEND:
            known = ", ".join(sorted(PRETEND))
            raise UsageError(f"`DUCKWEED_PRETEND` has an unknown word: `{word}`", f"it knows {known}")
        names, errno = PRETEND[word]
        for name in names.split():
            if name.startswith("store_") and not is_store:
                continue
            answers[name] = {"ok": False, "errno": errno, "errno_name": errorcode[errno], "detail": PRETENDED}
    if "no-subid" in words:
        document["subids"] = {"uid": [], "gid": [], "short": 0, "source": PRETENDED}
    if "nfs-store" in words and is_store:
        document["filesystem"] = {**(document.get("filesystem") or {}), "type": "nfs"}
    document["pretended"] = list(words)
    return Facts(document, words)
