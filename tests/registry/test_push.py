"""`push`: what goes up, what is said, and what does not go twice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import images
from conftest import Run
from registry.between import Between, Passed, Trouble
from registry.publish import Published, random_layer
from registry.server import RegistryServer, get_json

MakeBetween = Callable[..., Between]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, layers: list[bytes]) -> Path:
    """The shared image's layers as an OCI archive that names itself `example/large:1`."""
    path = tmp_path_factory.mktemp("push") / "large.tar"
    return images.oci_archive(path, "example/large:1", [layers[0], random_layer(5, 6_000_000)])


@pytest.fixture
def loaded(fresh: Run, archive: Path) -> str:
    """The manifest's digest of that image, loaded in this test's store."""
    fresh("load", "-q", "-i", str(archive), check=True)
    return str(json.loads(fresh("inspect", "example/large:1").stdout)[0]["RepoDigests"][0].partition("@")[2])


def layers_of(name: str, repository: str, tag: str) -> list[str]:
    accept = "application/vnd.oci.image.manifest.v1+json"
    document = get_json(f"http://{name}/v2/{repository}/manifests/{tag}", {"Accept": accept})
    return [layer["digest"] for layer in document["layers"]]


def test_push_says_what_docker_says(fresh: Run, registry: RegistryServer, loaded: str) -> None:
    target = f"{registry.name}/pushed/words"
    fresh("tag", "example/large:1", target, check=True)
    lines = fresh("push", target, check=True).stdout.splitlines()
    assert lines[0] == f"The push refers to repository [{target}]"
    assert lines[-1].startswith(f"latest: digest: {loaded} size: ")
    for digest in layers_of(registry.name, "pushed/words", "latest"):
        words = [line.split(": ")[1] for line in lines if line.startswith(digest[7:19])]
        assert words == ["Preparing", "Pushed"]
    again = fresh("push", target, check=True).stdout
    assert again.count("Layer already exists") == 2
    assert fresh("push", "-q", target).stdout == f"{target}:latest\n"
    assert f"{target}@{loaded}" in fresh("inspect", target).stdout


def test_what_was_pushed_is_pulled_with_the_same_digest(
    fresh: Run, registry: RegistryServer, loaded: str
) -> None:
    target = f"{registry.name}/pushed/round"
    fresh("tag", "example/large:1", target, check=True)
    fresh("push", target, check=True)
    fresh("rmi", "-f", "example/large:1", target, check=True)
    assert f"Digest: {loaded}" in fresh("pull", f"{target}@{loaded}", check=True).stdout
    assert fresh("run", "--rm", f"{target}@{loaded}", "true").returncode == 0


def test_an_image_that_came_as_plain_tars_is_pushed_as_it_is_kept(
    fresh: Run, registry: RegistryServer, archives: Path
) -> None:
    fresh("load", "-q", "-i", str(archives / "busybox.tar"), check=True)
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    for words, kind in (([], "tar+zstd"), (["--compression-format", "gzip"], "tar+gzip")):
        target = f"{registry.name}/pushed/kept-{kind[4:]}"
        fresh("tag", "busybox", target, check=True)
        fresh("push", *words, target, check=True)
        document = get_json(f"http://{registry.name}/v2/pushed/kept-{kind[4:]}/manifests/latest", accept)
        assert document["layers"][0]["mediaType"].endswith(kind)
        fresh("rmi", target, check=True)
        fresh("pull", target, check=True)
        assert fresh("run", "--rm", target, "true").returncode == 0
    assert fresh("push", "--compression-format", "lzma", target).returncode == 1


def test_all_tags_of_a_repository_are_pushed(fresh: Run, registry: RegistryServer, loaded: str) -> None:
    target = f"{registry.name}/pushed/tags"
    for tag in ("one", "two"):
        fresh("tag", "example/large:1", f"{target}:{tag}", check=True)
    fresh("push", "-a", target, check=True)
    assert get_json(f"http://{registry.name}/v2/pushed/tags/tags/list")["tags"] == ["one", "two"]


def test_what_is_not_here_cannot_be_pushed(fresh: Run, registry: RegistryServer) -> None:
    done = fresh("push", f"{registry.name}/pushed/none:1")
    assert done.returncode == 1
    assert f"An image does not exist locally with the tag: {registry.name}/pushed/none" in done.stderr
    assert fresh("push", f"{registry.name}/x@sha256:{'0' * 64}").returncode == 1


def test_blobs_of_another_repository_are_mounted(
    fresh: Run, registry: RegistryServer, between: MakeBetween, image: Published
) -> None:
    watched = between()
    fresh("pull", "-q", f"{watched.name}/team/app", check=True)
    target = f"{watched.name}/pushed/mounted"
    fresh("tag", f"{watched.name}/team/app", target, check=True)
    watched.passed.clear()
    assert fresh("push", target, check=True).stdout.count("Mounted from team/app") == len(image.layers)
    assert max(one.body_bytes for one in watched.passed) < 10_000


def test_a_broken_upload_goes_on_where_it_broke(fresh: Run, between: MakeBetween, loaded: str) -> None:
    breaks = [1_000_000, 1_500_000]

    def decide(passed: Passed) -> Trouble | None:
        is_large = int(passed.headers.get("content-length") or 0) > 2_000_000
        return Trouble(swallow=breaks.pop()) if is_large and passed.method == "PATCH" and breaks else None

    watched = between(decide)
    target = f"{watched.name}/pushed/broken"
    fresh("tag", "example/large:1", target, check=True)
    fresh("push", target, check=True)
    patches = [one.headers for one in watched.passed if one.method == "PATCH"]
    large = [one for one in patches if int(one["content-length"]) > 2_000_000]
    whole = int(large[0]["content-length"])
    assert [one.get("content-range") for one in large] == [
        None,
        f"1500000-{whole - 1}",
        f"2500000-{whole - 1}",
    ]
    fresh("rmi", "-f", "example/large:1", target, check=True)
    fresh("pull", target, check=True)


