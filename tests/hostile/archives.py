"""A hundred archives that attack, lie or are broken; every one must be refused.

Each entry is a title and a function that writes the archive. Layer attacks sit
in an otherwise honest docker-archive whose diff id is right, so that it is the
layer reader that must object; the others break the archive around it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import images

Builder = Callable[[Path], object]
GOOD = images.layer([(images.member("etc", tarfile.DIRTYPE), b""), (images.member("etc/motd"), b"hello\n")])


def raw_header(
    name: bytes,
    *,
    size: bytes = b"00000000000\0",
    kind: bytes = b"0",
    link: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One ustar header of exactly these bytes."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124 : 124 + len(size)] = size
    block[136:148] = b"14524770400\0"
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % sum(block)
    return bytes(block)


def padded(body: bytes) -> bytes:
    return body + b"\0" * (-len(body) % 512)


END = b"\0" * 1024


def pax(records: bytes, then: bytes) -> bytes:
    """A PAX extended header before the entry `then`."""
    return raw_header(b"pax", size=b"%011o\0" % len(records), kind=b"x") + padded(records) + then + END


def one(tar: bytes) -> Builder:
    """An archive whose only layer is `tar`, with its true diff id."""
    return lambda path: images.docker_archive(path, ["bad:latest"], [tar])


def entries(*facts: tuple[str, bytes, dict[str, object]]) -> bytes:
    return images.layer(
        [
            (images.member(name, kind, **more), b"x" if kind == tarfile.REGTYPE else b"")
            for name, kind, more in facts
        ]
    )


def layer_attacks() -> Iterator[tuple[str, Builder]]:
    file, hard, symbolic, directory = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE
    for name in [
        "..",
        "../x",
        "../../x",
        "a/../../x",
        "./../x",
        "a/b/../../../x",
        "/../x",
        "//../../x",
        "a/..",
        "../../../../../../etc/x",
    ]:
        yield f"file named {name}", one(entries((name, file, {})))
    for name in ["../d", "a/../../d", "..", "/../../d"]:
        yield f"directory named {name}", one(entries((name, directory, {})))
    for target in [
        "../x",
        "../../etc/passwd",
        "a/../../etc/passwd",
        "missing",
        "/etc/shadow-not-here",
        "..",
        "./..",
        "",
    ]:
        yield f"hard link to {target or 'nothing'}", one(entries(("link", hard, {"linkname": target})))
    yield "hard link named ..", one(entries(("ok", file, {}), ("../link", hard, {"linkname": "ok"})))
    yield "symlink named ../s", one(entries(("../s", symbolic, {"linkname": "x"})))
    yield "fifo named ../f", one(entries(("../f", tarfile.FIFOTYPE, {})))
    yield "device named ../d", one(entries(("../d", tarfile.CHRTYPE, {})))
    yield "file below a file", one(entries(("a", file, {}), ("a/b", file, {})))
    for name in [
        ".wh...",
        ".wh..",
        ".wh.",
        "a/.wh...",
        "a/.wh..",
        "a/.wh.",
        "../.wh.x",
        "a/../../.wh.x",
        "../.wh..wh..opq",
    ]:
        yield f"whiteout {name}", one(entries(("a", directory, {}), (name, file, {})))
    yield "a component of 256 bytes", one(entries(("n" * 256, file, {})))
    yield "a path over PATH_MAX", one(entries(("d/" * 3000 + "f", file, {})))
    for size in [b"-0000000001\0", b"zzzzzzzzzzz\0", b"99999999999\0", b"\xff" * 12, b"\x80" + b"\xff" * 11]:
        yield f"size field {size!r}", one(raw_header(b"f", size=size) + END)
    yield "size beyond the end", one(raw_header(b"f", size=b"00000007777\0") + padded(b"short"))
    yield "huge size beyond the end", one(raw_header(b"f", size=b"77777777777\0") + padded(b"short"))
    for sum_field in [b"000000\0 ", b"777777\0 ", b"garbage!", b"\xff" * 8]:
        yield f"checksum {sum_field!r}", one(raw_header(b"f", checksum=sum_field) + END)
    plain = raw_header(b"f")
    for record in [
        b"4 a=\n",
        b"0 a=b\n",
        b"999999 path=x\n",
        b"xx path=x\n",
        b"-7 path=x\n",
        b"10 path=ab",
        b"9 pathxx\n",
        b"12 size=-1\n\n",
        b"14 size=99zz9\n",
        b"99999999999999999999 path=x\n",
    ]:
        yield f"PAX record {record!r}", one(pax(record, plain))
    for path in [b"../x", b"a/../../x", b".."]:
        record = b"path=" + path + b"\n"
        yield (
            f"PAX path {path.decode()}",
            one(pax(b"%d %s" % (len(record) + 3, record) if len(record) + 3 < 100 else record, plain)),
        )
    yield "PAX header of 1 GiB", one(raw_header(b"pax", size=b"%011o\0" % (1 << 30), kind=b"x"))
    yield "GNU long name of 1 GiB", one(raw_header(b"././@LongLink", size=b"%011o\0" % (1 << 30), kind=b"L"))
    yield (
        "GNU long name climbs out",
        one(raw_header(b"././@LongLink", size=b"%011o\0" % 5, kind=b"L") + padded(b"../x\0") + plain + END),
    )
    yield (
        "GNU long link climbs out",
        one(
            raw_header(b"././@LongLink", size=b"%011o\0" % 5, kind=b"K")
            + padded(b"../x\0")
            + raw_header(b"f", kind=b"1")
            + END
        ),
    )
    yield (
        "PAX header and then nothing",
        one(raw_header(b"pax", size=b"%011o\0" % 9, kind=b"x") + padded(b"9 path=x\n")),
    )
    for length in [1, 100, 511, 513, 700, 1023]:
        yield f"layer cut after {length} bytes", one(GOOD[:length])
    noise = random.Random(5)
    for n in range(4):
        yield f"layer of noise {n}", one(noise.randbytes(2048))
    packed = gzip.compress(GOOD, mtime=0)
    yield "gzip layer cut short", one_packed(packed[:-20])
    yield "gzip layer with a wrong CRC", one_packed(packed[:-8] + b"\0\0\0\0" + packed[-4:])
    yield "gzip layer with a broken body", one_packed(packed[:30] + b"\xff" * 20 + packed[50:])
    yield "zstd layer of noise", one_packed(b"\x28\xb5\x2f\xfd" + noise.randbytes(100))
    yield "xz layer", one_packed(b"\xfd7zXZ\0" + noise.randbytes(100))


def one_packed(blob: bytes) -> Builder:
    """An archive whose layer member is `blob` and whose diff id is the good layer's."""

    def build(path: Path) -> None:
        members(path, honest({"l.tar": blob}))

    return build


