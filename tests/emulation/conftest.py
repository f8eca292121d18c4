"""A container with one uid and emulated users, in an image with users and files of theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import images
from conftest import Run, runner

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n"
)
GROUP = b"root:x:0:\nshadow:x:42:\nann:x:1000:\nbob:x:1001:\nstaff:x:50:ann\n"


def _image(path: Path) -> Path:
    directory = {"kind": b"5"}
    entries = [
        (images.member("etc", **directory, mode=0o755), b""),
        (images.member("etc/passwd"), PASSWD),
        (images.member("etc/group"), GROUP),
        (images.member("etc/shadow", gid=42, mode=0o640), b"root:*:1::::::\n"),
        (images.member("etc/twice", uid=7, gid=8), b"two names\n"),
        (images.member("etc/twice.link", b"1", linkname="etc/twice"), b""),
        (images.member("var", **directory), b""),
        (images.member("var/mail", **directory, gid=50, mode=0o2775), b""),
        (images.member("home", **directory), b""),
        (images.member("home/ann", **directory, uid=1000, gid=1000, mode=0o700), b""),
        (images.member("home/ann/notes", uid=1000, gid=1000, mode=0o600), b"hers\n"),
        (images.member("root", **directory, mode=0o700), b""),
        (images.member("tmp", **directory, mode=0o1777), b""),
        (images.member("data", b"3", devmajor=1, devminor=5, mode=0o660, gid=6), b""),
    ]
    return images.docker_archive(
        path / "users.tar", ["users:latest"], [images.busybox_layer(), images.layer(entries)]
    )


@pytest.fixture(scope="session")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A runner that has one uid, with the image `users` loaded."""
    run = runner(root, {"DUCKWEED_PRETEND": "no-subid"})
    if run("info", "--format", "{{.RootEmulation}}").stdout.strip() != "full":
        pytest.skip("seccomp notification is refused here")
    run("load", "-i", str(_image(tmp_path_factory.mktemp("users"))), check=True)
    return run


Shell = Callable[..., str]


def shell_of(duckweed: Run) -> Shell:
    """`shell(script, *flags)` runs a script as root of a new container; the answer is stdout and stderr."""

    def run(script: str, *flags: str) -> str:
        done = duckweed("run", "--rm", *flags, "users", "sh", "-c", f"exec 2>&1\n{script}")
        return done.stdout + done.stderr

    return run


@pytest.fixture
def shell(alone: Run) -> Shell:
    """`shell_of` a runner that has one uid."""
    return shell_of(alone)
