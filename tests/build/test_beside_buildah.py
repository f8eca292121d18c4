"""The corpus beside buildah itself, where it is installed: the same config, and the same tree with owners, modes
and contents.

By default every tenth case is built, so that this stays short; DUCKWEED_BUILDAH=all builds all that
corpus/expected.json has, which is how that file is checked against another version of buildah.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import duckweed
import images
from build import cases
from build.test_corpus import CASES, DIFFERS, EXPECTED, plain
from build.with_buildah import CONFIG, flags

_EVERY = 1 if os.environ.get("DUCKWEED_BUILDAH") == "all" else 10
COMPARED = [case for case in CASES if case.name in EXPECTED and case.name not in DIFFERS][::_EVERY]


class Buildah:
    """buildah in a storage of its own, without any helper of the machine's."""

    def __init__(self, place: Path) -> None:
        program = shutil.which("buildah")
        if program is None:
            pytest.skip("buildah is not installed")
        self._place = place
        self._command = [program, "--root", str(place / "root"), "--runroot", str(place / "run")]
        self._command += ["--storage-driver", "vfs"]
        self._env = {**os.environ, "HOME": str(place), "XDG_RUNTIME_DIR": str(place)}

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [*self._command, *words], capture_output=True, text=True, env=self._env, timeout=120, check=False
        )
        if done.returncode:
            raise AssertionError(done.stderr.strip()[-2000:])
        return done.stdout.strip()

    def build(self, case: cases.Case, context: Path) -> tuple[dict[str, Any], dict[str, str]]:
        """The config and the tree that it makes of a case."""
        words = ["build", "--isolation", "chroot", "--format", "docker", "--layers=false", "--pull-never"]
        self.run(*words, "-t", "result", *flags(case), str(context))
        config = json.loads(self.run("inspect", "--type", "image", "result"))["Docker"]["config"]
        archive = self._place / "result.tar"
        archive.unlink(missing_ok=True)
        self.run("push", "-q", "result", f"docker-archive:{archive}")
        return {name: config[name] for name in CONFIG if config.get(name)}, merged(archive)

    def close(self) -> None:
        """Its files belong to other ids."""
        subprocess.run(
            [self._command[0], "unshare", "rm", "-rf", str(self._place / "root")], env=self._env, check=False
        )


def merged(archive: Path) -> dict[str, str]:
    """The tree of an image in a docker-archive, its layers put on one another."""
    tree: dict[str, str] = {}
    with tarfile.open(archive) as outer:

        def read(name: str) -> bytes:
            source = outer.extractfile(name)
            assert source is not None
            return source.read()

        for name in json.loads(read("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(read(name))) as tar:
                found = cases.tree_of(tar)
            for path in list(found):
                folder, _, last = path.rpartition("/")
                if last.startswith(".wh."):
                    del found[path]
                    opaque = last == ".wh..wh..opq"
                    gone = folder if opaque else f"{folder}/{last[4:]}".lstrip("/")
                    hidden = [
                        one for one in tree if one.startswith(gone + "/") or (one == gone and not opaque)
                    ]
                    for one in hidden:
                        del tree[one]
            for path, facts in found.items():
                # What is no directory any more has nothing beneath it.
                if not facts.startswith("dir"):
                    for one in [one for one in tree if one.startswith(path + "/")]:
                        del tree[one]
            tree.update(found)
    return tree


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """buildah with busybox; a skip where it cannot work."""
    # Its own paths must be short: a socket is among them.
    place = tmp_path_factory.mktemp("b")
    found = Buildah(place)
    archive = images.docker_archive(place / "busybox.tar", ["busybox:latest"], [images.busybox_layer()])
    try:
        found.run("pull", "-q", f"docker-archive:{archive}")
    except AssertionError as error:
        pytest.skip(f"buildah cannot work here: {error}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def engine(root: Path, busybox: str) -> duckweed.Engine:
    """The engine over the shared store."""
    return duckweed.Engine(root)


def test_enough_is_compared() -> None:
    assert len([case for case in CASES if case.name in EXPECTED]) >= 130


@pytest.mark.parametrize("case", COMPARED, ids=[case.name for case in COMPARED])
def test_beside_buildah(case: cases.Case, buildah: Buildah, engine: duckweed.Engine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    case.write_context(context)
    config, tree = buildah.build(case, context)
    output = ["type=image", f"type=tar,dest={tmp_path}/tree.tar"]
    image = engine.build(context, output=output, **case.args)
    assert image is not None
    assert plain({name: image.run_config.get(name) for name in CONFIG}) == plain(config)
    assert cases.read_tree((tmp_path / "tree.tar").read_bytes()) == tree
