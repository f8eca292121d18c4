"""Builds beside podman and buildah: cold, cached, one file changed, a RUN that does nothing, two stages side by
side.

`python bench/build.py [rounds]`, as an ordinary user, with the machine's static busybox. Each round runs every
case of every engine once, one after the other, so that a busy machine is busy for all; printed are best and
median in seconds and the ratios of the medians. podman and buildah build with `--layers` and
`--isolation=chroot`, their fastest; all with the host's network, which is all that isolation has. All begin
from a loaded busybox image; nothing is pulled. Cold means: nothing of this Dockerfile is in the cache, which
an ARG with a new value sees to. TMPDIR must be short: podman allows its directories 50 characters.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import images

FILES = 2000
TWELVE = """\
FROM busybox
ARG ROUND={round}
ENV A=1
WORKDIR /app
RUN echo $ROUND > /round
COPY requirements.txt .
RUN mkdir -p /opt/x && echo 1 > /opt/x/a
RUN cat requirements.txt > /opt/x/b
COPY . .
RUN find . | wc -l > /count
RUN rm -r /opt/x
LABEL l=1
CMD ["sh"]
"""
STAGES = """\
FROM busybox AS one
ARG ROUND={round}
RUN echo $ROUND && sleep 10
FROM busybox AS two
ARG ROUND={round}
RUN echo $ROUND && sleep 10 && true
FROM scratch
COPY --from=one /etc/passwd /one
COPY --from=two /etc/passwd /two
"""


def dockerfile_of_trues(count: int, number: int) -> str:
    return f"FROM busybox\nARG ROUND={number}\n" + "".join(f"RUN true {i}\n" for i in range(count))


class Engine:
    """One command that builds."""

    def __init__(self, name: str, command: list[str], env: dict[str, str]) -> None:
        self.name = name
        self.command = command
        self.env = {**os.environ, **env}

    def build(self, context: Path, text: str) -> float:
        (context / "Dockerfile").write_text(text)
        start = time.perf_counter()
        subprocess.run(
            [*self.command, str(context)], env=self.env, check=True, capture_output=True, cwd=context
        )
        return time.perf_counter() - start


def engines(place: Path) -> list[Engine]:
    """duckweed, and podman and buildah when they are there, each with busybox loaded in a store of its own."""
    archive = images.make_archives(place) / "busybox.tar"
    script = os.path.join(os.path.dirname(sys.executable), "duckweed")
    env = {"DUCKWEED_ROOT": str(place / "store")}
    subprocess.run([script, "load", "-q", "-i", str(archive)], env={**os.environ, **env}, check=True)
    found = [Engine("duckweed", [script, "build", "-q", "--network=host"], env)]
    for name, load in (("podman", ("load", "-q", "-i")), ("buildah", ("pull", "-q"))):
        program = shutil.which(name)
        if program is None:
            print(f"left out: {name} is not installed")
            continue
        source = str(archive) if name == "podman" else f"docker-archive:{archive}"
        # Its own choice is vfs where fuse-overlayfs is missing, although the kernel's overlay works.
        for driver in ("overlay", "vfs"):
            options = [
                "--root",
                str(place / name),
                "--runroot",
                str(place / name[:1]),
                "--storage-driver",
                driver,
            ]
            options += ["--cgroup-manager=cgroupfs"] if name == "podman" else []
            done = subprocess.run([program, *options, *load, source], capture_output=True, text=True)
            if done.returncode == 0:
                break
        if done.returncode:
            print(f"left out: {name} cannot load an image here: {done.stderr.strip()[-200:]}")
            continue
        print(f"{name} stores with {driver}")
        flags = ["build", "-q", "--layers", "--isolation=chroot", "--pull-never", "--jobs=2"]
        found.append(Engine(name, [program, *options, *flags], {}))
    return found


def measure(engine: Engine, context: Path, number: int, note: Callable[[str, str, float], None]) -> None:
    text = TWELVE.format(round=number)
    note("12 steps, cold", engine.name, engine.build(context, text))
    note("12 steps, cached", engine.name, engine.build(context, text))
    (context / "dir1" / "file1").write_text(f"changed in round {number} for {engine.name}")
    note("12 steps, one file changed", engine.name, engine.build(context, text))
    empty = context.parent / "empty"
    few = engine.build(empty, dockerfile_of_trues(1, number))
    many = engine.build(empty, dockerfile_of_trues(11, number + 1_000_000))
    note("one `RUN true`", engine.name, (many - few) / 10)
    note("two stages of 10 s", engine.name, engine.build(empty, STAGES.format(round=number)))


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    times: dict[tuple[str, str], list[float]] = {}

    def note(case: str, engine: str, seconds: float) -> None:
        times.setdefault((case, engine), []).append(seconds)

    with tempfile.TemporaryDirectory(prefix="dw-") as name:
        place = Path(name)
        context = place / "context"
        for number in range(FILES):
            path = context / f"dir{number % 20}" / f"file{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n" * (number % 200))
        (context / "requirements.txt").write_text("x\n")
        (place / "empty").mkdir()
        found = engines(place)
        salt = int(time.time())
        for number in range(rounds):
            for engine in found:
                measure(engine, context, salt + number, note)
        for engine in found[1:]:
            subprocess.run([engine.command[0], "unshare", "rm", "-rf", str(place / engine.name)], check=False)
    report(times, [engine.name for engine in found])


def report(times: dict[tuple[str, str], list[float]], names: list[str]) -> None:
    for case in dict.fromkeys(case for case, _ in times):
        parts = []
        for name in names:
            seconds = times[(case, name)]
            parts.append(f"{name} {min(seconds):.3f} / {statistics.median(seconds):.3f} s")
        ours = statistics.median(times[(case, names[0])])
        for name in names[1:]:
            parts.append(f"ratio to {name} {ours / statistics.median(times[(case, name)]):.2f}")
        print(f"{case:28} " + "   ".join(parts))


if __name__ == "__main__":
    main()
