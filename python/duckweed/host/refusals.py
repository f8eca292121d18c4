"""Why namespaces and id maps are refused.

One errno has several causes, and which it is shows in what else is true: a seccomp filter, a sysctl, a
chroot. `choose` puts the first of these findings into its error, `doctor` shows them all.
"""

from __future__ import annotations

from duckweed.host.finding import CANNOT, DEGRADED, INFORMATION, Finding, after_space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.host.facts import Facts

_TRAP = "the trap isolation, where ptrace works (docs/trap.md)"


def userns_finding(facts: Facts) -> Finding | None:
    """Why user namespaces, or what is done in them, are refused; None when they work."""
    for name in ("userns", "uid_map", "mntns", "mount"):
        if not facts.ok(name):
            break
    else:
        return None
    code, means, admin = _userns_cause(facts, name)
    step = facts.detail(name) or name
    can_trap = facts.ok("ptrace") and facts.ok("ptrace_seccomp")
    level = DEGRADED if can_trap else CANNOT
    return Finding(
        code, level, f"{name}: {step} was refused{after_space(facts.why(name))}", means, _TRAP, admin
    )


def _userns_cause(facts: Facts, name: str) -> tuple[str, str, str]:
    errno = facts.errno_name(name)
    restricted = facts.setting("kernel.apparmor_restrict_unprivileged_userns") == "1"
    if errno == "ENOSPC" and name == "userns":
        limit = facts.setting("user.max_user_namespaces") or "?"
        if limit != "0":
            return (
                "NS-SYSCTL",
                "the limit of user namespaces is used up here or in a namespace above this one",
                "",
            )
        means = "user namespaces are switched off here (`user.max_user_namespaces` is 0)"
        return "NS-SYSCTL", means, "an administrator could set it: `sysctl -w user.max_user_namespaces=15000`"
    if errno == "ENOSPC":
        kind = {"mntns": "mnt", "mount": "mnt"}.get(name, "user")
        means = f"the limit of namespaces of this kind is used up (`user.max_{kind}_namespaces`)"
        return (
            "NS-SUBLIMIT",
            means,
            f"an administrator could raise it: `sysctl -w user.max_{kind}_namespaces=15000`",
        )
    if errno == "EINVAL":
        return (
            "NS-EINVAL",
            "this kernel was built or booted without user namespaces",
            "an administrator could boot with user namespaces on",
        )
    if errno == "ENOSYS":
        return "NS-EINVAL", "this kernel, or a sandbox that plays one, has no user namespaces", ""
    if facts.setting("kernel.unprivileged_userns_clone") == "0":
        means = "this kernel forbids user namespaces to users (`kernel.unprivileged_userns_clone` is 0)"
        return (
            "NS-CLONE",
            means,
            "an administrator could set it: `sysctl -w kernel.unprivileged_userns_clone=1`",
        )
    if restricted and (name != "userns" or facts.process.get("seccomp") != 2):
        means = "AppArmor lets only listed programs use user namespaces (Ubuntu's default since 23.10)"
        admin = (
            "an administrator could add an AppArmor profile with `userns,` for the helper, or set "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
        )
        return "NS-APPARMOR", means, admin
    if facts.process.get("seccomp") == 2 and name == "userns":
        means = "this is a container whose seccomp profile blocks namespaces, as Docker's default does"
        return (
            "NS-SECCOMP",
            means,
            "whoever starts the outer container could allow `unshare` and `mount` in its seccomp profile",
        )
    if not facts.ok("not_chroot"):
        return (
            "NS-CHROOT",
            "inside a chroot the kernel refuses user namespaces",
            "use `pivot_root` or a mount namespace instead of the chroot",
        )
    return "NS-DENIED", "a security module or a sandbox refuses user namespaces", ""


def limited_namespaces(facts: Facts) -> Finding | None:
    """Single kinds that are refused while user namespaces work."""
    if not facts.ok("userns"):
        return None
    kinds = {"pidns": "pid", "netns": "net", "ipcns": "ipc", "utsns": "uts", "cgroupns": "cgroup"}
    refused = [name for name in kinds if not facts.ok(name)]
    if not refused:
        return None
    said = ", ".join(f"{name}{after_space(facts.why(name))}" for name in refused)
    settings = " ".join(f"user.max_{kinds[name]}_namespaces=15000" for name in refused)
    means = "user namespaces work, these kinds are refused one by one: each has a limit of its own"
    instead = "containers share these with this machine"
    return Finding(
        "NS-SUBLIMIT", DEGRADED, said, means, instead, f"an administrator could set: `sysctl -w {settings}`"
    )


def masked_proc(facts: Facts) -> Finding | None:
    """A fresh /proc is refused though namespaces work."""
    if facts.ok("proc") or not facts.ok("pidns") or not facts.ok("mount"):
        return None
    means = "parts of /proc are hidden from this place; a fresh one would show them, so the kernel refuses it"
    instead = "containers see this machine's /proc and its processes"
    admin = "whoever starts the outer container could unmask /proc (`--security-opt systempaths=unconfined`)"
    return Finding(
        "PROC-MASK",
        DEGRADED,
        f"proc: {facts.detail('proc')} was refused{after_space(facts.why('proc'))}",
        means,
        instead,
        admin,
    )


def subordinate_ids(facts: Facts) -> Finding | None:
    """Why there is one id only; never more than a note."""
    if facts.ok("newuidmap") and facts.ok("newgidmap") or not facts.ok("uid_map"):
        return None
    if facts.ok("seccomp_notify") and facts.ok("seccomp_addfd"):
        instead = "containers have one real id; other users are emulated, and owners are kept in images"
    else:
        instead = (
            "containers have one id, so that chown and su fail in them; owners are kept as images tell them"
        )
    short = facts.document["subids"]["short"]
    if short:
        found = f"your subordinate range has {short} ids"
        means = "an image needs 65536; a shorter range would fail in the middle of a layer, so it is not used"
        return Finding(
            "ID-SHORT",
            INFORMATION,
            found,
            means,
            instead,
            "an administrator could widen it: `usermod --add-subuids START-END --add-subgids START-END`",
        )
    if not facts.ids("uid") or not facts.ids("gid"):
        found, means = "no subordinate ids for this account", "they are not needed"
        numbers = "100000-165535"
        command = f"usermod --add-subuids {numbers} --add-subgids {numbers} USER"
        admin = f"an administrator could give a range: `{command}`"
        return Finding("ID-RANGE", INFORMATION, found, means, instead, admin)
    name = "newuidmap" if not facts.ok("newuidmap") else "newgidmap"
    found = f"{name}: {facts.detail(name)}{after_space(facts.errno_name(name))}"
    means = "there is a range, but the setuid programs newuidmap and newgidmap are missing or refuse it"
    return Finding(
        "ID-RANGE",
        INFORMATION,
        found,
        means,
        instead,
        "an administrator could install the package `uidmap` (or `shadow-utils`), with its setuid bits",
    )
