"""From facts to decisions: how containers are held apart here, with which ids, on which storage.

`auto` takes the best the place allows and says once, in a note, what is poorer and why. What was asked for by
name and cannot be had is an error: nobody who writes `--isolation userns` wants something else.
"""

from __future__ import annotations

from duckweed.errors import Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.host.facts import Facts
    from duckweed.host.running_place import RunningPlace

# The namespaces of a container in config.json's words, and the facts that say whether they can be had.
_NAMESPACES = (
    ("user", "userns"),
    ("mount", "mntns"),
    ("pid", "pidns"),
    ("ipc", "ipcns"),
    ("uts", "utsns"),
    ("network", "netns"),
    ("cgroup", "cgroupns"),
)
_REQUIRED = ("userns", "uid_map", "mntns", "mount")


class Choice:
    """`isolation`: "userns" or "trap". `uid_map`, `gid_map`: lines `(container, host, size)`. `flavour`: of
    the layers (contracts §1). `rootfs`: "overlay" or "copy". `root_emulation`: "off", or "full" where only
    one id is mapped. `namespaces`: those of config.json that can be had, `netns` and `pidns` for short.
    `link`: a network of its own can be connected to the outside. `gate`: sockets can be this machine's, told
    where they may go. `running`: the scratch directory, when the store is not to be run from. `notes`: what
    is poorer here, one line each, without the `note: ` before it.
    """

    __slots__ = (
        "flavour",
        "gate",
        "gid_map",
        "idmap",
        "isolation",
        "link",
        "namespaces",
        "notes",
        "root_emulation",
        "rootfs",
        "running",
        "uid_map",
    )

    def __init__(self, isolation: str) -> None:
        self.isolation = isolation
        self.uid_map: list[tuple[int, int, int]] = []
        self.gid_map: list[tuple[int, int, int]] = []
        self.idmap = "single"
        self.flavour = "single"
        self.rootfs = "overlay"
        self.root_emulation = "off"
        self.namespaces: tuple[str, ...] = ()
        self.link = False
        self.gate = False
        self.notes: list[str] = []
        self.running: RunningPlace | None = None

    @property
    def netns(self) -> bool:
        """Whether a container can have a network of its own."""
        return "network" in self.namespaces

    @property
    def pidns(self) -> bool:
        """Whether a container can have process ids, and a /proc, of its own."""
        return "pid" in self.namespaces


def decide(
    facts: Facts,
    isolation: str = "auto",
    *,
    idmap: str = "auto",
    rootfs: str = "auto",
    running: RunningPlace | None = None,
) -> Choice:
    """What containers get here, running in the store or in the scratch directory `running`.

    `isolation` is auto, userns or trap; `idmap` auto, full or single; `rootfs` auto, overlay or copy. Raises
    Unsupported for what cannot be had, UsageError for other words.
    """
    _check("--isolation", isolation, ("auto", "userns", "trap"))
    _check("idmap", idmap, ("auto", "full", "single"))
    _check("rootfs", rootfs, ("auto", "overlay", "copy"))
    refused = next((name for name in _REQUIRED if not facts.ok(name)), "")
    if isolation == "trap" or (refused and isolation == "auto" and _can_trap(facts)):
        return _trap(facts, refused if isolation == "auto" else "", running)
    if refused:
        raise _no_userns(facts, refused)
    choice = Choice("userns")
    _choose_ids(choice, facts, idmap)
    _choose_emulation(choice, facts)
    _choose_rootfs(choice, running.facts if running is not None else facts, rootfs)
    _choose_namespaces(choice, facts)
    if running is not None:
        choice.running = running
        choice.notes.append(running.note)
    return choice


def _can_trap(facts: Facts) -> bool:
    return _machine() == "x86_64" and facts.ok("ptrace") and facts.ok("ptrace_seccomp")


def _machine() -> str:
    from os import uname

    return uname().machine


def _trap(facts: Facts, refused: str, running: RunningPlace | None) -> Choice:
    """The isolation that needs nothing: `refused` is the fact that made `auto` take it, or ""."""
    if not _can_trap(facts):
        name = "ptrace" if not facts.ok("ptrace") else "ptrace_seccomp"
        if _machine() != "x86_64":
            why = f"this machine is {_machine()}, and the trap isolation is for x86_64 in this release"
        else:
            why = f"{facts.detail(name)} was refused {facts.why(name)}".rstrip()
        raise Unsupported(
            f"cannot use the trap isolation here: {why}", "`duckweed doctor` says what was tried"
        )
    choice = Choice("trap")
    uid, gid = facts.process["uid"], facts.process["gid"]
    choice.uid_map, choice.gid_map = [(0, uid, 1)], [(0, gid, 1)]
    choice.root_emulation = "full"
    choice.gate = True
    if refused:
        from duckweed.host.refusals import userns_finding

        finding = userns_finding(facts)
        means = finding.means if finding else f"{facts.detail(refused)} was refused"
        choice.notes.append(
            f"{means} {facts.why(refused)}".rstrip()
            + "; using the trap isolation, which shares this machine's process ids (docs/trap.md)"
        )
    if not facts.ok("landlock"):
        choice.notes.append(
            f"no Landlock here {facts.why('landlock')}; the tracer alone keeps programs to their files"
        )
    if running is not None:
        choice.running = running
        choice.notes.append(running.note)
    return choice


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"`{option}` cannot be `{value}`: it is one of {', '.join(known)}")


