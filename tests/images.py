"""Images for the tests, made without a registry and without root.

`busybox` is the machine's static busybox with its links; `debian-python` is a
real Debian of several layers, with whiteouts and an opaque directory in the last.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

EPOCH = 1_700_000_000
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def member(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    """A tar member with fixed owner and time."""
    info = tarfile.TarInfo(name)
    info.type, info.mtime = kind, EPOCH
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def layer(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """One layer tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, body in entries:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def docker_archive(
    path: Path, tags: list[str], layers: list[bytes], config: dict[str, object] | None = None
) -> Path:
    """What `docker save` wrote before version 25: manifest.json, a config, layer.tar files."""
    image = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {"Env": [PATH], "Cmd": ["/bin/sh"], **(config or {})},
        "rootfs": {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in layers],
        },
        "history": [
            {"created": "2023-11-14T22:13:20Z", "created_by": f"layer {n}"} for n in range(len(layers))
        ],
    }
    text = json.dumps(image).encode()
    name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": tags, "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]
    with tarfile.open(path, "w") as tar:
        for inner, body in [(name, text), ("manifest.json", json.dumps(manifest).encode())]:
            info = member(inner)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
        for n, body in enumerate(layers):
            info = member(f"{n}/layer.tar")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def static_busybox() -> str:
    """The path of a statically linked busybox."""
    for path in (os.environ.get("DUCKWEED_TEST_BUSYBOX"), shutil.which("busybox"), "/bin/busybox"):
        if path and os.path.exists(path):
            with open(path, "rb") as file:
                if b"ld-linux" not in file.read(4096):
                    return path
    pytest.skip("no static busybox on this machine (Debian: busybox-static)")
    raise AssertionError


def busybox_layer() -> bytes:
    """A root file system of one program and its links."""
    path = static_busybox()
    applets = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
    directories = [
        "bin",
        "etc",
        "home",
        "proc",
        "dev",
        "sys",
        "root",
        "usr",
        "usr/bin",
        "usr/sbin",
        "var",
        "mnt",
        "run",
    ]
    entries = [(member(name, tarfile.DIRTYPE), b"") for name in directories]
    entries.append((member("tmp", tarfile.DIRTYPE, mode=0o1777), b""))
    with open(path, "rb") as file:
        entries.append((member("bin/busybox", mode=0o755), file.read()))
    links = sorted(set(applets) - {"busybox"})
    entries += [(member(f"bin/{name}", tarfile.SYMTYPE, linkname="busybox"), b"") for name in links]
    passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
    entries.append((member("etc/passwd"), passwd))
    entries.append((member("etc/group"), b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\nnogroup:x:65534:\n"))
    entries.append((member("home/owned", uid=1000, gid=1000), b"mine\n"))
    return layer(entries)


def make_archives(directory: Path) -> Path:
    """Writes busybox.tar and busybox.oci.tar into `directory`."""
    docker_archive(directory / "busybox.tar", ["busybox:latest"], [busybox_layer()])
    oci_archive(directory / "busybox.oci.tar", "example/busybox:oci", [busybox_layer()])
    return directory


def oci_archive(
    path: Path, reference: str, layers: list[bytes], config: dict[str, object] | None = None
) -> Path:
    """An OCI image layout in a tar, layers gzipped."""
    import gzip

    blobs: dict[str, bytes] = {}

    def put(body: bytes) -> dict[str, object]:
        digest = hashlib.sha256(body).hexdigest()
        blobs[digest] = body
        return {"digest": f"sha256:{digest}", "size": len(body)}

    image = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Env": [PATH], "Cmd": ["/bin/sh"], **(config or {})},
        "rootfs": {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in layers],
        },
    }
    media = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": media + "manifest.v1+json",
        "config": {"mediaType": media + "config.v1+json", **put(json.dumps(image).encode())},
        "layers": [
            {"mediaType": media + "layer.v1.tar+gzip", **put(gzip.compress(tar, mtime=0))} for tar in layers
        ],
    }
    entry = {"mediaType": media + "manifest.v1+json", **put(json.dumps(manifest).encode())}
    entry["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference,
    }
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files.update({f"blobs/sha256/{digest}": body for digest, body in blobs.items()})
    with tarfile.open(path, "w") as tar:
        for name, body in files.items():
            info = member(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def debian_archive() -> Path:
    """A docker-archive of Debian with Python in layers; made once per account and kept."""
    given = os.environ.get("DUCKWEED_TEST_IMAGES")
    if given and os.path.exists(os.path.join(given, "debian-python.tar")):
        return Path(given) / "debian-python.tar"
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed, so no Debian image can be made")
    cache = Path(f"/var/tmp/duckweed-test-images-{os.getuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    archive = cache / "debian-python.tar"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _make_debian(cache, archive)
    return archive


def _make_debian(cache: Path, archive: Path) -> None:
    tree = cache / "base.tar"
    named = [
        line.split("=")[1].strip()
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    ]
    release = named[0] if named else "stable"
    command = ["mmdebstrap", "--quiet", "--mode=unshare", "--variant=minbase", "--include=python3-minimal"]
    command += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--format=tar", release, str(tree)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    )
    if done.returncode != 0:
        pytest.skip(f"mmdebstrap cannot make a Debian tree here: {done.stderr.strip().splitlines()[-1:]}")
    app = [(member("app", tarfile.DIRTYPE), b""), (member("app/old", tarfile.DIRTYPE), b"")]
    app += [(member(f"app/old/{n:03}"), b"%d\n" % n) for n in range(100)]
    app.append((member("app/link", tarfile.LNKTYPE, linkname="app/old/000"), b""))
    edits = [(member("app/old", tarfile.DIRTYPE), b""), (member("app/old/.wh..wh..opq"), b"")]
    edits += [(member("app/old/new"), b"new\n"), (member("etc/.wh.motd"), b"")]
    part = archive.with_suffix(".part")
    docker_archive(part, ["debian-python:latest"], [tree.read_bytes(), layer(app), layer(edits)])
    tree.unlink()
    os.replace(part, archive)
