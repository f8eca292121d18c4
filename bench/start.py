#!/usr/bin/env python3
"""Start-up against the peers, side by side: `true` in a fresh container, twenty at once, and exec into a running one.

Every case runs the same static busybox on the same files. Cases of one table are interleaved, round by round, so that a
slow moment of the machine hits all of them; the table shows best and median, and ratios come from the same run. Peers that
are not installed, or that fail here, are named and left out. Nothing is warmed but the page cache: one round of each case
is thrown away.

    bench/start.py [--rounds 30] [--busybox PATH] [--json FILE]

Run it as an ordinary user with the installed duckweed in this interpreter. crun and podman need /sys/fs/cgroup to be
cgroup v2; where it is not, `bench/with-cgroup2 USER python bench/start.py` (as root) makes such a view.
What each number includes: Python cases start the peer by posix_spawn and wait for it (no pipes, no shell), while
engine.run also makes a container directory, captures stdout and stderr, and removes everything again (the deletion itself ends
shortly after the answer, as the kernel's own clean-up of bwrap's namespaces does; the case "50 in a row" counts both in full).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sides import ratio, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
NULL = os.open("/dev/null", os.O_RDWR)


def spawn(argv: list[str]) -> int:
    """Starts a command quietly, as cheaply as Python can."""
    actions = [(os.POSIX_SPAWN_DUP2, NULL, fd) for fd in (0, 1)]
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)


def finish(pid: int, argv: list[str]) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise RuntimeError(f"{argv[0]} exited {status}")


def command(argv: list[str]):
    """A case that starts one process and waits for it."""
    argv = [shutil.which(argv[0]) or argv[0], *argv[1:]]

    def once() -> None:
        finish(spawn(argv), argv)

    return once


def at_once(argv_of, count: int):
    """A case that starts `count` processes before waiting for any."""

    def once() -> None:
        running = []
        for n in range(count):
            argv = argv_of(n)
            running.append((spawn(argv), argv))
        for pid, argv in running:
            finish(pid, argv)

    return once


def runtime_bundle(directory: Path, rootfs: str) -> Path:
    """A plain OCI bundle made by `crun spec --rootless`, with `true` for a command."""
    directory.mkdir()
    subprocess.run(["crun", "spec", "--rootless"], cwd=directory, check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"].update(args=["/bin/true"], terminal=False)
    config["root"] = {"path": rootfs, "readonly": True}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", help="write all figures to this file")
    options = parser.parse_args()
    import images

    work = Path(tempfile.mkdtemp(prefix="duckweed-bench-"))
    os.environ.setdefault("DUCKWEED_ROOT", str(work / "store"))
    (work / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(work / "run")
    import duckweed

    engine = duckweed.Engine()
    archive = images.make_archives(work)
    engine.images.load(str(archive / "busybox.tar"))
    rootfs = work / "rootfs"
    rootfs.mkdir()
    subprocess.run(["tar", "-C", rootfs, "-xf", "-"], input=images.busybox_layer(), check=True)
    results: dict = {"uname": os.uname().release, "python": sys.version.split()[0]}
    try:
        measure(engine, work, str(rootfs), options.rounds, results)
    finally:
        for container in engine.containers.list(all=True):
            container.remove(force=True)
        subprocess.run(["chmod", "-R", "u+rwX", str(work)], check=False)
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    return 0


def measure(engine, work: Path, rootfs: str, rounds: int, results: dict) -> None:
    from duckweed.containers.supervisor import RUNTIME as helper

    cli = shutil.which("duckweed") or os.path.join(os.path.dirname(sys.executable), "duckweed")
    bwrap = [
        "bwrap",
        "--unshare-all",
        "--uid",
        "0",
        "--gid",
        "0",
        "--bind",
        rootfs,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    bwrap = [shutil.which("bwrap") or "bwrap", *bwrap[1:], "/bin/true"]

    def ours() -> None:
        if engine.run("busybox", ["true"]).exit_code != 0:
            raise RuntimeError("not 0")

    cases = {
        "host true": command([rootfs + "/bin/busybox", "true"]),
        "bwrap --unshare-all": command(bwrap),
        "engine.run": ours,
    }
    found = table("true in a fresh container, from Python", cases, rounds, results, pause_s=0.01)
    ratio(found, "engine.run", "bwrap --unshare-all", "<= 0.8", results)

    ballast = bytearray(300 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    found = table(
        "the same from a process of 300 MB",
        {k: cases[k] for k in list(cases)[1:]},
        rounds,
        results,
        pause_s=0.01,
    )
    ratio(found, "engine.run", "bwrap --unshare-all", "<= 0.8", results)
    del ballast

    if shutil.which("crun"):
        bundle = str(runtime_bundle(work / "bundle", rootfs))
        cases = {
            "crun run": command(["crun", "run", "-b", bundle, "bench-crun"]),
            "duckweed-runtime run": command([helper, "run", "--bundle", bundle, "bench-duckweed"]),
        }
        found = table("the runtime alone, one bundle for both", cases, rounds, results, pause_s=0.01)
        ratio(found, "duckweed-runtime run", "crun run", "<= 0.5", results)

    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(20)

    def ours_at_once() -> None:
        list(pool.map(lambda _: ours(), range(20)))

    found = table(
        "20 at once",
        {"bwrap x 20": at_once(lambda n: bwrap, 20), "engine.run x 20": ours_at_once},
        max(5, rounds // 3),
        results,
        pause_s=0.01,
    )
    ratio(found, "engine.run x 20", "bwrap x 20", "<= 0.83, that is 1.2 times the rate", results)

    def in_a_row(case):
        def once() -> None:
            for _ in range(50):
                case()

        return once

    cases = {"bwrap, 50 in a row": in_a_row(command(bwrap)), "engine.run, 50 in a row": in_a_row(ours)}
    found = table("50 in a row", cases, max(5, rounds // 5), results, pause_s=0.01)
    ratio(
        found,
        "engine.run, 50 in a row",
        "bwrap, 50 in a row",
        "none set; nothing can be left for later here",
        results,
    )

    # A store of its own: an older one remembers another view of the machine's cgroups.
    podman = [
        "podman",
        "--root",
        str(work / "podman"),
        "--runroot",
        str(work / "run"),
        "--tmpdir",
        str(work / "run"),
    ]
    cases = {
        "python -c pass": command([sys.executable, "-c", "pass"]),
        "duckweed run --rm": command([cli, "run", "--rm", "busybox", "true"]),
    }
    if shutil.which("podman"):
        import images

        done = subprocess.run(
            [*podman, "import", "-q", "-", "duckweed-bench"],
            input=images.busybox_layer(),
            capture_output=True,
        )
        if done.returncode == 0:
            argv = [*podman, "run", "--rm", "--network", "none", "localhost/duckweed-bench", "true"]
            cases["podman run --rm --network none"] = command(argv)
    found = table("the command line, warm", cases, max(10, rounds // 2), results, pause_s=0.01)
    ratio(found, "duckweed run --rm", "podman run --rm --network none", "<= 0.4", results)
    if "duckweed run --rm" in found:
        extra = found["duckweed run --rm"][1] - found["python -c pass"][1]
        print(f"   beyond CPython's own start: {extra:.1f} ms median (goal <= 60)")
        results["beyond_cpython_ms"] = extra

    with engine.containers.run("busybox", ["sleep", "1000"]) as container:
        cases = {"duckweed exec": command([cli, "exec", container.id, "true"])}
        started = None
        if "podman run --rm --network none" in found:
            run = [
                *podman,
                "run",
                "-d",
                "--rm",
                "--network",
                "none",
                "localhost/duckweed-bench",
                "sleep",
                "1000",
            ]
            started = subprocess.run(run, capture_output=True, text=True).stdout.strip()
            cases["podman exec"] = command([*podman, "exec", started, "true"])
        found = table("exec true in a running container", cases, max(10, rounds // 2), results, pause_s=0.01)
        ratio(found, "duckweed exec", "podman exec", "<= 0.5", results)
        idle(container, results)
        if started:
            subprocess.run([*podman, "rm", "-f", "-t", "0", started], capture_output=True)
    if shutil.which("podman"):
        # Ends the process that holds its namespaces, and lets its store be removed.
        subprocess.run([*podman, "system", "reset", "-f"], capture_output=True)


def idle(container, results: dict) -> None:
    """The memory of what keeps one idle container alive."""
    with open(os.path.join(container.directory, "state.json")) as file:
        pid = json.load(file)["supervisor_pid"]
    with open(f"/proc/{pid}/status") as file:
        rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    results["supervisor_rss_kib"] = rss
    print(f"\n## one idle container\n{'supervisor, resident KiB':44}{rss:10d}   (goal <= 3072)")


if __name__ == "__main__":
    sys.exit(main())
