"""What the trap isolation costs: the same work in the same tree natively, in a trap container, in a user namespace's, and under PRoot.

    python bench/trap.py IMAGE ROOTFS [--rounds 5] [--only WORD]

IMAGE is a Debian with Python, git, gcc and make; ROOTFS is the same tree as a directory of yours (`duckweed export`, unpacked), for
`native` (a chroot, in a user namespace of its own where that is needed) and PRoot. What cannot be had is left out. Each command
measures itself, so neither the command line's own start nor a container's counts. Rounds are
interleaved; printed are best and median in ms, and the ratio of the bests to native.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys

PREPARE = """cd /srv && rm -rf bench && mkdir bench && cd bench && mkdir tree c && cd tree
for i in $(seq 50); do mkdir d$i; for j in $(seq 100); do echo $i $j > d$i/f$j; done; done
git init -q . && git add . && git -c user.name=a -c user.email=a commit -qm all; tar cf ../tree.tar .; cd ../c
for i in $(seq 30); do echo "#include <stdio.h>
int f$i(int x) { printf(\\"%d\\", x); return x + $i; }" > f$i.c; done; echo 'all: $(patsubst %.c,%.o,$(wildcard *.c))' > Makefile"""

CASES = {
    "computing": "python3 -c 'sum(i * i for i in range(5000000))'",
    "find /usr -type f": "find /usr -type f > /srv/bench/found",
    "tar x of 5,000 files": "mkdir /srv/bench/x && tar xf /srv/bench/tree.tar -C /srv/bench/x; rm -rf /srv/bench/x",
    "python imports": "python3 -c 'import json, asyncio, http.server, unittest, email'",
    "git status, 5,000 files": "git -C /srv/bench/tree status > /srv/bench/status",
    "30 files, make -j2": "make -s -j2 -C /srv/bench/c all && rm -f /srv/bench/c/*.o",
    "20,000 sqlite inserts": (
        "rm -f /srv/bench/b.db; python3 -c \"import sqlite3; d = sqlite3.connect('/srv/bench/b.db'); "
        "d.execute('create table t(a)'); [d.execute('insert into t values(1)') for _ in range(20000)]; d.commit()\""
    ),
    "200 sqlite commits": (
        "rm -f /srv/bench/b.db; python3 -c \"import sqlite3; d = sqlite3.connect('/srv/bench/b.db', isolation_level=None); "
        "d.execute('create table t(a)'); [d.execute('insert into t values(1)') for _ in range(200)]\""
    ),
    "50 times /bin/true": "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done",
    "20,000 times stat": "python3 -c \"import os\nfor _ in range(20000): os.stat('/etc/passwd')\"",
    "one /bin/true": "/bin/true",
    "python3 -c pass": "python3 -c pass",
}
# What fails must not be taken for fast.
TIMED = "a=$(date +%s%N)\n{{ {}\n}} || exit 9\nb=$(date +%s%N)\necho took $((b - a))"


def start(image: str, isolation: str) -> str:
    """A waiting container's name, or "" where that isolation is refused."""
    words = ["run", "-d", "--isolation", isolation, "--network", "host", image, "sleep", "36000"]
    done = subprocess.run([sys.executable, "-m", "duckweed", *words], text=True, capture_output=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def natively(rootfs: str) -> list[str]:
    """A command that runs another in the tree, without anything between it and the kernel."""
    chroot = shutil.which("chroot", path=os.environ.get("PATH", "") + ":/usr/sbin") or "chroot"
    # The machine's own devices and processes, where a mount namespace can be had.
    bind = f'mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec {chroot} "$0" "$@"'
    apart = ["unshare", "--mount", "sh", "-c", bind, rootfs]
    for words in (apart, [*apart[:1], "--user", "--map-root-user", *apart[1:]]):
        if subprocess.run([*words, "/bin/true"], capture_output=True).returncode == 0:
            return words
    print("left out: native, a chroot is refused here")
    return []


def columns_of(image: str, rootfs: str, names: dict[str, str]) -> dict[str, list[str]]:
    """What each column's commands begin with."""
    found = {"native": natively(rootfs)}
    for isolation in ("trap", "userns"):
        names[isolation] = start(image, isolation)
        found[isolation] = (
            [sys.executable, "-m", "duckweed", "exec", names[isolation]] if names[isolation] else []
        )
    if shutil.which("proot"):
        found["proot"] = ["proot", "-0", "-r", rootfs, "-b", "/proc", "-b", "/dev", "-w", "/"]
    return {column: words for column, words in found.items() if words}


def took(command: list[str], script: str) -> float:
    """Seconds that a script took by its own clock."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **_ours()}
    done = subprocess.run(
        [*command, "sh", "-c", TIMED.format(script)], text=True, capture_output=True, env=env
    )
    for line in done.stdout.splitlines():
        if line.startswith("took "):
            return int(line.split()[1]) / 1e9
    raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("DUCKWEED_", "PYTHON"))}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("rootfs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    names: dict[str, str] = {}
    try:
        columns = columns_of(given.image, given.rootfs, names)
        for command in columns.values():
            took(command, PREPARE)
        print(f"{'':24}" + "".join(f"{column:>26}" for column in columns))
        for case, script in CASES.items():
            if given.only not in case:
                continue
            times: dict[str, list[float]] = {column: [] for column in columns}
            for _ in range(given.rounds):
                for column, command in columns.items():
                    times[column].append(took(command, script))
            best = min(next(iter(times.values())))
            cells = [
                f"{1000 * min(each):8.1f} /{1000 * statistics.median(each):7.1f} {min(each) / best:5.2f} x"
                for each in times.values()
            ]
            print(f"{case:24}" + "".join(f"{cell:>26}" for cell in cells), flush=True)
    finally:
        for name in filter(None, names.values()):
            subprocess.run([sys.executable, "-m", "duckweed", "rm", "-f", name], stdout=subprocess.DEVNULL)
    print(f"best / median ms and ratio of the bests; {os.uname().release}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
