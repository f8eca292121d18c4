"""The tree that a load makes is the one that umoci makes of the same image: paths, types, modes, owners, times, link
counts, xattrs and contents, for a real Debian and for members that writers of layers rarely agree on.

Owners are compared as both keep them: ours in the layer's index, umoci's in the xattr of rootlesscontainers.org.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

import images
from conftest import Run, runner

ROOTLESS = "user.rootlesscontainers"

needs_umoci = pytest.mark.skipif(not shutil.which("umoci"), reason="umoci is not installed (Debian: umoci)")
Facts = dict[bytes, dict[str, object]]


def facts_of(path: bytes, meta: os.stat_result) -> dict[str, object]:
    """What one file is; of a directory no link count (it depends on the file system)."""
    kind = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
    found: dict[str, object] = {
        "type": kind.get(stat.S_IFMT(meta.st_mode), "other"),
        "mode": stat.S_IMODE(meta.st_mode),
        "mtime": meta.st_mtime_ns,
        "uid": 0,
        "gid": 0,
        "xattrs": {},
    }
    if found["type"] == "symlink":
        found["target"] = os.readlink(path)
    if found["type"] != "dir":
        found["links"] = meta.st_nlink
    if found["type"] == "file":
        found["size"] = meta.st_size
        with open(path, "rb") as file:
            found["content"] = hashlib.sha256(file.read()).hexdigest()
    if found["type"] in ("file", "dir"):
        found["xattrs"] = {
            name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")
        }
    return found


def walk(top: bytes) -> dict[bytes, os.stat_result]:
    """Every path below `top`, itself as `.`."""
    found = {b".": os.lstat(top)}
    for directory, names, files in os.walk(top):
        for name in names + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, top)] = os.lstat(path)
    return found


def umoci_tree(rootfs: Path) -> Facts:
    """The tree that umoci unpacked; uid and gid are fields 1 and 2 of a protobuf."""
    tree = {}
    top = os.fsencode(rootfs)
    for path, meta in walk(top).items():
        facts = facts_of(os.path.join(top, path), meta)
        xattrs = facts["xattrs"]
        assert isinstance(xattrs, dict)
        owner = io.BytesIO(xattrs.pop(ROOTLESS, b""))
        while key := owner.read(1):
            value, shift = 0, 0
            while True:
                byte = owner.read(1)[0]
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            # All ones is "not changed": root's.
            facts["uid" if key[0] >> 3 == 1 else "gid"] = 0 if value == 2**32 - 1 else value
        tree[path] = facts
    return tree


def apply_index(tree: Facts, layer: Path) -> None:
    """What the layer's files on disk cannot say."""
    for name, record in json.loads((layer / "index.json").read_text())["entries"].items():
        path = unquote_to_bytes(name)
        if record.get("type") == "whiteout":
            continue
        facts = tree[path]
        facts.update(uid=record.get("uid", 0), gid=record.get("gid", 0))
        if record.get("type") in ("char", "block"):
            facts["type"] = record["type"]
        xattrs = facts["xattrs"]
        assert isinstance(xattrs, dict)
        for xattr, value in record.get("xattrs", {}).items():
            xattrs[unquote_to_bytes(xattr).decode()] = base64.b64decode(value)


def our_tree(root: Path, image: str, run: Run) -> Facts:
    """The merged view of an image's layers, bottom first, as overlayfs would show it; but a link count here is of the
    names that are left, where overlayfs still counts those that a higher layer hides.
    """
    inodes: dict[bytes, tuple[str, int]] = {}
    record = json.loads(next((root / "images").glob(f"*{image}*.json")).read_text())
    tree: Facts = {}
    for chain_id in record["chain"]:
        layer = root / "layers" / f"{chain_id[7:]}.single"
        top = os.fsencode(layer / "fs")
        here: Facts = {}
        for path, meta in walk(top).items():
            prefix = path + b"/"
            if stat.S_ISCHR(meta.st_mode) and meta.st_rdev == 0:
                tree = {
                    old: facts for old, facts in tree.items() if old != path and not old.startswith(prefix)
                }
                continue
            facts = facts_of(os.path.join(top, path), meta)
            xattrs = facts["xattrs"]
            assert isinstance(xattrs, dict)
            is_opaque = xattrs.pop("user.overlay.opaque", None) == b"y"
            was = tree.get(path, {}).get("type")
            if is_opaque or was == "dir" and facts["type"] != "dir":
                tree = {old: facts for old, facts in tree.items() if not old.startswith(prefix)}
            here[path] = facts
            inodes[path] = (chain_id, meta.st_ino)
        apply_index(here, layer)
        tree.update(here)
    names = Counter(inodes[path] for path in tree)
    for path, facts in tree.items():
        if "links" in facts:
            facts["links"] = names[inodes[path]]
    return tree


