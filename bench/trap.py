"""What the trap isolation costs: the same work natively, in a trap container, in a user namespace's, and under PRoot when it is there.

    python bench/trap.py IMAGE ROOTFS [--rounds 5]

IMAGE is a Debian with Python; ROOTFS is the same tree as a directory of yours (`duckweed export`, unpacked), for PRoot.
`native` runs the machine's own programs on the machine's own /usr. Rounds are interleaved; best and median of wall
time are printed, and the ratio of the bests to native.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

CASES = {
    "computing": "python3 -c 'sum(i * i for i in range(3000000))'",
    "find /usr": "find /usr -type f > /dev/null",
    "tar of 5,000 files": "cd /tmp && rm -rf bt && mkdir bt && tar c -C /usr/share/doc . 2>/dev/null | tar x -C bt; rm -rf bt",
    "python imports": "python3 -c 'import json, asyncio, http.server, unittest, email'",
    "50 times /bin/true": "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done",
    "sqlite inserts": (
        "rm -f /tmp/b.db; python3 -c \"import sqlite3; d = sqlite3.connect('/tmp/b.db', isolation_level=None); "
        "d.execute('create table t(a)'); [d.execute('insert into t values(1)') for _ in range(500)]\"; rm -f /tmp/b.db"
    ),
}


def start(image: str, isolation: str) -> str:
    """A waiting container's name, or "" where that isolation is refused."""
    words = ["run", "-d", "--isolation", isolation, "--network", "host", image, "sleep", "36000"]
    done = subprocess.run([sys.executable, "-m", "duckweed", *words], text=True, capture_output=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("rootfs", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    columns = {"native": ["sh", "-c"]}
    names = {isolation: start(given.image, isolation) for isolation in ("trap", "userns")}
    for isolation, name in names.items():
        if name:
            columns[isolation] = [sys.executable, "-m", "duckweed", "exec", name, "sh", "-c"]
    if given.rootfs and shutil.which("proot"):
        columns["proot"] = [
            "proot",
            "-0",
            "-r",
            given.rootfs,
            "-b",
            "/proc",
            "-b",
            "/dev",
            "-w",
            "/",
            "sh",
            "-c",
        ]
    try:
        print(f"{'':24}" + "".join(f"{column:>26}" for column in columns))
        for case, script in CASES.items():
            times: dict[str, list[float]] = {column: [] for column in columns}
            for _ in range(given.rounds):
                for column, command in columns.items():
                    begun = time.monotonic()
                    subprocess.run([*command, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    times[column].append(time.monotonic() - begun)
            best = min(times["native"])
            cells = [
                f"{1000 * min(each):8.0f} /{1000 * statistics.median(each):6.0f} {min(each) / best:6.2f} x"
                for each in times.values()
            ]
            print(f"{case:24}" + "".join(f"{cell:>26}" for cell in cells), flush=True)
    finally:
        for name in filter(None, names.values()):
            subprocess.run([sys.executable, "-m", "duckweed", "rm", "-f", name], stdout=subprocess.DEVNULL)
    print(f"best / median ms and ratio of the bests; {os.uname().release}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
