"""Dockerfiles as people write them, on a real Debian: a build in several stages of which only the result is
shipped, and a small web service that answers over its published port.

The compiler and pip are installed by apt in a build, with the machine's own configuration of apt mounted for
that step, unless the image has them; Python's packages come from the context.
"""

from __future__ import annotations

import io
import os
import socket
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from build.conftest import Build
from conftest import Run

STAGES = """\
# syntax=docker/dockerfile:1
ARG BASE=debian-python
FROM $BASE AS tools
RUN --mount=type=cache,target=/var/cache/made,sharing=locked set -e; useradd -r app; \\
    mkdir -p /opt/app; chown app:app /opt/app; echo 1 >> /var/cache/made/runs

FROM tools AS native
WORKDIR /src
COPY src/ .
ARG GREETING=world
RUN --mount=type=secret,id=token,required <<EOS
set -eu
test "$(cat /run/secrets/token)" = t0k3n
gcc -O2 -DGREETING="\\"$GREETING\\"" -o /hello hello.c
strip /hello
EOS

FROM tools AS script
USER app
COPY --chown=app <<-"EOS" /opt/app/app.py
	import subprocess
	print("python says", subprocess.check_output(["hello"], text=True).strip())
EOS
RUN python3 -m py_compile /opt/app/app.py && rm -r /opt/app/__pycache__

FROM $BASE
COPY --from=tools /etc/passwd /etc/group /etc/
COPY --from=native --chmod=755 /hello /usr/local/bin/
COPY --from=script /opt/app /opt/app
USER app
CMD ["python3", "/opt/app/app.py"]
"""
TOOLS = """\
FROM {0}
RUN --mount=from=apt,target=/etc/apt --mount=type=cache,target=/var/cache/apt,sharing=locked \\
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \\
    apt-get -q update && \\
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends gcc libc6-dev python3-pip
"""
SERVICE = """\
FROM python:local
WORKDIR /app
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY . .
EXPOSE 8000
CMD ["python3", "main.py"]
"""
MAIN = """\
import http.server
import greeting

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(greeting.WORDS)

http.server.HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def wheel() -> bytes:
    """A package of one module."""
    out = io.BytesIO()
    lead = "greeting-1.0.dist-info/"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("greeting.py", "WORDS = b'hello from a package\\n'\n")
        archive.writestr(lead + "METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(lead + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(lead + "RECORD", "")
    return out.getvalue()


@pytest.fixture(scope="module")
def tools(debian: str, duckweed: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Debian with a compiler and pip."""
    have = "command -v gcc && command -v pip && command -v useradd"
    if duckweed("run", "--rm", debian, "sh", "-c", have).returncode == 0:
        return debian
    if not os.path.isdir("/etc/apt"):
        pytest.skip("the Debian image has no compiler, and this machine has no apt to ask for one")
    place = tmp_path_factory.mktemp("tools")
    (place / "Dockerfile").write_text(TOOLS.format(debian))
    flags = ["--network=host", "--build-context=apt=/etc/apt", "-t", "with-tools:1"]
    done = duckweed("build", "--progress=plain", *flags, str(place), timeout=300)
    if done.returncode and ("Could not resolve" in done.stderr or "Unable to fetch" in done.stderr):
        pytest.skip("no packages can be had here")
    assert done.returncode == 0, done.stderr[-3000:]
    return "with-tools:1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_several_stages_of_which_the_result_is_shipped(
    build: Build, context: Path, tools: str, duckweed: Run, tmp_path: Path
) -> None:
    (context / "src").mkdir()
    (context / "src" / "hello.c").write_text(
        '#include <stdio.h>\nint main(void) { puts("hello " GREETING); return 0; }\n'
    )
    (tmp_path / "token").write_text("t0k3n")
    flags = [f"--secret=id=token,src={tmp_path}/token", "--build-arg=GREETING=you"]
    flags += ["--build-arg=SOURCE_DATE_EPOCH=1700000000", f"--build-arg=BASE={tools}"]
    first = build(STAGES, "-t", "shipped:1", *flags)
    done = duckweed("run", "--rm", "shipped:1", check=True)
    assert done.stdout == "python says hello you\n"
    assert duckweed("run", "--rm", "shipped:1", "test", "-e", "/src/hello.c").returncode == 1
    owner = duckweed("run", "--rm", "shipped:1", "stat", "-c", "%U", "/opt/app/app.py", check=True).stdout
    assert owner == "app\n"
    assert build(STAGES, *flags, "--no-cache").image == first.image


def test_a_service_answers_over_its_published_port(
    build: Build, context: Path, tools: str, duckweed: Run
) -> None:
    # Docker's python image lets pip install where Debian's asks for an environment.
    base = f"FROM {tools}\nENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore\n"
    build(base + "RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n", "-t", "python:local")
    (context / "greeting-1.0-py3-none-any.whl").write_bytes(wheel())
    (context / "requirements.txt").write_text("/app/greeting-1.0-py3-none-any.whl\n")
    (context / "main.py").write_text(MAIN)
    service = SERVICE.replace("requirements.txt .", "requirements.txt *.whl ./")
    build(service, "-t", "service:1", "--network=none")
    port = free_port()
    name = f"service-{os.getpid()}"
    started = duckweed("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:8000", "service:1")
    assert started.returncode == 0, started.stderr
    try:
        assert fetched(f"http://127.0.0.1:{port}/") == b"hello from a package\n"
    finally:
        duckweed("rm", "-f", name, check=True)


def fetched(url: str) -> bytes:
    end = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.1)
