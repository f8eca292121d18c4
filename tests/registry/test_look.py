"""`search`, `manifest inspect`, `import URL`, progress on a terminal, and a disk that is full."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pexpect
import pytest

import images
from conftest import Run, command
from registry.publish import ARCHITECTURE, Published, publish, publish_index, random_layer
from registry.server import RegistryServer


@pytest.fixture
def pages() -> Iterator[Callable[[dict[str, bytes]], str]]:
    """`pages({path: body})` serves these and returns `host:port`."""
    servers: list[ThreadingHTTPServer] = []

    def serve(bodies: dict[str, bytes]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = bodies.get(self.path.partition("?")[0])
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_search_shows_what_the_registry_finds(fresh: Run, pages: Callable[[dict[str, bytes]], str]) -> None:
    results = [
        {"name": "busybox", "description": "Tiny " * 20, "star_count": 7, "is_official": True},
        {"name": "me/busybox", "description": "", "star_count": 1, "is_official": False},
    ]
    name = pages({"/v1/search": json.dumps({"results": results}).encode(), "/v2/": b"{}"})
    header, first, second = fresh("search", f"{name}/busybox", check=True).stdout.splitlines()
    assert header.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert first.startswith("busybox") and "…" in first and first.rstrip().endswith("[OK]")
    assert second.split() == ["me/busybox", "1"]
    only = fresh(
        "search", "-f", "is-official=true", "--format", "{{.Name}} {{.StarCount}}", f"{name}/busybox"
    )
    assert only.stdout == "busybox 7\n"
    assert fresh("search", "--limit", "101", f"{name}/busybox").returncode == 1


def test_search_looks_through_the_catalogue_where_there_is_no_search(
    fresh: Run, registry: RegistryServer, image: Published
) -> None:
    done = fresh("search", "--format", "{{.Name}}", f"{registry.name}/team/a", check=True)
    assert f"{registry.name}/team/app" in done.stdout.split()
    assert fresh("search", "--format", "{{.Name}}", f"{registry.name}/no-such-thing").stdout == ""


def test_manifest_inspect_shows_what_the_registry_has(
    fresh: Run, registry: RegistryServer, image: Published, layers: list[bytes]
) -> None:
    name = f"{registry.name}/team/app"
    document = json.loads(fresh("manifest", "inspect", name, check=True).stdout)
    assert [layer["digest"] for layer in document["layers"]] == image.layers
    detail = json.loads(fresh("manifest", "inspect", "-v", f"{name}@{image.digest}", check=True).stdout)
    assert detail["Descriptor"]["digest"] == image.digest
    assert detail["Descriptor"]["platform"] == {"architecture": ARCHITECTURE, "os": "linux"}
    assert json.loads(base64.b64decode(detail["Raw"])) == detail["OCIManifest"] == document
    other = publish(registry.name, "team/app", "other", [random_layer(8, 100)], architecture="s390x")
    publish_index(registry.name, "team/app", "both", [(image, ARCHITECTURE), (other, "s390x")])
    index = json.loads(fresh("manifest", "inspect", f"{name}:both", check=True).stdout)
    assert [one["digest"] for one in index["manifests"]] == [image.digest, other.digest]
    details = json.loads(fresh("manifest", "inspect", "-v", f"{name}:both", check=True).stdout)
    assert [one["Descriptor"]["platform"]["architecture"] for one in details] == [ARCHITECTURE, "s390x"]
    assert fresh("images", "-q").stdout == ""
    missing = fresh("manifest", "inspect", f"{name}:none")
    assert missing.returncode == 1 and "manifest unknown" in missing.stderr


def test_import_fetches_an_address(fresh: Run, pages: Callable[[dict[str, bytes]], str]) -> None:
    name = pages({"/rootfs.tar": images.busybox_layer()})
    done = fresh("import", f"http://{name}/rootfs.tar", "fetched:1", check=True)
    assert done.stdout.startswith("sha256:")
    assert fresh("run", "--rm", "fetched:1", "/bin/echo", "hello").stdout == "hello\n"
    missing = fresh("import", f"http://{name}/none.tar")
    assert missing.returncode == 1 and f"cannot fetch `http://{name}/none.tar`: status 404" in missing.stderr
    nobody = fresh("import", "http://127.0.0.1:1/rootfs.tar")
    assert nobody.returncode == 1 and "connection refused" in nobody.stderr
    assert os.listdir(f"{fresh.root}/tmp") == []  # type: ignore[attr-defined]


def test_a_terminal_shows_lines_that_stay(fresh: Run, registry: RegistryServer, image: Published) -> None:
    program, *first = command()
    env = {**os.environ, "DUCKWEED_ROOT": str(fresh.root), "TERM": "xterm"}  # type: ignore[attr-defined]
    words = [*first, "pull", f"{registry.name}/team/app"]
    child = pexpect.spawn(program, words, env=env, encoding="utf-8", timeout=30, dimensions=(24, 100))
    child.expect(pexpect.EOF)
    shown = child.before or ""
    child.close()
    assert child.exitstatus == 0
    for digest in image.layers:
        assert f"{digest[7:19]}: Pull complete" in shown
    # Painted over in place: the cursor went up again.
    assert "\x1b[4A" in shown
    assert shown.rstrip().endswith(f"{registry.name}/team/app:latest")


def test_ctrl_c_ends_a_pull_at_once_and_leaves_what_came(
    fresh: Run, registry: RegistryServer, image: Published, between: Callable[..., Any]
) -> None:
    import signal

    from registry.between import Trouble
    from registry.server import wait_until

    release = threading.Event()
    slow = image.layers[3]
    watched = between(lambda one: Trouble(hold=(1_000_000, release)) if one.path.endswith(slow) else None)
    env = {**os.environ, "DUCKWEED_ROOT": str(fresh.root)}  # type: ignore[attr-defined]
    root = Path(fresh.root)  # type: ignore[attr-defined]
    words = [*command(), "pull", "-q", f"{watched.name}/team/app"]
    pull = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)

    def has_grown() -> bool:
        parts = [path for path in root.glob(f"partial/{slow[7:]}.*") if not path.is_symlink()]
        return any(path.stat().st_size >= 1_000_000 for path in parts)

    wait_until(has_grown, "the part file does not grow")
    pull.send_signal(signal.SIGINT)
    _, told = pull.communicate(timeout=20)
    release.set()
    assert pull.returncode == 130 and "Traceback" not in told
    assert os.listdir(root / "tmp") == []
    parts = os.listdir(root / "partial")
    assert any(part.startswith(slow[7:]) for part in parts)
    assert not any(part.endswith(".claim") for part in parts)
    watched.decide = lambda _: None
    watched.passed.clear()
    fresh("pull", "-q", f"{watched.name}/team/app", check=True)
    (again,) = [one for one in watched.passed if one.path.endswith(slow)]
    assert again.headers["range"] == "bytes=1000000-"


SMALL = """
set -e
mkdir -p "$STORE"
mount -t tmpfs -o size=60m none "$STORE"
export DUCKWEED_ROOT="$STORE/s" DUCKWEED_PRETEND=no-subid
"$@" & pull=$!
until [ -e "$HELD" ]; do sleep 0.05; done
head -c 60m /dev/zero >"$STORE/ballast" 2>/dev/null || true
touch "$FILLED"
status=0; wait $pull || status=$?
echo "first $status"
echo "left $(ls "$STORE/s/tmp" "$STORE/s/partial" | grep -c -v -e : -e '^$' || true)"
rm "$STORE/ballast"
"$@"
"""


def test_a_disk_that_fills_up_is_one_line_and_the_next_try_succeeds(
    between: Callable[..., Any], image: Published, tmp_path: Path
) -> None:
    from registry.between import Trouble
    from registry.server import wait_until

    held, filled, release = tmp_path / "held", tmp_path / "filled", threading.Event()

    def decide(passed: Any) -> Trouble | None:
        if not passed.path.endswith(image.layers[2]) or release.is_set():
            return None
        held.touch()
        wait_until(filled.exists, "the disk does not fill up")
        release.set()
        return None

    watched = between(decide)
    env = {**os.environ, "STORE": str(tmp_path / "small"), "HELD": str(held), "FILLED": str(filled)}
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL, "sh", *command()]
    done = subprocess.run(
        [*words, "pull", "-q", f"{watched.name}/team/app"], env=env, capture_output=True, text=True
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no tmpfs of one's own can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["first 1", "left 0", f"{watched.name}/team/app:latest"]
    told = done.stderr.strip().splitlines()
    # Filled before the room was looked at, or after.
    assert told[0].startswith("duckweed: ")
    assert "no room for the image" in told[0] or "no space left on device (ENOSPC)" in told[0]
    assert len(told) == 1 or (len(told) == 2 and told[1].startswith("hint: "))
