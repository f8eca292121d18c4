"""The same commands under a range of ids and under one, then `commit` and `save`: every tar header must be equal but for times.

    python tests/emulation/same_image.py IMAGE [--apt DIR] [--script FILE] [--write FILE | --against FILE]

Runs `packages.sh` (or another script) in containers of IMAGE, a Debian, on the machine's network. DIR is the apt
configuration by which this machine reaches its packages (default: /etc/apt). An account with subordinate ids does
both, and plays the one with a single id; with `--write` the facts of the account as it is go to a file, and
with `--against` they are compared with those of another. Exit status 1: something differs that is not listed.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).parent

#: Where sizes may differ, each with the reason. Types, modes, owners, links, devices and attributes may not.
SIZES = {
    "etc/ssh/ssh_host_*_key*": "keys are made at random",
    "etc/ssl/*/ssl-cert-snakeoil.*": "the same",
    "var/lib/apt/lists/*": "the archive may have changed between the two",
    "var/cache/apt/*.bin": "made from those lists",
    "var/log/*": "logs hold times and process numbers",
    "var/cache/man/*": "man-db's index is ordered as the directory is",
    "var/lib/postgresql/*": "a cluster holds times, a random identifier and as much log as it happened to write",
    "work/d.tar": "times with fractions are longer than whole seconds",
}

Facts = dict[str, object]


def headers(archive: Path) -> dict[str, Facts]:
    """What a `save` archive says of every file of the image's last layer, by path."""
    with tarfile.open(archive) as outer:
        index = json.load(_member(outer, "manifest.json"))
        with tarfile.open(fileobj=_member(outer, index[0]["Layers"][-1])) as layer:
            return {info.name.rstrip("/"): _facts(info) for info in layer}


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedIOBase:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _facts(info: tarfile.TarInfo) -> Facts:
    """All of a header but its times."""
    attributes = {name: value for name, value in info.pax_headers.items() if name.startswith("SCHILY.xattr.")}
    return {
        "type": info.type.decode(),
        "mode": f"{info.mode:04o}",
        "owner": f"{info.uid}:{info.gid}",
        "names": f"{info.uname}:{info.gname}",
        "link": info.linkname,
        "device": f"{info.devmajor}:{info.devminor}" if info.isdev() else "",
        "size": info.size,
        "attributes": attributes,
    }


def differences(one: Mapping[str, Facts], other: Mapping[str, Facts]) -> list[str]:
    """Every difference that has no reason in SIZES, a line each."""
    found = []
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            found.append(f"{name}: only {'here' if name in one else 'there'}")
            continue
        for fact, value in one[name].items():
            there = other[name][fact]
            if value == there or (fact == "size" and any(fnmatch.fnmatch(name, each) for each in SIZES)):
                continue
            found.append(f"{name}: {fact} {value!r} here, {there!r} there")
    return found


Duckweed = Callable[..., str]


def image_after(duckweed: Duckweed, image: str, script: Path, *flags: str) -> dict[str, Facts]:
    """Runs the script in a container, and reads what `commit` and `save` make of it."""
    tag = f"same{os.urandom(4).hex()}:1"
    name = duckweed("create", *flags, "-v", f"{script}:/script:ro", image, "bash", "/script").strip()
    try:
        said = duckweed("start", "-a", name)
        duckweed("commit", name, tag)
        with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
            archive = Path(place) / "image.tar"
            duckweed("save", "-o", str(archive), tag)
            found = headers(archive)
    finally:
        duckweed("rm", "-f", name)
    duckweed("rmi", tag)
    print(f"{said.splitlines()[-1] if said else 'nothing said'}; {len(found)} files changed", flush=True)
    return found


def runner(extra: Mapping[str, str]) -> Duckweed:
    """The command; its failure is the end."""

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "duckweed", *words],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **extra},
        )
        if done.returncode:
            sys.exit(f"duckweed {' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}")
        return done.stdout

    return run


def main() -> None:
    """Reads the words, runs, compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--apt", default="/etc/apt")
    parser.add_argument("--script", type=Path, default=HERE / "packages.sh")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    words = parser.parse_args()
    flags = [
        *("--network", "host", "-v", f"{words.apt}:/machine-apt:ro"),
        # What makes su and sudo work under a range of ids; under one they are emulated.
        *("--security-opt", "no-new-privileges=false"),
    ]
    script = words.script.resolve()
    here = image_after(runner({}), words.image, script, *flags)
    if words.write:
        words.write.write_text(json.dumps(here, indent=1, sort_keys=True))
        return
    if words.against:
        there = json.loads(words.against.read_text())
    else:
        there = image_after(runner({"DUCKWEED_PRETEND": "no-subid"}), words.image, script, *flags)
    found = differences(here, there)
    print("\n".join(found) or f"{len(here)} headers, all equal")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
