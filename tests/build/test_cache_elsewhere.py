"""`--cache-to` and `--cache-from`: a build that begins where another store's build ended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from build.conftest import Built
from conftest import Run
from registry.server import RegistryServer

TEXT = """\
FROM busybox AS one
ARG U={0}
RUN echo one > /f
FROM busybox
ARG U={0}
COPY a /a
RUN cat /a > /b
COPY --from=one /f /f
"""

Place = Callable[..., Built]


@pytest.fixture
def text() -> str:
    """A Dockerfile of two stages that no cache knows."""
    return TEXT.format(os.urandom(8).hex())


@pytest.fixture
def machine(duckweed: Run, archives: Path, tmp_path: Path) -> Callable[[str], Place]:
    """`machine("x")` is a store of its own with busybox; called with a Dockerfile and flags, it builds."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").write_text("1\n")

    def make(name: str) -> Place:
        env = {"DUCKWEED_ROOT": str(tmp_path / name)}
        duckweed("load", "-q", "-i", str(archives / "busybox.tar"), check=True, env=env)

        def build(dockerfile: str, *flags: str, check: bool = True) -> Built:
            (context / "Dockerfile").write_text(dockerfile)
            done = duckweed("build", "--progress=plain", *flags, str(context), env=env, timeout=120)
            assert not check or done.returncode == 0, done.stderr
            return Built(done.returncode, done.stdout, done.stderr)

        return build

    return make


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A plain registry."""
    server = RegistryServer(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


def layers(tmp_path: Path, name: str) -> int:
    return len(os.listdir(tmp_path / name / "layers"))


def test_a_local_cache_of_all_stages(machine: Callable[[str], Place], text: str, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    first = machine("one")(text, f"--cache-to=type=local,dest={place},mode=max")
    assert len(first.done) == 4
    assert json.loads((place / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    other = machine("two")
    second = other(text, f"--cache-from=type=local,src={place}")
    assert (second.done, len(second.cached)) == ([], 4)
    assert second.image == first.image
    # Of the first stage nothing was needed: its layer was not fetched.
    assert layers(tmp_path, "two") == layers(tmp_path, "one") - 1
    assert other(text).image == first.image, "what was fetched is in the store's own cache now"


def test_a_changed_file_is_done_on_what_was_fetched(
    machine: Callable[[str], Place], text: str, tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    machine("one")(text, f"--cache-to=type=local,dest={place},mode=max")
    (tmp_path / "context" / "a").write_text("2\n")
    changed = machine("two")(text, f"--cache-from=type=local,src={place}")
    assert changed.cached == ["RUN echo one > /f"]
    assert len(changed.done) == 3


def test_mode_min_has_the_result_alone(machine: Callable[[str], Place], text: str, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    machine("one")(text, f"--cache-to=type=local,dest={place}")
    again = machine("two")(text, f"--cache-from=type=local,src={place}")
    assert again.done == ["RUN echo one > /f"]
    assert len(again.cached) == 3


def test_a_layout_holds_several_caches(machine: Callable[[str], Place], text: str, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    one = machine("one")
    one(text, f"--cache-to=type=local,dest={place},tag=a,mode=max")
    one(TEXT.format("other"), f"--cache-to=type=local,dest={place},tag=b,mode=max")
    again = machine("two")(text, f"--cache-from=type=local,src={place},tag=a")
    assert again.done == []


def test_a_cache_is_handed_on_without_being_used(
    machine: Callable[[str], Place], text: str, tmp_path: Path
) -> None:
    machine("one")(text, f"--cache-to=type=local,dest={tmp_path}/first,mode=max")
    copied = f"--cache-to=type=local,dest={tmp_path}/second,mode=max"
    machine("two")(text, f"--cache-from=type=local,src={tmp_path}/first", copied)
    assert machine("three")(text, f"--cache-from=type=local,src={tmp_path}/second").done == []


def test_a_registry_cache(
    machine: Callable[[str], Place], text: str, tmp_path: Path, registry: RegistryServer
) -> None:
    name = f"{registry.name}/team/cache:{os.urandom(4).hex()}"
    first = machine("one")(text, f"--cache-to=type=registry,ref={name},mode=max")
    assert machine("two")(text, f"--cache-from={name}").image == first.image
    second = machine("three")(text, f"--cache-from=type=registry,ref={name}", "-o", f"{tmp_path}/out")
    assert (second.done, (tmp_path / "out" / "f").read_text()) == ([], "one\n")


def test_an_inline_cache_is_in_the_image(
    machine: Callable[[str], Place], text: str, registry: RegistryServer
) -> None:
    name = f"{registry.name}/team/app:{os.urandom(4).hex()}"
    machine("one")(text, "--cache-to=type=inline", "-t", name, "--push")
    again = machine("two")(text, f"--cache-from={name}")
    assert again.done == ["RUN echo one > /f"]
    assert len(again.cached) == 3


def test_an_inline_cache_keeps_the_digest_repeatable(machine: Callable[[str], Place], text: str) -> None:
    flags = ("--build-arg=BUILDKIT_INLINE_CACHE=1", "--build-arg=SOURCE_DATE_EPOCH=1700000000")
    one = machine("one")
    first = one(text, *flags)
    assert one(text, *flags).image == first.image
    assert machine("two")(text, *flags).image == first.image


def test_a_cache_that_is_not_there_is_mentioned(
    machine: Callable[[str], Place], text: str, tmp_path: Path
) -> None:
    one = machine("one")
    built = one(text, f"--cache-from=type=local,src={tmp_path}/no", "--cache-from=127.0.0.1:1/no/cache")
    assert built.returncode == 0
    assert f"ERROR: cannot read cache in `{tmp_path}/no`: no such file or directory" in built.stderr
    assert "cannot reach registry" in built.stderr
    failed = one(text, "--cache-to=type=registry,ref=127.0.0.1:1/no/cache", check=False)
    assert failed.returncode == 1
    assert "cannot export the cache" in failed.stderr
    assert one(text, "--cache-to=type=registry,ref=127.0.0.1:1/no/cache,ignore-error=true").returncode == 0


def test_a_damaged_cache_is_no_layer(machine: Callable[[str], Place], text: str, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    machine("one")(text, f"--cache-to=type=local,dest={place},mode=max")
    for path in (place / "blobs" / "sha256").iterdir():
        if not path.read_bytes().startswith(b"{"):
            path.write_bytes(b"damaged" + path.read_bytes())
    failed = machine("two")(text, f"--cache-from=type=local,src={place}", check=False)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--cache-to=type=gha", "type=gha is not supported"),
        ("--cache-to=type=local", "local needs dest="),
        ("--cache-from=type=inline", "unknown type `inline`"),
        ("--cache-to=type=inline,mode=most", "mode is min or max"),
        ("--cache-from=type=registry", "registry needs ref="),
    ],
)
def test_bad_caches_are_refused(flag: str, words: str, duckweed: Run, tmp_path: Path) -> None:
    failed = duckweed("build", flag, str(tmp_path))
    assert failed.returncode == 1
    assert words in failed.stderr
