"""`--output`, `--annotation` and `--platform`: what comes out, and how it is packed."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from build.conftest import Build
from conftest import Run
from registry.publish import ARCHITECTURE
from registry.server import RegistryServer

SIMPLE = "FROM busybox\nCOPY a /a\n"
OTHER = "arm64" if ARCHITECTURE != "arm64" else "amd64"
BOTH = f"--platform=linux/{ARCHITECTURE},linux/{OTHER}"
CROSS = """\
FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETARCH
RUN echo $TARGETARCH > /arch
FROM scratch
COPY --from=build /arch /arch
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A plain registry."""
    server = RegistryServer(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {}
        for member in tar:
            source = tar.extractfile(member) if member.isfile() else None
            found[member.name] = source.read() if source else b""
        return found


def documents(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The index entry of an OCI archive, and the manifests it leads to."""
    files = members(path)

    def blob(digest: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(files["blobs/sha256/" + digest[7:]])
        return found

    (entry,) = json.loads(files["index.json"])["manifests"]
    document = blob(entry["digest"])
    if "manifests" in document:
        return {**entry, "index": document}, [blob(one["digest"]) for one in document["manifests"]]
    return entry, [document]


@pytest.mark.parametrize("packing", ["gzip", "zstd", "uncompressed"])
def test_layers_are_packed_as_asked(packing: str, build: Build, context: Path, tmp_path: Path) -> None:
    (context / "a").write_text("1")
    build(SIMPLE, f"--output=type=oci,dest={tmp_path}/o.tar,compression={packing}", "-t", "packed:1")
    _, (manifest,) = documents(tmp_path / "o.tar")
    ends = {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]}
    assert ends == ({"application/vnd.oci.image.layer.v1.tar"} if packing == "uncompressed" else {packing})


def test_several_outputs_of_one_build(build: Build, context: Path, tmp_path: Path, duckweed: Run) -> None:
    (context / "a").write_text("1")
    outputs = [f"type=oci,dest={tmp_path}/o.tar", f"type=docker,dest={tmp_path}/d.tar"]
    outputs += [f"type=local,dest={tmp_path}/l", f"type=tar,dest={tmp_path}/t.tar", "type=image,name=many:2"]
    built = build(SIMPLE, "-t", "many:1", *(f"--output={output}" for output in outputs))
    assert "manifest.json" in members(tmp_path / "d.tar")
    assert (tmp_path / "l" / "a").read_text() == "1"
    assert members(tmp_path / "t.tar")["a"] == b"1"
    for name in ("many:1", "many:2"):
        assert duckweed("images", "-q", "--no-trunc", name).stdout.strip() == built.image


def test_an_archive_on_stdout(build: Build, context: Path, tmp_path: Path) -> None:
    (context / "a").write_text("1")
    built = build("FROM scratch\nCOPY a /a\n", "--output=type=tar,dest=-")
    with tarfile.open(fileobj=io.BytesIO(built.stdout.encode())) as tar:
        assert tar.getnames() == ["a"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("type=oci", "dest is required for oci"),
        ("type=nope,dest=x", "unknown type `nope`"),
        ("dest=x", "type is required"),
        ("type=oci,dest=x,compression=lzma", "unsupported compression `lzma`"),
        ("type=image,push=true,compression=uncompressed", "pushed as gzip or zstd"),
        ("type=image,push=true", "tag is needed when pushing to registry"),
    ],
)
def test_bad_outputs_are_refused(output: str, words: str, build: Build) -> None:
    failed = build("FROM scratch\nLABEL a=b\n", f"--output={output}", check=False)
    assert failed.returncode in (1, 125)
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr


def test_annotations_stand_on_their_documents(build: Build, context: Path, tmp_path: Path) -> None:
    (context / "a").write_text("1")
    flags = ["--annotation=one=1", "--annotation=manifest-descriptor:two=2"]
    flags.append(f"--annotation=manifest,manifest-descriptor[linux/{OTHER}]:three=3")
    output = f"--output=type=oci,dest={tmp_path}/o.tar,annotation.four=4"
    build(SIMPLE, *flags, "--annotation=manifest:one=uno", output)
    entry, (manifest,) = documents(tmp_path / "o.tar")
    assert manifest["annotations"] == {"one": "uno", "three": "3", "four": "4"}
    assert entry["annotations"] == {"two": "2"}
    refused = build(SIMPLE, "--annotation=index:a=b", check=False)
    assert "one platform alone has no index" in refused.stderr
    assert "expected KEY=VALUE" in build(SIMPLE, "--annotation=nothing", check=False).stderr


