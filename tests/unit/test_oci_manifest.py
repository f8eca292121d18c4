"""Manifests, indexes, platforms and configs: what is believed and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from duckweed.errors import BadImage
from duckweed.oci import manifest
from duckweed.oci.config import diff_ids, read_config
from duckweed.oci.digest import chain_ids, digest_of
from duckweed.oci.manifest import Descriptor, Manifest, choose, read_index
from duckweed.oci.platform import Platform

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def entry(platform: str | None, digest: str = A, **more: Any) -> Descriptor:
    return Descriptor(
        manifest.OCI_MANIFEST, digest, 1, Platform.parse(platform) if platform else None, **more
    )


@pytest.mark.parametrize(
    ("have", "wanted", "expected"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", 2),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["linux/386", "linux/amd64"], "linux/amd64", 1),
        (["linux/386"], "linux/amd64", 0),
        (["windows/amd64"], "linux/amd64", None),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
    ],
)
def test_index_entry_is_chosen_by_platform(have: list[str], wanted: str, expected: int | None) -> None:
    entries = [entry(platform) for platform in have]
    chosen = choose(entries, Platform.parse(wanted))
    assert chosen is (None if expected is None else entries[expected])


def test_attestations_are_never_chosen() -> None:
    unknown = entry("unknown/unknown")
    marked = entry(None, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    assert choose([unknown, marked], Platform.host()) is None


def test_composed_manifest_reads_back_and_is_the_same_every_time() -> None:
    config = Descriptor(manifest.OCI_CONFIG, A, 3)
    layers = [Descriptor(manifest.OCI_LAYER + "+zstd", B, 4)]
    content = Manifest.compose(config, layers)
    assert content == Manifest.compose(config, layers)
    read = Manifest.read(content, "m")
    assert (read.config.digest, [one.digest for one in read.layers]) == (A, [B])


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"schemaVersion": 1},
        {"schemaVersion": 2},
        {"schemaVersion": 2, "config": 5},
        {"schemaVersion": 2, "config": {"digest": "sha256:../../x", "size": 1}},
        {"schemaVersion": 2, "config": {"digest": A, "size": -1}},
        {"schemaVersion": 2, "config": {"digest": A, "size": True}},
        {"schemaVersion": 2, "config": {"digest": A, "size": 1, "mediaType": "application/x-helm"}},
        {"schemaVersion": 2, "config": {"digest": A, "size": 1}, "layers": {}},
        {"schemaVersion": 2, "config": {"digest": A, "size": 1}, "layers": [{"digest": B, "size": 1}] * 501},
    ],
)
def test_bad_manifest_is_refused(document: Any) -> None:
    with pytest.raises(BadImage):
        Manifest.read(json.dumps(document).encode(), "m")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 200_000, b" " * (5 << 20), b"[]", b"7"])
def test_what_is_no_document_is_refused_in_one_line(content: bytes) -> None:
    for read in (read_index, Manifest.read, read_config):
        with pytest.raises(BadImage) as caught:
            read(content, "it")
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"rootfs": {"type": "tree", "diff_ids": []}},
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": ["md5:0"]}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "config": {"Env": "A=b"}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "config": {"Cmd": [1]}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "config": {"Labels": {"a": 1}}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "history": [1]},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "os": 1},
    ],
)
def test_bad_config_is_refused(document: Any) -> None:
    with pytest.raises(BadImage):
        read_config(json.dumps(document).encode(), "c")


def test_chain_id_depends_on_everything_below() -> None:
    config = read_config(json.dumps({"rootfs": {"type": "layers", "diff_ids": [A, B]}}).encode(), "c")
    assert chain_ids(diff_ids(config)) == [A, digest_of(f"{A} {B}".encode())]
    assert chain_ids([B, A])[1] != chain_ids([A, B])[1]
