"""The doctor: what was found, what it means, what is used instead, what an administrator could change.

`knowledge.py` holds the findings; here they are put to the facts and made into a report. A report is a plain
dict that prints as JSON: `status` (0 everything works, 1 something is done in a poorer way, 2 no container
can run), `findings` (each with a stable `code`), `facts` as the probe gave them, and `text` for people.
Having less than everything is not a fault of the person, so nothing here is called an error.
"""

from __future__ import annotations

from duckweed.host.finding import CANNOT, DEGRADED, INFORMATION, Finding
from duckweed.host.knowledge import TESTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.host.facts import Facts

_WIDTH = 110
_VERDICTS = (
    "everything duckweed uses works here",
    "containers run here; some things are done in a poorer way",
    "containers cannot run here; images can still be loaded, inspected and exported",
)
_MARKS = {INFORMATION: "note", DEGRADED: "less", CANNOT: "stop"}

# The lines of the table, each a claim and the facts that must hold for it.
_TABLE = (
    ("user namespaces", ("userns", "uid_map", "mount")),
    ("subordinate ids", ("newuidmap", "newgidmap")),
    ("process ids of its own", ("pidns", "proc")),
    ("network of its own", ("netns",)),
    ("overlay", ("overlay",)),
    ("programs in the store", ("store_exec",)),
    ("extended attributes", ("store_xattr",)),
    ("whiteouts", ("store_whiteout",)),
    ("hard links", ("store_hardlink",)),
    ("reflinks", ("store_reflink",)),
    ("cgroup delegation", ("cgroup",)),
    ("tun device", ("tun",)),
    ("FUSE device", ("fuse",)),
    ("ping sockets", ("ping",)),
    ("ptrace", ("ptrace", "ptrace_seccomp")),
    ("seccomp notification", ("seccomp_notify", "seccomp_addfd")),
    ("Landlock", ("landlock",)),
)


def findings(facts: Facts) -> list[Finding]:
    """All that applies here, the gravest first."""
    found = []
    for test in TESTS:
        finding = test(facts)
        if finding is not None:
            found.append(finding)
    return sorted(found, key=lambda finding: -finding.weight)


def report(facts: Facts) -> dict[str, Any]:
    """The whole report as plain data."""
    found = findings(facts)
    status = max((finding.weight for finding in found), default=0)
    document: dict[str, Any] = {
        "status": max(status, 0),
        "verdict": _VERDICTS[max(status, 0)],
        "findings": [finding.document() for finding in found],
        "facts": facts.document["facts"],
        "settings": facts.document["settings"],
        "process": facts.process,
        "limits": facts.limits,
        "filesystem": facts.filesystem,
        "scratch": facts.scratch,
        "subids": facts.document["subids"],
        "pretended": list(facts.pretended),
        "root_emulation": _emulation(facts),
    }
    document["text"] = render(document)
    return document


def _emulation(facts: Facts) -> str:
    """What `--root-emulation auto` means here, and why."""
    if not facts.ok("uid_map"):
        return "off (no user namespaces)"
    if facts.ok("newuidmap") and facts.ok("newgidmap"):
        return "off (containers have real ids)"
    for fact in ("seccomp_notify", "seccomp_addfd"):
        if not facts.ok(fact):
            return f"off {facts.why(fact)}"
    return "full (one real id)"


def render(report: dict[str, Any]) -> str:
    """The report for people: a table of what works, then each finding in four parts."""
    lines = [_line(name, wanted, report["facts"]) for name, wanted in _TABLE]
    lines.append(f"  {'root emulation':<24} {report['root_emulation']}")
    place = report["filesystem"]
    if place:
        free = place["free_bytes"] / 2**30
        lines.append(f"  {'store':<24} {place['type']}, {free:.1f} GiB free")
    if report["scratch"]:
        lines.append(f"  {'running copies':<24} {report['scratch']}")
    if report["pretended"]:
        lines.append(f"  {'pretended':<24} {', '.join(report['pretended'])} (DUCKWEED_PRETEND)")
    for finding in report["findings"]:
        lines += ["", *_paragraphs(finding)]
    lines += ["", report["verdict"]]
    return "\n".join(lines) + "\n"


def _line(name: str, wanted: tuple[str, ...], facts: dict[str, Any]) -> str:
    for fact in wanted:
        answer = facts.get(fact)
        if answer is None:
            return f"  {name:<24} not tried"
        if not answer["ok"]:
            why = ", ".join(part for part in (answer["errno_name"], answer["detail"]) if part)
            return f"  {name:<24} no ({why})"
    return f"  {name:<24} yes"


def _paragraphs(finding: dict[str, Any]) -> list[str]:
    lines = [f"{_MARKS[finding['weight']]} {finding['code']}: {finding['found']}"]
    for title, part in (("meaning", "means"), ("instead", "instead"), ("administrator", "admin")):
        if finding[part]:
            lines += _wrap(f"  {title + ':':<15}", finding[part])
    return lines


def _wrap(title: str, text: str) -> list[str]:
    lines, line = [], title
    for word in text.split(" "):
        if len(line) + 1 + len(word) > _WIDTH and line.strip():
            lines.append(line)
            line = " " * len(title)
        line += " " + word if line.strip() != "" or line is not title else word
    return [*lines, line]
