#!/usr/bin/env python3
"""Pull and push against podman: a real image of several layers, from and to a registry on the loopback device.

Both pull the same repository of one docker-registry (Debian's) into an empty store of their own on the same file system, and
push the same image to a registry that has nothing. Rounds are interleaved; the table shows best and median, and ratios come
from the same run. Emptying stores and starting registries is not counted. One round is thrown away.

    bench/transfer.py [--rounds 5] [--archive PATH] [--json FILE]

The archive is a docker-archive (default: the tests' Debian with Python; DUCKWEED_TEST_IMAGES names a directory that has
debian-python.tar). Run it as an ordinary user with the installed duckweed in this interpreter; docker-registry, skopeo and
podman must be installed.
What the numbers include: a pull ends when the layers are extracted and can be run, blobs synced to disk, here as there (podman
syncs less). For push both have loaded the image from a gzip OCI archive: duckweed has kept its blobs and sends them, podman
has unpacked them and packs them anew; that is how the two are made, and the difference is most of the ratio. Memory is the
largest resident size of the command and its waited-for children, as wait4(2) tells.
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
from pathlib import Path

from sides import ratio, show

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


def measured(argv: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall time in s and peak resident size in MiB of one command."""
    with tempfile.TemporaryFile() as out:
        before = time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, out.fileno(), 2)]
        pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        took = time.perf_counter() - before
        if status != 0:
            out.seek(0)
            raise RuntimeError(out.read().decode(errors="replace").strip().splitlines()[-1])
    return took, usage.ru_maxrss / 1024


class Duckweed:
    name = "duckweed"

    def __init__(self, work: Path) -> None:
        self.root = work / "duckweed"
        program = Path(sys.executable).with_name("duckweed")
        self.program = str(program) if program.exists() else shutil.which("duckweed") or "duckweed"
        self.env = {**os.environ, "DUCKWEED_ROOT": str(self.root)}

    def empty(self) -> None:
        words = [self.program, "images", "-q"]
        ids = subprocess.run(words, env=self.env, capture_output=True, text=True).stdout.split()
        if ids:
            subprocess.run([self.program, "rmi", "-f", *sorted(set(ids))], env=self.env, capture_output=True)
        subprocess.run([self.program, "image", "prune", "-a", "-f"], env=self.env, capture_output=True)

    def load(self, archive: Path, name: str) -> None:
        subprocess.run(
            [self.program, "load", "-q", "-i", str(archive)], env=self.env, check=True, capture_output=True
        )
        self.tag(name)

    def tag(self, name: str) -> None:
        subprocess.run([self.program, "tag", "bench/image:1", name], env=self.env, check=True)

    def pull(self, name: str) -> tuple[float, float]:
        return measured([self.program, "pull", "-q", name], self.env)

    def push(self, name: str) -> tuple[float, float]:
        return measured([self.program, "push", "-q", name], self.env)


class Podman:
    name = "podman"

    def __init__(self, work: Path) -> None:
        self.program = shutil.which("podman") or "podman"
        self.first = ["--root", str(work / "podman"), "--runroot", str(work / "podman-run")]
        home = work / "home"
        (home / ".config/containers").mkdir(parents=True)
        (home / ".config/containers/policy.json").write_text(POLICY)
        self.env = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
        for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            self.env.pop(variable, None)
        self.home = home

    def _quietly(self, *words: str) -> None:
        subprocess.run([self.program, *self.first, *words], env=self.env, capture_output=True, check=True)

    def empty(self) -> None:
        self._quietly("rmi", "-a", "-f")

    def load(self, archive: Path, name: str) -> None:
        self._quietly("load", "-q", "-i", str(archive))
        self.tag(name)

    def tag(self, name: str) -> None:
        self._quietly("tag", "docker.io/bench/image:1", name)

    def pull(self, name: str) -> tuple[float, float]:
        words = ["pull", "-q", "--tls-verify=false", name]
        return measured([self.program, *self.first, *words], self.env)

    def push(self, name: str) -> tuple[float, float]:
        words = ["push", "-q", "--tls-verify=false", name]
        return measured([self.program, *self.first, *words], self.env)


def skopeo(work: Path, *words: str) -> None:
    policy = work / "policy.json"
    policy.write_text(POLICY)
    subprocess.run(["skopeo", "--policy", str(policy), "copy", "-q", *words], check=True)


def report(title: str, samples: dict[str, list[tuple[float, float]]], goal: str, results: dict) -> None:
    """The table, the ratio to podman, the memory."""
    found = show(title, samples, results)
    ratio(found, "duckweed", "podman", goal, results.setdefault(f"of {title}", {}))
    print(f"   peak memory {found['duckweed'][2]:.0f} MiB (goal <= 143, that is 150 MB)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--archive", type=Path, help="a docker-archive with one image")
    parser.add_argument("--json", help="write all figures to this file")
    options = parser.parse_args()
    import images

    archive = options.archive or images.debian_archive()
    work = Path(tempfile.mkdtemp(prefix="duckweed-bench-", dir="/var/tmp"))
    results: dict = {"uname": os.uname().release, "python": sys.version.split()[0]}
    peers = [Duckweed(work)]
    if shutil.which("podman"):
        peers.append(Podman(work))
    else:
        print("podman is not installed: left out")
    try:
        measure(archive, work, peers, options.rounds, results)
    finally:
        for peer in peers:
            peer.empty()
        subprocess.run(["chmod", "-R", "u+rwX", str(work)], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    return 0


def measure(archive: Path, work: Path, peers: list, rounds: int, results: dict) -> None:
    from registry.server import RegistryServer

    server = RegistryServer(work / "registry")
    name = f"{server.name}/bench/image:1"
    skopeo(work, "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name}")
    packed = work / "packed.tar"
    skopeo(
        work, "--src-tls-verify=false", f"docker://{name}", f"oci-archive:{packed}:docker.io/bench/image:1"
    )
    try:
        pulls: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in peers}
        for number in range(rounds + 1):
            for peer in peers:
                peer.empty()
                taken = peer.pull(name)
                if number:
                    pulls[peer.name].append(taken)
        report("pull", pulls, "<= 0.35", results)
    finally:
        server.stop()

    pushes: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in peers}
    for peer in peers:
        peer.empty()
        peer.load(packed, "first.invalid/bench:1")
    for number in range(rounds + 1):
        for peer in peers:
            # A registry of its own for each push: neither has ever heard of it.
            empty = RegistryServer(work / f"registry-{peer.name}-{number}")
            try:
                target = f"{empty.name}/bench/pushed:1"
                peer.tag(target)
                taken = peer.push(target)
            finally:
                empty.stop()
                shutil.rmtree(empty.directory, ignore_errors=True)
            if number:
                pushes[peer.name].append(taken)
    report("push", pushes, "<= 0.6", results)


if __name__ == "__main__":
    sys.exit(main())
