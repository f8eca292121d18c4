"""`system check`: whether the store is what it says it is."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, Call, Flag, verb


@verb(
    "system check",
    "[OPTIONS]",
    flags=(
        Flag("json", "", BOOL, "Print what was found as JSON"),
        Flag("quick", "q", BOOL, "Do not read the blobs, only look whether everything is there"),
        Flag("repair", "r", BOOL, "Take away what is damaged, make again what can be made"),
    ),
    at_most=0,
)
def system_check(call: Call) -> int:
    """Look whether everything in the store is whole

    The exit code is 0 when it is (or was repaired), 1 when something is not.
    """
    found = call.engine.check(repair=call.get("repair", False), quick=call.get("quick", False))
    open_problems = [problem for problem in found if not problem["Repaired"]]
    if call.get("json"):
        from duckweed.cli import format

        sys.stdout.write(format.pretty(found) + "\n")
        return 1 if open_problems else 0
    for problem in found:
        mark = "repaired" if problem["Repaired"] else "problem"
        advice = f"; {problem['Advice']}" if problem["Advice"] and not problem["Repaired"] else ""
        sys.stdout.write(f"{mark}: {problem['Kind']} `{problem['Name']}`: {problem['Problem']}{advice}\n")
    if not open_problems:
        sys.stdout.write("everything is whole\n")
    elif not call.get("repair"):
        sys.stdout.write("`duckweed system check --repair` mends what can be mended\n")
    return 1 if open_problems else 0
