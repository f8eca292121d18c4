"""Debian's docker-registry on a free port of the loopback device: plain, with htpasswd, TLS or tokens."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 20


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RegistryServer:
    """One running docker-registry; `name` is its `host:port`."""

    def __init__(
        self, directory: Path, *, http: dict[str, Any] | None = None, auth: dict[str, Any] | None = None
    ) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            pytest.skip("docker-registry is not installed")
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "log"
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(directory / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.name, **(http or {})},
        }
        if auth:
            config["auth"] = auth
        path = directory / "config.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([program, "serve", str(path)], stdout=log, stderr=log)
        wait_until(self._listens, f"docker-registry does not listen:\n{self.log.read_text()}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def blob_path(self, digest: str) -> Path:
        """Where the registry keeps a blob."""
        return self.directory / f"data/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)


def wait_until(condition: Any, complaint: str) -> None:
    """Waits for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(complaint)
        time.sleep(0.02)


def get_json(url: str, headers: dict[str, str] | None = None) -> Any:
    """A document of a registry, fetched without our client."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
        return json.load(answer)


def skopeo(*words: str) -> None:
    """Runs skopeo, or skips."""
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("skopeo is not installed")
    # skopeo wants a policy; the test's own says yes to everything.
    policy = Path(os.environ.get("TMPDIR", "/tmp")) / f"policy-{os.getpid()}.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    done = subprocess.run([program, "--policy", str(policy), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