def test_a_registry_that_takes_no_large_pieces_gets_small_ones(
    fresh: Run, between: MakeBetween, tmp_path: Path
) -> None:
    huge = images.oci_archive(tmp_path / "huge.tar", "example/huge:1", [random_layer(6, 20_000_000)])
    fresh("load", "-q", "-i", str(huge), check=True)

    def decide(passed: Passed) -> Trouble | None:
        is_large = int(passed.headers.get("content-length") or 0) > 17_000_000
        return Trouble(status=413) if is_large and passed.method == "PATCH" else None

    watched = between(decide)
    target = f"{watched.name}/pushed/pieces"
    fresh("tag", "example/huge:1", target, check=True)
    fresh("push", target, check=True)
    pieces = [one.headers.get("content-range") for one in watched.passed if one.method == "PATCH"]
    assert pieces[0] is None and pieces[1] == f"0-{(16 << 20) - 1}" and len(pieces) == 3
    fresh("rmi", "-f", "example/huge:1", target, check=True)
    fresh("pull", target, check=True)


def test_a_busy_registry_is_tried_again(fresh: Run, between: MakeBetween, loaded: str) -> None:
    left = {"PATCH": 1, "PUT": 1, "POST": 1}

    def decide(passed: Passed) -> Trouble | None:
        if left.get(passed.method):
            left[passed.method] -= 1
            return Trouble(status=503, headers={"Retry-After": "0"})
        return None

    watched = between(decide)
    target = f"{watched.name}/pushed/busy"
    fresh("tag", "example/large:1", target, check=True)
    fresh("push", target, check=True)
    assert left == {"PATCH": 0, "PUT": 0, "POST": 0}


def test_run_pulls_what_is_missing_and_says_so_on_stderr(
    fresh: Run, registry: RegistryServer, image: Published
) -> None:
    name = f"{registry.name}/team/app"
    done = fresh("run", "--rm", name, "echo", "hello", check=True)
    assert done.stdout == "hello\n"
    assert done.stderr.startswith(
        f"Unable to find image '{name}:latest' locally\nlatest: Pulling from team/app\n"
    )
    assert f"Status: Downloaded newer image for {name}:latest" in done.stderr
    assert fresh("run", "--rm", name, "echo", "hello").stderr == ""
    always = fresh("run", "--rm", "--pull", "always", name, "true", check=True)
    assert "Status: Image is up to date for" in always.stderr
    assert fresh("run", "--rm", "--pull", "always", "-q", name, "true").stderr == ""
    never = fresh("run", "--rm", "--pull", "never", f"{registry.name}/team/none", "true")
    assert never.returncode == 125 and "Unable to find image" in never.stderr
    missing = fresh("run", "--rm", f"{registry.name}/team/none", "true")
    assert missing.returncode == 125 and "manifest unknown" in missing.stderr
    wrong = fresh("create", "--pull", "sometimes", name)
    assert wrong.returncode == 125 and "invalid pull option: 'sometimes'" in wrong.stderr
    assert len(fresh("create", "--pull", "always", "-q", name).stdout.strip()) == 64


def test_python_pulls_and_pushes(
    fresh: Run, registry: RegistryServer, image: Published, tmp_path: Path
) -> None:
    import duckweed

    engine = duckweed.Engine(tmp_path / "python")
    name = f"{registry.name}/team/app"
    assert engine.run(name, ["echo", "pulled"]).stdout == b"pulled\n"
    pulled = engine.images.pull(name)
    assert pulled.attrs["RepoDigests"] == [f"{name}@{image.digest}"]
    engine.images.tag(name, f"{registry.name}/pushed/python:1")
    (pushed,) = engine.images.push(f"{registry.name}/pushed/python:1")
    assert (pushed.digest, str(pushed.reference)) == (image.digest, f"{registry.name}/pushed/python:1")
    with pytest.raises(duckweed.DuckweedError) as caught:
        engine.images.pull(f"{registry.name}/team/none")
    assert caught.value.code == "not-in-registry"
    engine.close()


def peer(name: str, *words: str, directory: Path) -> None:
    """Runs skopeo or podman with storage of its own."""
    import os
    import shutil

    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    policy = directory / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    env = {**os.environ, "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    first = ["--policy", str(policy)] if name == "skopeo" else []
    done = subprocess.run([program, *first, *words], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_skopeo_reads_what_we_push_and_we_what_it_pushes(
    fresh: Run, registry: RegistryServer, loaded: str, tmp_path: Path
) -> None:
    target = f"{registry.name}/peers/ours"
    fresh("tag", "example/large:1", target, check=True)
    fresh("push", target, check=True)
    layout = f"oci:{tmp_path}/layout:x"
    peer("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{target}", layout, directory=tmp_path)
    index = json.loads((tmp_path / "layout/index.json").read_text())
    assert index["manifests"][0]["digest"] == loaded
    for kind in ("oci", "v2s2"):
        theirs = f"{registry.name}/peers/theirs:{kind}"
        words = ["copy", "-q", "--dest-tls-verify=false", "--format", kind, layout, f"docker://{theirs}"]
        peer("skopeo", *words, directory=tmp_path)
        fresh("pull", theirs, check=True)
        assert fresh("run", "--rm", theirs, "true").returncode == 0
