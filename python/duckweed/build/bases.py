"""Base images: found in the store, or pulled."""

from __future__ import annotations

from duckweed.errors import AccessDenied, NoSuchImage, NotInRegistry, RegistryError, UsageError
from duckweed.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.build.progress import Vertex
    from duckweed.engine import Engine
    from duckweed.store.image import Image


def find_base(engine: Engine, name: str, platform: Platform, pull: bool, vertex: Vertex) -> Image:
    """The image that FROM means. Raises NoSuchImage, UsageError.

    One for another platform is taken only when the registry has none that suits.
    """
    if pull:
        return _pulled(engine, name, platform, vertex)
    try:
        image = engine.images.get(name)
    except NoSuchImage:
        return _pulled(engine, name, platform, vertex)
    if image.is_host:
        raise UsageError(
            "`host` is the machine itself and no image to build on",
            "import a tree with `duckweed import` instead",
            exit_code=1,
        )
    if suits(image, platform):
        return image
    try:
        return _pulled_beside(engine, name, platform, image, vertex)
    except (RegistryError, NotInRegistry, AccessDenied):
        return image


def suits(image: Image, platform: Platform) -> bool:
    """Whether an image is for a platform; one that does not say what it is for is for all."""
    stated = Platform.of(image.config)
    return not stated.architecture or stated.rank(platform) is not None


def _pulled(engine: Engine, name: str, platform: Platform, vertex: Vertex) -> Image:
    from duckweed.build.base_watch import BaseWatch

    engine.images.pull(name, platform=str(platform), watch=BaseWatch(vertex))
    return engine.images.get(name)


def _pulled_beside(engine: Engine, name: str, platform: Platform, known: Image, vertex: Vertex) -> Image:
    """The image of another platform; its name goes on to mean the one that is here."""
    from duckweed.build.base_watch import BaseWatch

    image = engine.images.pull(name, platform=str(platform), watch=BaseWatch(vertex))
    try:
        return engine.images.get(image.id)
    finally:
        if "@" not in name:
            engine.images.tag(known.id, name)
