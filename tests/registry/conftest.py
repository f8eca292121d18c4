"""A plain registry that most tests share, images in it, and stores to pull into."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import images
from registry.between import Between, Passed, Trouble
from registry.publish import Published, publish, random_layer
from registry.server import RegistryServer


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A plain registry."""
    server = RegistryServer(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def layers() -> list[bytes]:
    """The layers of an image that runs: busybox, and three that are large and do not compress."""
    return [images.busybox_layer(), *(random_layer(seed, 3_000_000) for seed in range(3))]


@pytest.fixture(scope="session")
def image(registry: RegistryServer, layers: list[bytes]) -> Published:
    """`team/app:latest` in the shared registry, four layers."""
    return publish(registry.name, "team/app", "latest", layers)


@pytest.fixture
def between(registry: RegistryServer) -> Iterator[Callable[..., Between]]:
    """`between(decide)` makes a server before the shared registry."""
    made: list[Between] = []

    def make(decide: Callable[[Passed], Trouble | None] = lambda _: None) -> Between:
        made.append(Between(registry.name, decide))
        return made[-1]

    yield make
    for one in made:
        one.stop()
