"""duckweed: a rootless, daemonless, Docker-compatible container engine.

import duckweed

engine = duckweed.Engine()
result = engine.run("busybox", ["echo", "hello"])
print(result.stdout)

Everything public is named here and nothing is imported before it is used: `import duckweed` costs next to
nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.containers.container import Container
    from duckweed.engine import Engine, Result
    from duckweed.errors import (
        BadImage,
        CommandFailed,
        Conflict,
        DuckweedError,
        InUse,
        NameInUse,
        NoSuchContainer,
        NoSuchImage,
        NoSuchVolume,
        NotFound,
        StartError,
        StoreError,
        Unsupported,
        UsageError,
        WrongState,
    )
    from duckweed.store.image import Image
    from duckweed.store.volumes import Volume

__version__ = "0.1.0"

__all__ = [
    "BadImage",
    "CommandFailed",
    "Conflict",
    "Container",
    "DuckweedError",
    "Engine",
    "Image",
    "InUse",
    "NameInUse",
    "NoSuchContainer",
    "NoSuchImage",
    "NoSuchVolume",
    "NotFound",
    "Result",
    "StartError",
    "StoreError",
    "Unsupported",
    "UsageError",
    "Volume",
    "WrongState",
    "__version__",
]

_PLACES = {
    "Engine": "duckweed.engine",
    "Result": "duckweed.engine",
    "Container": "duckweed.containers.container",
    "Image": "duckweed.store.image",
    "Volume": "duckweed.store.volumes",
}


def __getattr__(name: str) -> object:
    if name in __all__:
        import importlib

        return getattr(importlib.import_module(_PLACES.get(name, "duckweed.errors")), name)
    raise AttributeError(f"module 'duckweed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
