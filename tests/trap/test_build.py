"""Builds where user namespaces are refused: the same Dockerfile gives the same layers."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import images
from conftest import Run, runner

DOCKERFILE = """FROM users
RUN echo built > /b && chown ann:staff /b && rm -r /home/ann /etc/twice && mkdir /home/ann && chmod 2775 /home/ann
COPY --chown=bob file /from/context
USER bob
RUN id -un > /tmp/who && ln -s /from /tmp/l && touch -t 202001010000.00 /tmp/who
"""


def _layers(run: Run, context: Path, tag: str) -> list[str]:
    words = ["build", "--no-cache", "-q", "-t", tag, str(context)]
    run(*words, check=True, env={"SOURCE_DATE_EPOCH": str(images.EPOCH)})
    layers: list[str] = json.loads(run("image", "inspect", tag, check=True).stdout)[0]["RootFS"]["Layers"]
    return layers


def test_a_dockerfile_gives_the_same_layers_in_both_backends(
    pod: Run, trap_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "file").write_text("of the context\n")
    ours = _layers(pod, tmp_path, "by-trap")
    theirs = _layers(runner(trap_root, {"DUCKWEED_PRETEND": "no-subid"}), tmp_path, "by-userns")
    assert ours == theirs and len(ours) == 5
    assert pod("run", "--rm", "by-trap", "stat", "-c", "%U", "/b").stdout == "ann\n"


def test_a_step_without_network_reaches_nobody(pod: Run, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        ask = f"nc -w 1 127.0.0.1 {server.getsockname()[1]} </dev/null"
        (tmp_path / "Dockerfile").write_text(f"FROM users\nRUN --network=none ! {ask}\n")
        done = pod("build", str(tmp_path))
        assert done.returncode == 0, done.stderr