def test_several_platforms_make_an_index(build: Build, tmp_path: Path, duckweed: Run) -> None:
    flags = (BOTH, "-t", "cross:1", "--annotation=index:whole=yes", f"--metadata-file={tmp_path}/meta")
    built = build(CROSS, *flags, f"--output=type=oci,dest={tmp_path}/o.tar")
    entry, manifests = documents(tmp_path / "o.tar")
    assert entry["mediaType"] == "application/vnd.oci.image.index.v1+json"
    index = entry["index"]
    assert index["annotations"] == {"whole": "yes"}
    assert [one["platform"]["architecture"] for one in index["manifests"]] == [ARCHITECTURE, OTHER]
    assert len(manifests) == 2
    shown = duckweed("image", "inspect", "-f", "{{.Architecture}} {{.Id}}", "cross:1", check=True).stdout
    assert shown.split() == [ARCHITECTURE, built.image]
    document = json.loads((tmp_path / "meta").read_text())
    assert document["containerimage.descriptor"]["mediaType"] == entry["mediaType"]
    assert f"[linux/{OTHER} build 2/2] RUN echo {OTHER} > /arch" in built.stderr


def test_several_platforms_as_files(build: Build, tmp_path: Path) -> None:
    names = [f"linux_{architecture}" for architecture in (ARCHITECTURE, OTHER)]
    build(CROSS, BOTH, f"--output={tmp_path}/local", f"--output=type=tar,dest={tmp_path}/o.tar")
    assert sorted(os.listdir(tmp_path / "local")) == sorted(names)
    files = members(tmp_path / "o.tar")
    for name in names:
        assert (tmp_path / "local" / name / "arch").read_text() == name.partition("_")[2] + "\n"
        assert files[f"{name}/arch"].decode() == name.partition("_")[2] + "\n"


def test_an_index_is_pushed(build: Build, registry: RegistryServer, duckweed: Run) -> None:
    name = f"{registry.name}/team/cross:{os.urandom(4).hex()}"
    build(CROSS, BOTH, "-t", name, "--push")
    for architecture in (ARCHITECTURE, OTHER):
        duckweed("pull", "-q", f"--platform=linux/{architecture}", name, check=True)
        found = duckweed("image", "inspect", "-f", "{{.Architecture}}", name).stdout.strip()
        assert found == architecture
    gzip = build(CROSS, BOTH, "-t", name, "--output=type=registry,compression=gzip")
    assert f"pushing {name} done" in gzip.stderr


def test_a_base_is_pulled_and_its_layers_are_shown(
    build: Build, registry: RegistryServer, duckweed: Run, busybox: str
) -> None:
    name = f"{registry.name}/team/base:{os.urandom(4).hex()}"
    build("FROM busybox\nRUN echo pulled > /p\n", "-t", name, "--push")
    duckweed("rmi", name, check=True)
    built = build(f"FROM {name}\nRUN cat /p\n")
    assert f"[internal] load metadata for {name}" in built.stderr
    assert " pulled\n" in built.stderr
    cold = {"DUCKWEED_ROOT": str(registry.directory / os.urandom(4).hex())}
    elsewhere = build(f"FROM {name}\nRUN cat /p\n", env=cold)
    assert len([line for line in elsewhere.stderr.splitlines() if "MB done" in line]) == 2


def test_a_base_for_another_platform_is_mentioned(build: Build) -> None:
    built = build("FROM busybox\nCOPY Dockerfile /\n", f"--platform=linux/{OTHER}")
    assert "InvalidBaseImagePlatform" in built.stderr


def test_no_archive_of_docker_holds_several_platforms(build: Build, tmp_path: Path) -> None:
    failed = build(CROSS, BOTH, f"--output=type=docker,dest={tmp_path}/d.tar", check=False)
    assert "type=docker cannot hold several platforms" in failed.stderr


def test_what_add_unpacks_is_no_later_than_source_date_epoch(
    build: Build, context: Path, tmp_path: Path
) -> None:
    with tarfile.open(context / "a.tar", "w") as tar:
        info = tarfile.TarInfo("f")
        info.mtime = 1900000000
        tar.addfile(info)
    flags = ("--build-arg=SOURCE_DATE_EPOCH=1700000000", f"--output=type=tar,dest={tmp_path}/t.tar")
    build("FROM scratch\nADD a.tar /d/\n", *flags)
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert {member.mtime for member in tar} == {1700000000}
