"""What a build must not leave behind: of a cancelled one anything, and of secrets and agents a single byte."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from build.conftest import Build
from conftest import command

DEADLINE_S = 30
STEPS = """\
FROM busybox AS one
ARG U={0}
RUN --mount=type=cache,id={0},target=/c --mount=type=secret,id=s {1} echo begun && sleep 60
FROM busybox AS two
ARG U={0}
RUN echo begun && (sleep 60 & sleep 60)
FROM scratch
COPY --from=one /etc/passwd /1
COPY --from=two /etc/passwd /2
"""


@pytest.fixture
def own() -> Iterator[Path]:
    """A TMPDIR of the build's own, short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="dw", dir="/tmp") as name:
        yield Path(name)


def files_with(word: str, *places: Path) -> list[str]:
    """The files beneath these places that hold the word, packed ones as they are."""
    done = subprocess.run(
        ["grep", "-rl", word, *map(str, places)], capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


def key(directory: Path) -> Path:
    """A new ssh key."""
    if not shutil.which("ssh-keygen") or not shutil.which("ssh-agent"):
        pytest.skip("ssh-keygen and ssh-agent are not installed")
    path = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


def is_running(pattern: str) -> bool:
    return (
        subprocess.run(
            ["pgrep", "-u", str(os.getuid()), "-f", pattern], capture_output=True, check=False
        ).returncode
        == 0
    )


def wait_for_none(pattern: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while is_running(pattern):
        assert time.monotonic() < end, f"still running: {pattern}"
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_cancelled_build_leaves_nothing(
    name: str, build: Build, context: Path, root: Path, tmp_path: Path, own: Path
) -> None:
    word = "s3cr3t" + os.urandom(16).hex()
    secret = tmp_path / "secret"
    secret.write_text(word)
    path = key(tmp_path)
    (context / "Dockerfile").write_text(STEPS.format(os.urandom(8).hex(), "--mount=type=ssh,required"))
    flags = [f"--secret=id=s,src={secret}", f"--ssh=default={path}", f"--output={tmp_path}/out"]
    child = subprocess.Popen(
        [*command(), "build", "--progress=plain", *flags, str(context)],
        env={**os.environ, "DUCKWEED_ROOT": str(root), "TMPDIR": str(own)},
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    begun = 0
    for line in child.stderr:
        begun += line.rstrip().endswith(b" begun")
        if begun == 2:
            break
    assert os.listdir(own), "an agent of our own holds the key"
    child.send_signal(getattr(signal, name))
    rest = child.stderr.read().decode()
    child.stderr.close()
    code = child.wait(DEADLINE_S)
    assert code == (-signal.SIGKILL if name == "SIGKILL" else 128 + getattr(signal, name)), rest
    assert "Traceback" not in rest
    # The agent and its socket go even when nobody could put them away.
    wait_for_none(str(own))
    assert os.listdir(own) == []
    assert files_with(word, root) == []
    if name == "SIGKILL":
        wait_for_none(f"{root}/tmp/.*[.]{child.pid}[.]")
        build("FROM busybox\nRUN --mount=type=cache,id=after,target=/c true\n")
    mine = re.compile(rf"[.]{child.pid}[.]")
    for place in ("tmp", "build/leases"):
        assert [entry for entry in os.listdir(root / place) if mine.search(entry)] == []
    assert not (tmp_path / "out").exists()
    if name != "SIGKILL":
        claims = [path.name for path in (root / "build" / "mounts").glob("*/claim.*")]
        assert [entry for entry in claims if mine.search(entry)] == []


def test_secrets_are_nowhere_afterwards(build: Build, root: Path, tmp_path: Path) -> None:
    word = "s3cr3t" + os.urandom(16).hex()
    (tmp_path / "file").write_text(word)
    text = (
        "FROM busybox\n"
        "RUN --mount=type=secret,id=f,target=/deep/er/f --mount=type=secret,id=e,env=E,required"
        ' test "$(cat /deep/er/f)" = "$E" && test "$(stat -c %a%u /deep/er/f)" = 4000\n'
        "RUN test ! -e /deep\n"
    )
    flags = [f"--secret=id=f,src={tmp_path}/file", "--secret=id=e,env=MY_SECRET", "--cache-to=type=inline"]
    (tmp_path / "file").rename(tmp_path / "hidden")
    flags[0] = f"--secret=id=f,src={tmp_path}/hidden"
    places = [tmp_path / "cache", tmp_path / "o.tar", tmp_path / "meta"]
    flags += [f"--cache-to=type=local,dest={places[0]},mode=max", f"--metadata-file={places[2]}"]
    flags += [f"--output=type=oci,dest={places[1]},compression=uncompressed"]
    built = build(text, *flags, env={"MY_SECRET": word})
    assert word not in built.stderr
    assert files_with(word, root, *places) == []
    failing = build(
        text + "RUN --mount=type=secret,id=f false\n", *flags, env={"MY_SECRET": word}, check=False
    )
    assert failing.returncode == 1
    assert word not in failing.stderr
    assert files_with(word, root, *places) == []


def test_agents_are_nowhere_afterwards(build: Build, root: Path, tmp_path: Path, own: Path) -> None:
    path = key(tmp_path)
    text = (
        f"FROM busybox\nARG U={os.urandom(8).hex()}\n"
        'RUN --mount=type=ssh,required test -S "$SSH_AUTH_SOCK" && env > /env\n'
        'RUN test -z "$SSH_AUTH_SOCK" && ! test -e /run/buildkit && cat /env > /kept\n'
    )
    built = build(text, f"--ssh=default={path}", env={"TMPDIR": str(own)})
    assert os.listdir(own) == []
    secret = path.read_text().splitlines()[2]
    assert files_with(secret, root) == []
    assert secret not in built.stderr
    assert files_with("duckweed-agent-", root) == []
