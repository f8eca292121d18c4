"""What root emulation costs: the same work with one emulated uid, with one uid and nothing emulated, and under a range of ids.

    python bench/emulation.py IMAGE [--rounds 7] [--only WORD] [--packages DIR]

IMAGE has bash and find (a Debian; git for `git status`). Every case runs in containers that stand ready, one after the
other in each round, so that whatever else the machine does meets all of them; best and median of wall time are printed, with
ratios to the first column. `range` is left out where this account has no subordinate ids. With `--packages`, where DIR is
the apt configuration by which this machine reaches its packages, an image is made with 20 packages in apt's cache, and
`dpkg -i` and `apt-get install` are measured in a fresh container for each round.
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
    "git status": "cd /repository && git status > /dev/null",
    "ls -lR /usr": "ls -lR /usr > /dev/null",
    "tar of /etc and out again": "rm -rf /t; mkdir /t; tar c /etc 2> /dev/null | tar x -C /t",
    "1,000 files made and removed": "mkdir -p /m; cd /m; for i in {1..1000}; do : > $i; done; rm -rf /m",
}
#: A repository with all of /usr/share, or none.
PREPARE = (
    "! command -v git > /dev/null || { cp -r /usr/share /repository; cd /repository; git init -q; git config gc.auto 0;"
    " git add -A; git -c user.name=a -c user.email=a commit -qm a; }"
)
PACKAGES = (
    "cron less file bc tree jq nano vim-tiny lsof netcat-openbsd zip unzip pigz socat telnet tcpdump iputils-ping"
    " dnsutils wget curl"
)
FETCH = (
    "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d; cp -r /machine-apt/. /etc/apt/; rm -f /etc/apt/apt.conf.d/*docker*;"
    f" apt-get -qq update && apt-get -qq install -y --no-install-recommends --download-only {PACKAGES} man-db > /dev/null"
)
INSTALLS = {
    "dpkg -i of man-db and what it needs": "cd /var/cache/apt/archives && dpkg -i $(ls bsdextrautils_* groff-base_* libgdbm6_*"
    " libpipeline1_* libuchardet0_* man-db_* 2> /dev/null)",
    "apt-get install of 20 packages": f"apt-get -q install -y --no-install-recommends --no-download {PACKAGES}",
}


def duckweed(*words: str, place: str) -> subprocess.CompletedProcess[str]:
    """The command, with a range of ids or with one."""
    pretend = {} if place == "range" else {"DUCKWEED_PRETEND": "no-subid"}
    return subprocess.run(
        [sys.executable, "-m", "duckweed", *words],
        text=True,
        capture_output=True,
        env={**os.environ, **pretend},
    )


def start(image: str, column: str, network: str, *more: str) -> str:
    """A waiting container of a column."""
    emulation = "off" if column == "range" else column
    flags = ["--root-emulation", emulation, "--network", network, *more]
    made = duckweed("run", "-d", *flags, image, "sleep", "36000", place=column)
    if made.returncode:
        sys.exit(f"cannot start `{image}`: {made.stderr.strip()}")
    return made.stdout.strip()


def containers(image: str) -> dict[str, str]:
    """A waiting container for each column."""
    columns = {}
    for column in ("range", "off", "full"):
        name = start(image, column, "none")
        shown = duckweed("inspect", "-f", "{{.Duckweed.IdMap}}", name, place=column).stdout.strip()
        if column == "range" and shown != "full":
            duckweed("rm", "-f", name, place=column)
            continue
        columns[column] = name
        seconds(column, name, PREPARE)
    return columns


def with_packages(image: str, apt: str) -> str:
    """An image with packages in apt's cache."""
    name = start(image, "full", "host", "-v", f"{apt}:/machine-apt:ro")
    seconds("full", name, FETCH)
    made = duckweed("commit", name, place="full").stdout.strip()
    duckweed("rm", "-f", name, place="full")
    return made


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
    show(title, times)


def install(title: str, image: str, script: str, columns: list[str], rounds: int) -> None:
    """As [compare], in a new container for each round."""
    times: dict[str, list[float]] = {column: [] for column in columns}
    for _ in range(rounds):
        for column in columns:
            name = start(image, column, "none")
            times[column].append(seconds(column, name, f"export DEBIAN_FRONTEND=noninteractive; {script}"))
            duckweed("rm", "-f", name, place=column)
    show(title, times)


def show(title: str, times: dict[str, list[float]]) -> None:
    """A line for each column."""
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
    parser.add_argument("--only", default="", help="only cases whose titles have this in them")
    parser.add_argument("--packages", metavar="DIR")
    words = parser.parse_args()
    columns = containers(words.image)
    try:
        for title, script in CASES.items():
            if words.only in title:
                compare(title, columns, script, words.rounds)
    finally:
        for column, name in columns.items():
            duckweed("rm", "-f", name, place=column)
    if words.packages:
        image = with_packages(words.image, words.packages)
        for title, script in INSTALLS.items():
            if words.only in title:
                install(title, image, script, [each for each in columns if each != "off"], words.rounds)
        duckweed("rmi", image, place="full")


if __name__ == "__main__":
    main()
