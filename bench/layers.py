#!/usr/bin/env python3
"""Layers: a gzip, a zstd and a plain layer to a verified tree, and an archive into the store, beside the peers.

    bench/layers.py [--rounds 5] [--where DIR ...] [--layer FILE.tar.gz] [--image ARCHIVE] [--json FILE]

Cases of one table are interleaved, round by round; the table shows best and median wall time, and ratios come from the same
run. Every case makes its tree in a directory of its own, and all trees of a round are removed after it, outside the clock: ext4
avoids inodes that were freed in the last seconds, so removing one case's tree first would slow the next one down.
Nothing is warmed but the page cache; one round is thrown away.

What each number includes: ours reads the layer, checks the digest of the compressed bytes and the diff id, and writes the tree
and its index (no copy of the blob is kept: tar keeps none either). tar and bsdtar check nothing. "inflate alone" is our
inflater into /dev/null; "create alone" is the quicker of `tar -xf` and of our own extraction on the plain tar, so that the limit
is no easier than what is known to be possible. `load` keeps and syncs the blobs, which podman does not.
Without --layer and --image the tests' Debian image is made and used (mmdebstrap, once). Run it as an ordinary user.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from sides import ratio, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


def quiet(argv: list[str], **more: object) -> None:
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])


class Place:
    """A directory to make trees in."""

    def __init__(self, where: str) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="duckweed-bench-", dir=where))
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        path = self.top / str(self._count)
        path.mkdir()
        return str(path)

    def clean(self) -> None:
        for entry in self.top.iterdir():
            subprocess.run(["chmod", "-R", "u+rwX", str(entry)], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(entry, ignore_errors=True)


def layer_cases(layer: Path, place: Place) -> dict:
    """All ways to make a tree of one layer; `layer` lies beside its .gz and .zst."""
    from duckweed import _core

    digests = {}
    for suffix in ("", ".gz", ".zst"):
        with open(f"{layer}{suffix}", "rb") as file:
            digests[suffix] = _core.digest_file(file.fileno())[0]

    def ours(suffix: str):
        def once() -> None:
            with open(f"{layer}{suffix}", "rb") as file:
                _core.extract_layer(
                    file.fileno(),
                    place.fresh() + "/layer",
                    expected_diff_id=digests[""],
                    expected_blob=digests[suffix],
                )

        return once

    def inflate() -> None:
        with open(f"{layer}.gz", "rb") as file, open("/dev/null", "wb") as out:
            _core.decompress(file.fileno(), out.fileno())

    def tar(program: str, *flags: str, suffix: str):
        return lambda: quiet([program, "-C", place.fresh(), *flags, f"{layer}{suffix}"])

    return {
        "inflate alone": inflate,
        "tar -xf, plain": tar("tar", "-xf", suffix=""),
        "ours, plain": ours(""),
        "ours, gzip": ours(".gz"),
        "tar -xzf": tar("tar", "-xzf", suffix=".gz"),
        "bsdtar -xf, gzip": tar("bsdtar", "-xf", suffix=".gz"),
        "ours, zstd": ours(".zst"),
        "tar --zstd -xf": tar("tar", "--zstd", "-xf", suffix=".zst"),
    }


def measure_layer(layer: Path, where: str, rounds: int, results: dict) -> None:
    place = Place(where)
    kind = subprocess.run(["stat", "-f", "-c", "%T", where], capture_output=True, text=True).stdout.strip()
    try:
        found = table(
            f"one layer, on {kind} ({where})",
            layer_cases(layer, place),
            rounds,
            results,
            unit="s",
            after_round=place.clean,
        )
    finally:
        place.clean()
        place.top.rmdir()
    is_tmpfs = kind == "tmpfs"
    create = [name for name in ("tar -xf, plain", "ours, plain") if name in found]
    if create and "inflate alone" in found:
        found["create alone"] = tuple(min(found[name][i] for name in create) for i in (0, 1))
        ratio(found, "ours, gzip", ["inflate alone", "create alone"], "<= 1.25", results)
    ratio(found, "ours, gzip", ["tar -xzf"], "<= 0.35" if is_tmpfs else "<= 0.75", results)
    ratio(found, "ours, gzip", ["bsdtar -xf, gzip"], "none set", results)
    ratio(found, "ours, zstd", ["tar --zstd -xf"], "<= 0.9", results)


def measure_load(image: Path, where: str, rounds: int, results: dict) -> None:
    place = Place(where)
    cli = shutil.which("duckweed") or os.path.join(os.path.dirname(sys.executable), "duckweed")

    def ours() -> None:
        quiet([cli, "load", "-q", "-i", str(image)], env={**os.environ, "DUCKWEED_ROOT": place.fresh()})

    def podman() -> None:
        root = place.fresh()
        quiet(
            ["podman", "--root", root + "/root", "--runroot", root + "/run", "load", "-q", "-i", str(image)]
        )

    def clean() -> None:
        # Either may own files by subordinate ids.
        if shutil.which("podman"):
            subprocess.run(
                ["podman", "unshare", "rm", "-rf", *map(str, place.top.iterdir())],
                check=False,
                stderr=subprocess.DEVNULL,
            )
        place.clean()

    cases = {"duckweed load": ours}
    if shutil.which("podman"):
        cases["podman load"] = podman
    try:
        found = table(f"load {image.name}, {where}", cases, rounds, results, unit="s", after_round=clean)
    finally:
        clean()
        place.top.rmdir()
    ratio(found, "duckweed load", ["podman load"], "<= 0.45", results)


def measure_memory(layer: Path, where: str, results: dict) -> None:
    """Peak memory of a process that does nothing but one extraction."""
    place = Place(where)
    code = (
        "import sys; from duckweed import _core; file = open(sys.argv[1], 'rb'); "
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); before = peak(); "
        "_core.extract_layer(file.fileno(), sys.argv[2] + '/layer', blob_out=sys.argv[2] + '/blob'); "
        "print(before, peak())"
    )
    print(f"\n## peak memory, MB (goal <= 150)\n{'':44}{'import':>10}{'extraction':>11}")
    for suffix in ("", ".gz", ".zst"):
        argv = [sys.executable, "-c", code, f"{layer}{suffix}", place.fresh()]
        words = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        before, peak = (int(word) / 1024 for word in words)
        results[f"peak_mb{suffix}"] = peak
        print(f"{layer.name + suffix:44}{before:10.0f}{peak:11.0f}")
    place.clean()
    place.top.rmdir()


def largest_layer(image: Path, work: Path) -> Path:
    """The largest member of a docker-archive, as a file with a .gz and a .zst beside it."""
    layer = work / "layer.tar"
    with tarfile.open(image) as outer:
        member = max((one for one in outer if one.isfile()), key=lambda one: one.size)
        body = outer.extractfile(member)
        assert body is not None
        with open(layer, "wb") as out:
            shutil.copyfileobj(body, out, 1 << 20)
    with open(layer, "rb") as plain, gzip.open(f"{layer}.gz", "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)
    quiet(["zstd", "-q", "-3", "-k", str(layer)])
    return layer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--where", nargs="*", default=["/var/tmp", "/dev/shm"], help="directories to make trees in"
    )
    parser.add_argument("--layer", help="a plain layer; FILE.gz and FILE.zst lie beside it")
    parser.add_argument("--image", help="a docker-archive")
    parser.add_argument("--json", help="write all figures to this file")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="duckweed-bench-layer-", dir="/var/tmp"))
    results: dict = {"uname": os.uname().release, "python": sys.version.split()[0]}
    try:
        if not options.image:
            import images

            options.image = str(images.debian_archive())
        layer = Path(options.layer) if options.layer else largest_layer(Path(options.image), work)
        for where in options.where:
            measure_layer(layer, where, options.rounds, results)
        measure_memory(layer, options.where[0], results)
        measure_load(Path(options.image), options.where[0], options.rounds, results)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
