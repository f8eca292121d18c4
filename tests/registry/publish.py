"""Putting images into a registry by plain requests, so that a pull is not judged by our own push."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import urllib.request
from typing import Any

import images

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
_TYPES = {
    "oci": {
        "manifest": OCI + "manifest.v1+json",
        "config": OCI + "config.v1+json",
        "layer": OCI + "layer.v1.tar+gzip",
        "index": OCI + "index.v1+json",
    },
    "docker": {
        "manifest": DOCKER + "distribution.manifest.v2+json",
        "config": DOCKER + "container.image.v1+json",
        "layer": DOCKER + "image.rootfs.diff.tar.gzip",
        "index": DOCKER + "distribution.manifest.list.v2+json",
    },
}


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def random_layer(seed: int, size: int) -> bytes:
    """A layer of one file that does not compress."""
    content = random.Random(seed).randbytes(size)
    return images.layer([(images.member(f"data-{seed}"), content)])


class Published:
    """An image in a registry: its manifest's digest and descriptor, and its blobs' digests (config first)."""

    def __init__(self, descriptor: dict[str, Any], blobs: list[str]) -> None:
        self.descriptor = descriptor
        self.digest: str = descriptor["digest"]
        self.blobs = blobs
        self.layers = blobs[1:]


def _request(method: str, url: str, content: bytes | None = None, media_type: str = "") -> Any:
    headers = {"Content-Type": media_type or "application/octet-stream"}
    request = urllib.request.Request(url, data=content, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=20)


def put_blob(name: str, repository: str, content: bytes) -> dict[str, Any]:
    """Uploads a blob; its digest and size."""
    with _request("POST", f"http://{name}/v2/{repository}/blobs/uploads/", b"") as answer:
        location = answer.headers["Location"]
    mark = "&" if "?" in location else "?"
    _request("PUT", f"{location}{mark}digest={digest_of(content)}", content).close()
    return {"digest": digest_of(content), "size": len(content)}


def put_manifest(name: str, repository: str, tag: str, document: dict[str, Any]) -> dict[str, Any]:
    """Uploads a manifest or index, pretty-printed, as its digest must not depend on spelling."""
    content = json.dumps(document, indent=3).encode()
    _request("PUT", f"http://{name}/v2/{repository}/manifests/{tag}", content, document["mediaType"]).close()
    return {"mediaType": document["mediaType"], "digest": digest_of(content), "size": len(content)}


def publish(
    name: str,
    repository: str,
    tag: str,
    layers: list[bytes],
    *,
    kind: str = "oci",
    architecture: str = ARCHITECTURE,
    config: dict[str, Any] | None = None,
) -> Published:
    """Puts an image of these layer tars into the registry `name`."""
    types = _TYPES[kind]
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [images.PATH], "Cmd": ["/bin/sh"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in layers]},
    }
    blobs = [put_blob(name, repository, json.dumps(document, indent=1).encode())]
    blobs += [put_blob(name, repository, gzip.compress(tar, 1, mtime=0)) for tar in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": types["manifest"],
        "config": {"mediaType": types["config"], **blobs[0]},
        "layers": [{"mediaType": types["layer"], **blob} for blob in blobs[1:]],
    }
    descriptor = put_manifest(name, repository, tag, manifest)
    return Published(descriptor, [blob["digest"] for blob in blobs])


def publish_index(
    name: str, repository: str, tag: str, entries: list[tuple[Published, str]], *, kind: str = "oci"
) -> str:
    """Puts an index of (image, architecture) into the registry; its digest."""
    document = {
        "schemaVersion": 2,
        "mediaType": _TYPES[kind]["index"],
        "manifests": [
            {**image.descriptor, "platform": {"os": "linux", "architecture": architecture}}
            for image, architecture in entries
        ],
    }
    return str(put_manifest(name, repository, tag, document)["digest"])