def differences(ours: Facts, theirs: Facts, timeless: bytes) -> list[str]:
    """One line for each fact that is not the same, but for what umoci cannot keep.

    Directories below `timeless` are in no layer, so their times are those of the extraction; and umoci leaves the
    root with the time of its own last change there.
    """
    lines = [f"{path!r}: only ours" for path in ours.keys() - theirs.keys()]
    lines += [f"{path!r}: only theirs" for path in theirs.keys() - ours.keys()]
    for path in sorted(ours.keys() & theirs.keys()):
        left, right = dict(ours[path]), dict(theirs[path])
        if left["type"] in ("char", "block"):
            # Neither can make one; both leave an empty file.
            assert right["type"] == "file" and right["size"] == 0
            left["type"] = "file"
        if left["type"] == "dir" and (path == b"." or path.split(b"/")[0] == timeless):
            del left["mtime"], right["mtime"]
        if left["type"] in ("symlink", "fifo"):
            # No xattr can be on them, so umoci has lost the owner.
            for name in ("uid", "gid"):
                del left[name], right[name]
        xattrs = left["xattrs"]
        assert isinstance(xattrs, dict)
        left["xattrs"] = {name: value for name, value in xattrs.items() if name.startswith("user.")}
        lines += [
            f"{path!r}: {name} {left.get(name)!r}, umoci {right.get(name)!r}"
            for name in sorted(left.keys() | right.keys())
            if left.get(name) != right.get(name)
        ]
    return lines


def odd_layers() -> list[bytes]:
    """Members on which writers and readers disagree, in two layers."""
    member = images.member
    lower = [
        (member(".", tarfile.DIRTYPE, mode=0o755, mtime=1_600_000_000), b""),
        (member("d", tarfile.DIRTYPE, mode=0o1777, uid=7, gid=8), b""),
        (member("d/early", uid=1000, gid=1000), b"before its directory is described again"),
        (member("d", tarfile.DIRTYPE, mode=0o2750, uid=9, gid=10), b""),
        (member("d/setuid", mode=0o4755), b"x"),
        (member("d/closed", mode=0o400), b"read only"),
        (member("d/time", mtime=1_234_567_890.123456), b""),
        (member("d/past", mtime=-3.5), b""),
        (member("long/" * 60 + "name"), b"deep"),
        (member("n" * 255), b"long"),
        (member("ünïcode", tarfile.DIRTYPE), b""),
        (member("ünïcode/é"), b"utf-8"),
        (member('tab\tnew\nline\\"quote'), b"odd"),
        (member("linked"), b"one inode"),
        (member("d/link", tarfile.LNKTYPE, linkname="linked"), b""),
        (member("third", tarfile.LNKTYPE, linkname="./d/link"), b""),
        (member("absolute", tarfile.SYMTYPE, linkname="/etc/passwd", uid=5), b""),
        (member("out", tarfile.SYMTYPE, linkname="../../../../etc"), b""),
        (member("to-d", tarfile.SYMTYPE, linkname="d"), b""),
        (member("to-d/through"), b"through a link"),
        (member("twice"), b"first"),
        (member("twice", mode=0o600), b"second wins"),
        (member("pipe", tarfile.FIFOTYPE, mode=0o620), b""),
        (member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666), b""),
        (member("marked", pax_headers={"SCHILY.xattr.user.note": "a note"}), b"x"),
        (member("big-owner", uid=3_000_000, gid=2_500_000), b""),
        (member("empty-dir", tarfile.DIRTYPE, mode=0o700), b""),
        (member("gone", tarfile.DIRTYPE), b""),
        (member("gone/file"), b""),
        (member("kept", tarfile.DIRTYPE, mode=0o755), b""),
        (member("kept/old"), b""),
        (member("was-dir", tarfile.DIRTYPE), b""),
        (member("was-dir/file"), b""),
        (member("was-file"), b""),
        (member("shared"), b"in the lower layer"),
    ]
    upper = [
        (member(".wh.gone"), b""),
        (member("kept", tarfile.DIRTYPE, mode=0o711), b""),
        (member("kept/.wh..wh..opq"), b""),
        (member("kept/new"), b"new"),
        (member("was-dir"), b"a file now"),
        (member("was-file", tarfile.DIRTYPE), b""),
        (member("was-file/inside"), b""),
        (member("also-shared", tarfile.LNKTYPE, linkname="shared"), b""),
        (member("d", tarfile.DIRTYPE, mode=0o755), b""),
        (member("d/setuid", mode=0o644, uid=33), b"another"),
    ]
    return [images.layer(lower), images.layer(upper)]


def compare(tmp_path: Path, layout: str, tag: str, archive: str) -> list[str]:
    bundle = tmp_path / "bundle"
    command = ["umoci", "unpack", "--rootless", "--image", f"{layout}:{tag}", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "store"
    run = runner(root, {"DUCKWEED_PRETEND": "no-subid"})
    run("load", "-i", archive, check=True, timeout=300)
    found = differences(our_tree(root, tag, run), umoci_tree(bundle / "rootfs"), b"long")
    print(*found, sep="\n")
    return found


@needs_umoci
def test_odd_members_become_the_tree_that_umoci_makes(tmp_path: Path) -> None:
    archive = images.oci_archive(tmp_path / "odd.tar", "odd", odd_layers())
    layout = tmp_path / "layout"
    with tarfile.open(archive) as tar:
        tar.extractall(layout)
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "odd"
    (layout / "index.json").write_text(json.dumps(index))
    assert compare(tmp_path, str(layout), "odd", str(archive)) == []


@needs_umoci
@pytest.mark.timeout(600)
@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed (Debian: skopeo)")
def test_debian_becomes_the_tree_that_umoci_makes(tmp_path: Path) -> None:
    archive = images.debian_archive()
    layout = tmp_path / "layout"
    policy = ["--insecure-policy", "--tmpdir", str(tmp_path)]
    subprocess.run(
        ["skopeo", *policy, "copy", "-q", f"docker-archive:{archive}", f"oci:{layout}:debian-python"],
        check=True,
        capture_output=True,
    )
    assert compare(tmp_path, str(layout), "debian-python", str(archive)) == []
