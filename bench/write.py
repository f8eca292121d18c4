#!/usr/bin/env python3
"""Writing images beside podman: `save` of a whole image, and `commit` of a container with 5,000 changed files.

Both engines load the same archive, have the same files copied into a container of it, and write to the same disk. Cases of one
table are interleaved, round by round; best and median are shown, and ratios come from the same run. What a round leaves
(the file, the committed image) is removed between the rounds and not timed. Memory is the largest resident size of any one
process of the command. A commit counts everything: the layer's blob, its digests, and its tree ready to run.

    bench/write.py --image debian-python.tar [--rounds 5] [--json FILE]

Run it as an ordinary user with a subordinate id range, with the installed duckweed in this interpreter. No container is
started, so podman needs no cgroups.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sides import Case, ratio, table

FILES = 5000


def make_files(top: Path) -> None:
    """The change: 50 directories of 100 small files."""
    for number in range(FILES):
        directory = top / f"d{number // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_text(f"this is file number {number}, and it is not empty\n" * 3)


def run(argv: list[str]) -> tuple[float, float]:
    """Seconds and MiB of a command that must succeed."""
    argv = [shutil.which(argv[0]) or argv[0], *argv[1:]]
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
    before = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=null)
    _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - before
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{' '.join(argv)} failed")
    return took, usage.ru_maxrss / 1024


def case(argv: list[str], clean: Callable[[], object]) -> Case:
    """Runs a command, and then clears away what it made."""

    def once() -> tuple[float, float]:
        sample = run(argv)
        clean()
        return sample

    return once


def quiet(argv: list[str]) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, help="a docker-archive of one image with a shell")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write all figures to this file")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="dwb", dir="/var/tmp"))
    os.environ["DUCKWEED_ROOT"] = str(work / "store")
    (work / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    podman = ["podman", "--root", f"{work}/p", "--runroot", f"{work}/r", "--cgroup-manager", "cgroupfs"]
    duckweed = [os.path.join(os.path.dirname(sys.executable), "duckweed")]
    results: dict = {"uname": os.uname().release}
    try:
        measure(duckweed, podman, work, options, results)
    finally:
        subprocess.run([*duckweed, "rm", "-f", "changed"], capture_output=True)
        subprocess.run([*podman, "rm", "-f", "changed"], capture_output=True)
        subprocess.run(["podman", "unshare", "rm", "-rf", f"{work}/p", f"{work}/r"], capture_output=True)
        quiet([*duckweed, "image", "prune", "-a", "-f"])
        subprocess.run(["chmod", "-R", "u+rwX", str(work)], check=False)
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    return 0


def measure(
    duckweed: list[str], podman: list[str], work: Path, options: argparse.Namespace, results: dict
) -> None:
    image = quiet([*duckweed, "load", "-i", options.image]).split()[-1]
    load = [*podman, "load", "--signature-policy", f"{work}/policy.json", "-i", options.image]
    theirs = quiet(load).splitlines()[-1].split()[-1]
    out = work / "out.tar"
    cases = {
        "duckweed save": case([*duckweed, "save", "-o", str(out), image], out.unlink),
        "podman save": case([*podman, "save", "-q", "-o", str(out), theirs], out.unlink),
    }
    found = table("save of a whole image, docker-archive", cases, options.rounds, results, unit="s")
    ratio(found, "duckweed save", "podman save", "<= 0.6", results)

    make_files(work / "changed")
    for engine, name in ((duckweed, image), (podman, theirs)):
        quiet([*engine, "create", "--name", "changed", name, "true"])
        quiet([*engine, "cp", str(work / "changed"), "changed:/"])

    def forget(engine: list[str]):
        return lambda: quiet([*engine, "rmi", "-f", "committed"])

    cases = {
        "duckweed commit": case([*duckweed, "commit", "changed", "committed"], forget(duckweed)),
        "podman commit": case([*podman, "commit", "-q", "changed", "committed"], forget(podman)),
    }
    found = table(f"commit of {FILES:,} new files", cases, options.rounds, results, unit="s")
    ratio(found, "duckweed commit", "podman commit", "<= 0.3", results)


if __name__ == "__main__":
    sys.exit(main())
