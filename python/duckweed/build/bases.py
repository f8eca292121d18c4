"""Base images: found in the store, or pulled."""

from __future__ import annotations

from duckweed.errors import NoSuchImage, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.build.progress import Vertex
    from duckweed.engine import Engine
    from duckweed.oci.platform import Platform
    from duckweed.store.image import Image


def find_base(engine: Engine, name: str, platform: Platform, pull: bool, vertex: Vertex) -> Image:
    """The image that FROM means. Raises NoSuchImage, UsageError."""
    if pull:
        return _pulled(engine, name, platform)
    try:
        image = engine.images.get(name)
    except NoSuchImage:
        return _pulled(engine, name, platform)
    if image.is_host:
        raise UsageError(
            "`host` is the machine itself and no image to build on",
            "import a tree with `duckweed import` instead",
            exit_code=1,
        )
    return image


def _pulled(engine: Engine, name: str, platform: Platform) -> Image:
    engine.images.pull(name, platform=str(platform))
    return engine.images.get(name)
