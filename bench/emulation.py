"""What root emulation costs: the same work with one emulated uid, with one uid and nothing emulated, and under a range of ids.

    python bench/emulation.py IMAGE [--rounds 7] [--packages]

IMAGE has bash and find (a Debian). Every case runs in containers that stand ready, one after the other in each
round, so that whatever else the machine does meets all of them; best and median of wall time are printed, with ratios
to the first column. `range` is left out where this account has no subordinate ids. With `--packages` apt-get
installs packages in fresh containers on the machine's network (slow, and only as steady as the mirror).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

CASES = {
    "nothing emulated: a shell counts to 200,000": "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done",
    "100 times /bin/true": "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done",
    "find / -ls": "find / -xdev -ls > /dev/null 2>&1",
    "ls -lR /usr": "ls -lR /usr > /dev/null",
    "tar of /etc and out again": "rm -rf /t; mkdir /t; tar c /etc 2> /dev/null | tar x -C /t",
    "1,000 files made and removed": "mkdir -p /m; cd /m; for i in {1..1000}; do : > $i; done; rm -rf /m",
}
INSTALL = "apt-get -q update && apt-get -q install -y --no-install-recommends man-db dbus cron rsync acl less"


def duckweed(*words: str, place: str) -> subprocess.CompletedProcess[str]:
    """The command, with a range of ids or with one."""
    pretend = {} if place == "range" else {"DUCKWEED_PRETEND": "no-subid"}
    return subprocess.run(
        [sys.executable, "-m", "duckweed", *words],
        text=True,
        capture_output=True,
        env={**os.environ, **pretend},
    )


def containers(image: str, network: str) -> dict[str, str]:
    """A waiting container for each column."""
    columns = {}
    for column in ("range", "off", "full"):
        flags = ["--root-emulation", "off" if column == "range" else column, "--network", network]
        made = duckweed("run", "-d", *flags, image, "sleep", "36000", place=column)
        if made.returncode:
            sys.exit(f"cannot start `{image}`: {made.stderr.strip()}")
        name = made.stdout.strip()
        shown = duckweed("inspect", "-f", "{{.Duckweed.IdMap}}", name, place=column).stdout.strip()
        if column == "range" and shown != "full":
            duckweed("rm", "-f", name, place=column)
            continue
        columns[column] = name
    return columns


def seconds(column: str, name: str, script: str) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    done = duckweed("exec", name, "bash", "-c", script, place=column)
    if done.returncode:
        sys.exit(f"{column}: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - start


def compare(title: str, columns: dict[str, str], script: str, rounds: int) -> None:
    """Interleaved rounds of one case, and a line for each column."""
    times: dict[str, list[float]] = {column: [] for column in columns}
    for _ in range(rounds):
        for column, name in columns.items():
            times[column].append(seconds(column, name, script))
    first = next(iter(times.values()))
    print(title)
    for column, found in times.items():
        best, median = min(found), statistics.median(found)
        ratio = f"{best / min(first):5.2f} {median / statistics.median(first):5.2f}"
        print(f"  {column:6} best {best:8.3f} s   median {median:8.3f} s   x {ratio}", flush=True)


def main() -> None:
    """Reads the words and runs every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("image")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--packages", action="store_true")
    words = parser.parse_args()
    columns = containers(words.image, "none")
    try:
        for title, script in CASES.items():
            compare(title, columns, script, words.rounds)
    finally:
        for column, name in columns.items():
            duckweed("rm", "-f", name, place=column)
    if words.packages:
        columns = {
            column: name for column, name in containers(words.image, "host").items() if column != "off"
        }
        compare("apt-get update and install of packages, once", columns, INSTALL, 1)


if __name__ == "__main__":
    main()