def honest(replaced: dict[str, bytes] | None = None, **config_changes: object) -> dict[str, bytes]:
    """The members of an archive that would load; `replaced` overrides some."""
    config: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(GOOD).hexdigest()]},
    }
    config.update(config_changes)
    text = json.dumps(config).encode()
    files = {
        "c.json": text,
        "manifest.json": json.dumps(
            [{"Config": "c.json", "RepoTags": ["bad:latest"], "Layers": ["l.tar"]}]
        ).encode(),
        "l.tar": GOOD,
    }
    files.update(replaced or {})
    return files


def members(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    with tarfile.open(path, "w") as tar:
        for name, body in files.items():
            info = images.member(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
        for name, target in (links or {}).items():
            tar.addfile(images.member(name, tarfile.SYMTYPE, linkname=target))


def archive_attacks() -> Iterator[tuple[str, Builder]]:
    def with_manifest(value: object) -> Builder:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return lambda path: members(path, honest({"manifest.json": body}))

    yield "an empty file", lambda path: path.write_bytes(b"")
    yield "noise", lambda path: path.write_bytes(random.Random(1).randbytes(5000))
    yield "a text file", lambda path: path.write_text("FROM scratch\n" * 100)
    yield "gzip of noise", lambda path: path.write_bytes(gzip.compress(random.Random(2).randbytes(5000)))
    yield "no manifest at all", lambda path: members(path, {"l.tar": GOOD})
    for title, value in {
        "not JSON": b"{nope",
        "a number": 7,
        "an object": {"Config": "c.json"},
        "an empty list": [],
        "a list of numbers": [1, 2],
        "no Config": [{"RepoTags": ["bad:latest"], "Layers": ["l.tar"]}],
        "Config not there": [{"Config": "other.json", "RepoTags": ["bad:latest"], "Layers": ["l.tar"]}],
        "Config climbs out": [
            {"Config": "../../etc/passwd", "RepoTags": ["bad:latest"], "Layers": ["l.tar"]}
        ],
        "Config absolute": [{"Config": "/etc/passwd", "RepoTags": ["bad:latest"], "Layers": ["l.tar"]}],
        "layer not there": [{"Config": "c.json", "RepoTags": ["bad:latest"], "Layers": ["x.tar"]}],
        "layer climbs out": [
            {"Config": "c.json", "RepoTags": ["bad:latest"], "Layers": ["../../etc/passwd"]}
        ],
        "no layers for one diff id": [{"Config": "c.json", "RepoTags": ["bad:latest"], "Layers": []}],
        "two layers for one diff id": [
            {"Config": "c.json", "RepoTags": ["bad:latest"], "Layers": ["l.tar", "l.tar"]}
        ],
        "Layers a string": [{"Config": "c.json", "RepoTags": ["bad:latest"], "Layers": "l.tar"}],
        "RepoTags nonsense": [{"Config": "c.json", "RepoTags": ["../UP:case"], "Layers": ["l.tar"]}],
        "RepoTags numbers": [{"Config": "c.json", "RepoTags": [5], "Layers": ["l.tar"]}],
        "nested too deep": b"[" * 100_000,
    }.items():
        yield f"manifest: {title}", with_manifest(value)
    for title, body in {"not JSON": b"\0\1", "a list": b"[]", "empty": b"", "nested": b"[" * 100_000}.items():
        yield f"config: {title}", lambda path, body=body: members(path, honest({"c.json": body}))  # type: ignore[misc]
    wrong = {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}
    yield "config: wrong diff id", lambda path: members(path, honest(rootfs=wrong))
    for title, rootfs in {
        "a string": "x",
        "diff_ids a number": {"type": "layers", "diff_ids": 3},
        "no digest": {"diff_ids": ["md5:0"]},
    }.items():
        yield f"config: rootfs {title}", lambda path, rootfs=rootfs: members(path, honest(rootfs=rootfs))  # type: ignore[misc]
    yield "config: another architecture", lambda path: members(path, honest(architecture="sparc64"))
    yield "config: another system", lambda path: members(path, honest(os="windows"))

    def linked(target: str) -> Builder:
        def build(path: Path) -> None:
            files = honest()
            del files["l.tar"]
            members(path, files, {"l.tar": target})

        return build

    for target in ["/etc/passwd", "../../../etc/passwd", "l.tar", "nowhere"]:
        yield f"layer is a symlink to {target}", linked(target)
    yield "outer tar cut in the layer", cut(0.6)
    yield "outer tar cut in a header", cut(0.03)
    yield from oci_attacks()


def cut(fraction: float) -> Builder:
    def build(path: Path) -> None:
        images.docker_archive(path, ["bad:latest"], [GOOD * 1])
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * fraction)])

    return build


