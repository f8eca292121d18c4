"""Ctrl-C while layers are extracted on other threads: it ends at once, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import images
from conftest import command, runner


@pytest.mark.parametrize("patience", [0.0, 0.05])
def test_interrupted_load_leaves_nothing_and_succeeds_again(tmp_path: Path, patience: float) -> None:
    many = [(images.member(f"{n:05}"), b"x" * 2000) for n in range(3000)]
    layers = [images.layer([(images.member(f"layer{n}"), b""), *many]) for n in range(2)]
    archive = images.docker_archive(tmp_path / "many.tar", ["many:latest"], layers)
    root = tmp_path / "store"
    run = runner(root)
    run("images", check=True)
    process = subprocess.Popen(
        [*command(), "load", "-i", str(archive)],
        env={**os.environ, "DUCKWEED_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((root / "tmp").glob("*-layer-*/layer/fs/*")) and process.poll() is None:
        assert time.monotonic() < deadline, "no extraction has begun"
        time.sleep(0.002)
    time.sleep(patience)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not list((root / "tmp").iterdir()) and not list((root / "layers").iterdir())
    run("load", "-i", str(archive), check=True)