def _no_userns(facts: Facts, name: str) -> Unsupported:
    from duckweed.host.refusals import userns_finding

    finding = userns_finding(facts)
    # A required step beyond the namespace itself: nothing general is known, so the step is named.
    means = finding.means if finding else f"{facts.detail(name)} was refused in a new user namespace"
    wants = finding.admin if finding and finding.admin else "`duckweed doctor` says what was tried"
    return Unsupported(
        f"cannot run containers here: {means} {facts.why(name)}".rstrip(),
        f"`--isolation auto` (the default) would use the trap isolation if ptrace worked here; {wants}",
    )


def _choose_ids(choice: Choice, facts: Facts, idmap: str) -> None:
    uid, gid = facts.process["uid"], facts.process["gid"]
    choice.uid_map, choice.gid_map = [(0, uid, 1)], [(0, gid, 1)]
    mappable = facts.ok("newuidmap") and facts.ok("newgidmap")
    uids, gids = facts.ids("uid"), facts.ids("gid")
    if idmap != "single" and mappable and uids and gids:
        choice.idmap = "full"
        choice.uid_map.append((1, *_first(uids)))
        choice.gid_map.append((1, *_first(gids)))
        choice.flavour = mapped_flavour(choice.uid_map, choice.gid_map)
        return
    if idmap == "full":
        name = "newuidmap" if not facts.ok("newuidmap") else "newgidmap"
        why = facts.detail(name) if uids and gids else "this account has no subordinate ids"
        raise Unsupported(
            f"cannot map a full range of ids: {why}",
            "leave the id map to duckweed; `duckweed doctor` says more",
        )
    short = facts.document["subids"]["short"]
    if idmap == "auto" and short:
        choice.notes.append(
            f"your subordinate id range has {short} ids of the 65536 an image needs; it is not used"
        )
    elif idmap == "auto" and uids and gids:
        name = "newuidmap" if not facts.ok("newuidmap") else "newgidmap"
        choice.notes.append(f"your subordinate ids cannot be used: {facts.detail(name)}")


def _choose_emulation(choice: Choice, facts: Facts) -> None:
    if choice.idmap == "full":
        return
    if facts.ok("seccomp_notify") and facts.ok("seccomp_addfd"):
        choice.root_emulation = "full"
        return
    name = "seccomp_addfd" if facts.ok("seccomp_notify") else "seccomp_notify"
    choice.notes.append(
        f"other users cannot be emulated here {facts.why(name)}; chown and su fail in containers"
    )


def _first(ranges: list[list[int]]) -> tuple[int, int]:
    start, count = ranges[0]
    return start, count


def mapped_flavour(uid_map: list[tuple[int, int, int]], gid_map: list[tuple[int, int, int]]) -> str:
    """`mapped-<hash>`: over both maps as the helper takes them, as `store.layers.Flavour` has it."""
    from hashlib import sha256

    text = ";".join(",".join("{}:{}:{}".format(*line) for line in lines) for lines in (uid_map, gid_map))
    return "mapped-" + sha256(text.encode()).hexdigest()[:12]


def _choose_rootfs(choice: Choice, facts: Facts, rootfs: str) -> None:
    has_overlay = facts.ok("overlay_lowerdir_add") or facts.ok("overlay")
    if rootfs == "overlay" and not has_overlay:
        raise Unsupported(
            f"cannot use overlay here: {facts.detail('overlay')} was refused {facts.why('overlay')}".rstrip(),
            "leave the storage to duckweed: it copies where overlay is refused",
        )
    choice.rootfs = "copy" if rootfs == "copy" or not has_overlay else "overlay"
    if rootfs == "auto" and not has_overlay:
        why = facts.why("overlay")
        choice.notes.append(
            f"overlay is not available here {why}; every container gets a copy of its image".replace(
                "  ", " "
            )
        )


def _choose_namespaces(choice: Choice, facts: Facts) -> None:
    had = [name for name, fact in _NAMESPACES if facts.ok(fact)]
    if "pid" in had and not facts.ok("proc"):
        # A /proc of the outer pid namespace inside a new one would name the wrong processes.
        had.remove("pid")
        choice.notes.append(
            f"a fresh /proc is refused here {facts.why('proc')}; containers see this machine's processes"
        )
    elif "pid" not in had:
        choice.notes.append(
            f"pid namespaces are refused here {facts.why('pidns')}; containers see this machine's processes"
        )
    choice.gate = facts.ok("seccomp_notify") and facts.ok("seccomp_addfd")
    if "network" not in had:
        instead = (
            "use this machine's network, through the gate" if choice.gate else "use this machine's network"
        )
        choice.notes.append(f"network namespaces are refused here {facts.why('netns')}; containers {instead}")
    elif not facts.ok("link"):
        mode = "gate" if choice.gate else "none"
        choice.notes.append(
            f"network interfaces are refused here {facts.why('link')}; containers have the network `{mode}`"
        )
    choice.link = "network" in had and facts.ok("link")
    choice.namespaces = tuple(had)
