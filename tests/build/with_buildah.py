"""Writes corpus/expected.json: what buildah makes of the cases that it can build.

Run once, by hand, where Debian's buildah is installed: `python tests/build/with_buildah.py` (as root, or in
`buildah unshare`). The tests compare with the file and need no buildah.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import cases  # noqa: E402

import images  # noqa: E402

CONFIG = (
    "Env",
    "Cmd",
    "Entrypoint",
    "User",
    "WorkingDir",
    "ExposedPorts",
    "Volumes",
    "Labels",
    "OnBuild",
    "Healthcheck",
    "Shell",
    "StopSignal",
)


class Buildah:
    """buildah with a storage of its own."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._options = ["--root", str(place / "root"), "--runroot", str(place / "run")]
        self._options += ["--storage-driver", "vfs"]

    def run(self, *words: str) -> str:
        command = ["buildah", *self._options, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def tree(self, image: str) -> dict[str, str]:
        container = self.run("from", "--pull-never", image)
        mounted = self.run("mount", container)
        archive = self._place / "tree.tar"
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(mounted, arcname=".")
        self.run("umount", container)
        self.run("rm", container)
        with tarfile.open(archive) as tar:
            return cases.tree_of(tar)

    def config(self, image: str) -> dict[str, Any]:
        document = json.loads(self.run("inspect", "--type", "image", image))
        config = document["Docker"]["config"]
        return {name: config[name] for name in CONFIG if config.get(name)}

    def history(self, image: str) -> list[str]:
        document = json.loads(self.run("inspect", "--type", "image", image))
        return [entry.get("created_by", "") for entry in document["Docker"]["history"]]


def flags(case: cases.Case) -> list[str]:
    words = []
    for name, value in case.args.items():
        for text in value if isinstance(value, list) else [value]:
            words.append(f"--{name.replace('_', '-')}={text}")
    return words


def main() -> None:
    version = subprocess.run(["buildah", "--version"], check=True, capture_output=True, text=True).stdout
    word = f"{' '.join(version.split()[:3])}, {datetime.date.today()}"
    expected: dict[str, Any] = {"made_by": word, "cases": {}}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        buildah = Buildah(place)
        archive = images.docker_archive(place / "busybox.tar", ["busybox:latest"], [images.busybox_layer()])
        buildah.run("pull", f"docker-archive:{archive}")
        base = buildah.tree("busybox")
        for case in cases.read_cases():
            if case.expect is not None:
                continue
            context = place / "contexts" / case.name
            case.write_context(context)
            try:
                words = ["--isolation", "chroot", "--format", "docker", "--layers=false"]
                buildah.run("build", *words, "--pull-never", "-t", "result", *flags(case), str(context))
            except subprocess.CalledProcessError as error:
                print(f"{case.name}: {error.stderr.strip().splitlines()[-1:]}")
                continue
            expected["cases"][case.name] = found = {"config": buildah.config("result")}
            if "OnBuild" not in found["config"]:  # `from` would run the triggers
                tree = buildah.tree("result")
                found["tree"] = cases.difference(tree, base if "bin/busybox" in tree else {})
            print(case.name, flush=True)
    (cases.CORPUS / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