def oci_attacks() -> Iterator[tuple[str, Builder]]:
    def changed(change: Callable[[dict[str, bytes]], None]) -> Builder:
        def build(path: Path) -> None:
            images.oci_archive(path, "example/bad:latest", [GOOD])
            with tarfile.open(path) as tar:
                files = {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]
            change(files)
            members(path, files)

        return build

    def biggest(files: dict[str, bytes], kind: str) -> str:
        """The blob that is the config, the manifest or the layer."""
        for name, body in files.items():
            if (
                name.startswith("blobs/")
                and {
                    "layer": body[:2] == b"\x1f\x8b",
                    "manifest": b'"layers"' in body,
                    "config": b'"diff_ids"' in body,
                }[kind]
            ):
                return name
        raise AssertionError(kind)

    for kind in ["config", "manifest", "layer"]:
        yield (
            f"OCI {kind} missing",
            changed(lambda files, kind=kind: files.pop(biggest(files, kind)) and None),
        )  # type: ignore[misc]
        yield (
            f"OCI {kind} altered",
            changed(
                lambda files, kind=kind: files.update(
                    {biggest(files, kind): files[biggest(files, kind)] + b" "}
                )
            ),  # type: ignore[misc]
        )
    yield "OCI index not JSON", changed(lambda files: files.update({"index.json": b"}{"}))
    yield (
        "OCI index empty",
        changed(lambda files: files.update({"index.json": b'{"schemaVersion":2,"manifests":[]}'})),
    )
    yield (
        "OCI index with a digest that climbs out",
        changed(
            lambda files: files.update(
                {"index.json": files["index.json"].replace(b"sha256:", b"sha256:../../../")}
            )
        ),
    )


ALL: list[tuple[str, Builder]] = [*layer_attacks(), *archive_attacks()]
