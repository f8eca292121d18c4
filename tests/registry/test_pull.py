"""`pull`: what comes, what is said, and what is not fetched again."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, command
from registry.between import Between, Passed, Trouble
from registry.publish import Published, publish, publish_index, put_manifest, random_layer
from registry.server import RegistryServer, wait_until

MakeBetween = Callable[..., Between]


def is_blob(passed: Passed, digest: str) -> bool:
    return passed.method == "GET" and passed.path.endswith(f"/blobs/{digest}")


def test_pull_says_what_docker_says(fresh: Run, registry: RegistryServer, image: Published) -> None:
    done = fresh("pull", f"{registry.name}/team/app", check=True)
    first, second, *lines = done.stdout.splitlines()
    assert (first, second) == ("Using default tag: latest", "latest: Pulling from team/app")
    assert lines[-3:] == [
        f"Digest: {image.digest}",
        f"Status: Downloaded newer image for {registry.name}/team/app:latest",
        f"{registry.name}/team/app:latest",
    ]
    for digest in image.layers:
        words = [line.split(": ")[1] for line in lines if line.startswith(digest[7:19])]
        assert words == ["Pulling fs layer", "Download complete", "Pull complete"]
    again = fresh("pull", f"{registry.name}/team/app:latest", check=True).stdout
    assert "Status: Image is up to date for" in again and again.count("Already exists") == 4


def test_quiet_pull_prints_the_name_alone(fresh: Run, registry: RegistryServer, image: Published) -> None:
    done = fresh("pull", "-q", f"{registry.name}/team/app")
    assert (done.stdout, done.stderr) == (f"{registry.name}/team/app:latest\n", "")


def test_pulled_image_runs_and_is_known_by_its_digest(
    fresh: Run, registry: RegistryServer, image: Published
) -> None:
    name = f"{registry.name}/team/app"
    fresh("pull", "-q", name, check=True)
    assert fresh("run", "--rm", name, "cat", "/etc/group").stdout.startswith("root:")
    (shown,) = json.loads(fresh("inspect", name).stdout)
    assert shown["RepoDigests"] == [f"{name}@{image.digest}"]
    assert shown["RepoTags"] == [f"{name}:latest"]
    assert image.digest in fresh("images", "--digests").stdout
    assert fresh("run", "--rm", f"{name}@{image.digest}", "true").returncode == 0


def test_pull_by_digest_has_no_tag_and_is_removed_like_any(
    fresh: Run, registry: RegistryServer, image: Published
) -> None:
    name = f"{registry.name}/team/app@{image.digest}"
    assert fresh("pull", name, check=True).stdout.splitlines()[-1] == name
    (shown,) = json.loads(fresh("inspect", name).stdout)
    assert (shown["RepoTags"], shown["RepoDigests"]) == ([], [name])
    assert f"Untagged: {name}" in fresh("rmi", name, check=True).stdout
    assert fresh("images", "-q").stdout == ""


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_index_leads_to_this_machines_image(
    fresh: Run, registry: RegistryServer, layers: list[bytes], kind: str
) -> None:
    here = publish(registry.name, f"team/multi-{kind}", "here", layers[:1], kind=kind)
    there = publish(
        registry.name, f"team/multi-{kind}", "there", [random_layer(9, 1000)], kind=kind, architecture="s390x"
    )
    from registry.publish import ARCHITECTURE

    index = publish_index(
        registry.name, f"team/multi-{kind}", "all", [(there, "s390x"), (here, ARCHITECTURE)], kind=kind
    )
    name = f"{registry.name}/team/multi-{kind}"
    assert f"Digest: {index}" in fresh("pull", f"{name}:all", check=True).stdout
    (shown,) = json.loads(fresh("inspect", f"{name}:all").stdout)
    assert shown["Architecture"] == ARCHITECTURE
    assert shown["RepoDigests"] == [f"{name}@{index}"]
    assert fresh("run", "--rm", f"{name}:all", "true").returncode == 0
    fresh("pull", "--platform", "linux/s390x", f"{name}:all", check=True)
    assert json.loads(fresh("inspect", f"{name}:all").stdout)[0]["Architecture"] == "s390x"
    none = fresh("pull", "--platform", "linux/riscv64", f"{name}:all")
    assert none.returncode == 1
    assert "no matching manifest for linux/riscv64 in the manifest list entries" in none.stderr
    assert "linux/s390x" in none.stderr


def test_all_tags_are_pulled(fresh: Run, registry: RegistryServer, layers: list[bytes]) -> None:
    for tag in ("one", "two"):
        publish(registry.name, "team/tags", tag, layers[:1], config={"Labels": {"tag": tag}})
    done = fresh("pull", "-a", f"{registry.name}/team/tags", check=True)
    assert done.stdout.splitlines()[-1] == f"{registry.name}/team/tags"
    listed = fresh("images", "--format", "{{.Tag}}", f"{registry.name}/team/tags").stdout.split()
    assert sorted(listed) == ["one", "two"]
    refused = fresh("pull", "-a", f"{registry.name}/team/tags:one")
    assert (refused.returncode, "tag can't be used with --all-tags/-a" in refused.stderr) == (1, True)


def test_what_is_not_there_is_one_line(fresh: Run, registry: RegistryServer, image: Published) -> None:
    for name in (f"{registry.name}/team/app:none", f"{registry.name}/nobody/nothing"):
        done = fresh("pull", name)
        assert done.returncode == 1
        assert "not found: manifest unknown" in done.stderr and done.stderr.count("\n") == 1
    done = fresh("pull", "127.0.0.1:1/x")
    assert done.returncode == 1 and "cannot reach registry `127.0.0.1:1`" in done.stderr


def test_layers_that_are_here_are_not_fetched(
    fresh: Run, registry: RegistryServer, between: MakeBetween, image: Published, layers: list[bytes]
) -> None:
    fresh("pull", "-q", f"{registry.name}/team/app", check=True)
    other = publish(registry.name, "team/other", "latest", [*layers, random_layer(77, 5000)])
    watched = between()
    fresh("pull", "-q", f"{watched.name}/team/other", check=True)
    assert {one.path.rpartition("/")[2] for one in watched.blobs()} == {other.blobs[0], other.layers[-1]}


def test_three_pulls_at_once_transfer_each_blob_once(
    fresh: Run, between: MakeBetween, image: Published
) -> None:
    watched = between()
    env = {**os.environ, "DUCKWEED_ROOT": str(fresh.root)}  # type: ignore[attr-defined]
    fresh("images", check=True)
    pulls = [
        subprocess.Popen(
            [*command(), "pull", "-q", f"{watched.name}/team/app"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for one in pulls:
        out, error = one.communicate(timeout=60)
        assert (one.returncode, error) == (0, b""), error
    counts = {digest: sum(is_blob(one, digest) for one in watched.passed) for digest in image.layers}
    assert set(counts.values()) == {1}, counts
    assert fresh("run", "--rm", f"{watched.name}/team/app", "true").returncode == 0
    assert os.listdir(f"{fresh.root}/partial") == []  # type: ignore[attr-defined]


def test_connections_cut_at_random_offsets_are_taken_up(
    fresh: Run, between: MakeBetween, image: Published
) -> None:
    import random

    chance = random.Random(4711)
    cuts = {digest: [chance.randrange(0, 900_000) for _ in range(3)] for digest in image.layers}

    def decide(passed: Passed) -> Trouble | None:
        rest = cuts.get(passed.path.rpartition("/")[2])
        return Trouble(cut=rest.pop()) if passed.method == "GET" and rest else None

    watched = between(decide)
    fresh("pull", "-q", f"{watched.name}/team/app", check=True)
    for digest in image.layers[1:]:
        asked = [one for one in watched.passed if is_blob(one, digest)]
        assert len(asked) == 4
        starts = [int(one.headers.get("range", "bytes=0-")[6:-1]) for one in asked]
        # What came before a cut is not asked for again.
        assert starts == [sum(one.sent for one in asked[:n]) for n in range(4)]
    assert fresh("run", "--rm", f"{watched.name}/team/app", "true").returncode == 0


def test_a_damaged_blob_is_refused_and_removed(fresh: Run, between: MakeBetween, image: Published) -> None:
    bad = image.layers[2]

    def damage(content: bytes) -> bytes:
        return content[:100_000] + bytes([content[100_000] ^ 255]) + content[100_001:]

    watched = between(lambda passed: Trouble(change=damage) if is_blob(passed, bad) else None)
    done = fresh("pull", "-q", f"{watched.name}/team/app")
    assert done.returncode == 1
    assert done.stderr.startswith("duckweed: ")
    # Whoever is sooner tells: the digest of the blob, or its own format's checksum while it is extracted.
    assert "expected" in done.stderr or "damaged" in done.stderr
    root = Path(fresh.root)  # type: ignore[attr-defined]
    assert not (root / "blobs/sha256" / bad[7:]).exists()
    assert os.listdir(root / "partial") == [] and os.listdir(root / "tmp") == []
    assert fresh("images", "-q").stdout == ""
    watched.decide = lambda _: None
    fresh("pull", "-q", f"{watched.name}/team/app", check=True)


def test_damage_left_by_an_earlier_process_is_begun_anew(
    fresh: Run, between: MakeBetween, image: Published
) -> None:
    watched = between()
    fresh("images", check=True)
    bad = image.layers[1]
    partial = Path(fresh.root) / "partial"  # type: ignore[attr-defined]
    partial.mkdir(parents=True)
    # As after a power cut: the length is there, the bytes are not. Its owner is long dead.
    (partial / f"{bad[7:]}.00000000.1.1").write_bytes(bytes(500_000))
    fresh("pull", "-q", f"{watched.name}/team/app", check=True)
    ranges = [one.headers.get("range") for one in watched.passed if is_blob(one, bad)]
    assert ranges == ["bytes=500000-", None]
    assert os.listdir(partial) == []


def test_a_killed_pull_is_taken_up_by_the_next(fresh: Run, between: MakeBetween, image: Published) -> None:
    import threading

    release = threading.Event()
    slow = image.layers[3]
    watched = between(lambda one: Trouble(hold=(1_500_000, release)) if is_blob(one, slow) else None)
    env = {**os.environ, "DUCKWEED_ROOT": str(fresh.root)}  # type: ignore[attr-defined]
    root = Path(fresh.root)  # type: ignore[attr-defined]
    pull = subprocess.Popen([*command(), "pull", "-q", f"{watched.name}/team/app"], env=env)

    def has_grown() -> bool:
        parts = [path for path in root.glob(f"partial/{slow[7:]}.*") if not path.is_symlink()]
        others = all((root / "blobs/sha256" / digest[7:]).exists() for digest in image.layers[:3])
        return others and any(path.stat().st_size >= 1_500_000 for path in parts)

    wait_until(has_grown, "the part file does not grow")
    pull.kill()
    pull.wait()
    release.set()
    watched.decide = lambda _: None
    watched.passed.clear()
    fresh("pull", "-q", f"{watched.name}/team/app", check=True)
    # Only the rest of the one layer, and what was not yet written down of the config.
    layers = [one for one in watched.blobs() if one.path.rpartition("/")[2] in image.layers]
    assert [(one.path.rpartition("/")[2], one.headers["range"]) for one in layers] == [
        (slow, "bytes=1500000-")
    ]
    assert os.listdir(root / "partial") == [] and os.listdir(root / "tmp") == []
    assert fresh("run", "--rm", f"{watched.name}/team/app", "true").returncode == 0


def test_a_busy_registry_is_waited_for(fresh: Run, between: MakeBetween, image: Published) -> None:
    refusals = {"/manifests/": 2, image.layers[0]: 1}

    def decide(passed: Passed) -> Trouble | None:
        for part in refusals:
            if part in passed.path and refusals[part]:
                refusals[part] -= 1
                return Trouble(status=429, headers={"Retry-After": "0"})
        return None

    watched = between(decide)
    fresh("pull", "-q", f"{watched.name}/team/app", check=True)
    assert sum("/manifests/" in one.path for one in watched.passed) == 3


def test_a_manifest_with_another_digest_is_refused(
    fresh: Run, between: MakeBetween, image: Published
) -> None:
    watched = between(
        lambda one: Trouble(change=lambda text: text + b"\n") if "/manifests/sha256" in one.path else None
    )
    done = fresh("pull", f"{watched.name}/team/app@{image.digest}")
    assert done.returncode == 1 and "its bytes have the digest" in done.stderr


def test_mirrors_are_asked_first_and_may_fail(
    fresh: Run, between: MakeBetween, registry: RegistryServer, image: Published
) -> None:
    mirror, broken = between(), between(lambda _: Trouble(status=404))
    env = {"DUCKWEED_MIRRORS": f"{registry.name}=http://{broken.name},http://{mirror.name}"}
    fresh("pull", "-q", f"{registry.name}/team/app", check=True, env=env)
    assert broken.passed and mirror.blobs()
    assert f"{registry.name}/team/app" in fresh("images").stdout


def test_a_plain_layer_and_a_moved_tag(fresh: Run, registry: RegistryServer, layers: list[bytes]) -> None:
    first = publish(registry.name, "team/moving", "v", layers[:1])
    fresh("pull", "-q", f"{registry.name}/team/moving:v", check=True)
    before = fresh("images", "-q").stdout
    publish(registry.name, "team/moving", "v", layers[:1], config={"Labels": {"new": "1"}})
    again = fresh("pull", f"{registry.name}/team/moving:v", check=True)
    assert "Status: Downloaded newer image for" in again.stdout
    both = fresh("images", "-q", "-a").stdout.split()
    assert len(both) == 2 and before.strip() in both
    # The old one is known by its digest alone now.
    assert fresh("run", "--rm", f"{registry.name}/team/moving@{first.digest}", "true").returncode == 0


def test_artifacts_and_old_schemas_are_refused(
    fresh: Run, registry: RegistryServer, image: Published
) -> None:
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": image.blobs[0], "size": 1
        },
        "layers": [],
    }  # fmt: skip
    put_manifest(registry.name, "team/app", "chart", document)
    done = fresh("pull", f"{registry.name}/team/app:chart")
    assert done.returncode == 1 and "not a container image" in done.stderr


def test_blob_bytes_are_kept_as_they_came(
    fresh: Run, registry: RegistryServer, image: Published, layers: list[bytes]
) -> None:
    fresh("pull", "-q", f"{registry.name}/team/app", check=True)
    blobs = Path(fresh.root) / "blobs/sha256"  # type: ignore[attr-defined]
    assert (blobs / image.layers[0][7:]).read_bytes() == gzip.compress(layers[0], 1, mtime=0)
