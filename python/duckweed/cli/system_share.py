"""`system share`: a store that other users may run images from."""

from __future__ import annotations

import sys

from duckweed.cli.parse import Call, verb


@verb("system share", "DIRECTORY IMAGE [IMAGE...]", at_least=2, completes="image")
def system_share(call: Call) -> int:
    """Put images into a directory from which every user can run them

    The others set DUCKWEED_READ_STORES to the directory. `DUCKWEED_ROOT=DIRECTORY duckweed rmi IMAGE` takes
    an image out again, when nobody runs it.
    """
    directory, *names = call.arguments
    for image in call.engine.images.share(directory, names):
        sys.stdout.write("".join(f"Shared image: {name}\n" for name in image.tags or [image.id]))
    return 0
