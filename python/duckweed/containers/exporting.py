"""`export`: a container's files as one tar, as the container sees them but for its mounts."""

from __future__ import annotations

from duckweed.containers import tree_request
from duckweed.errors import Unsupported
from duckweed.store.output_file import open_output
from duckweed.store.tree_stream import TreeStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from duckweed.containers.container import Container


def export(container: Container, target: str | int | BinaryIO) -> None:
    """Writes the tar. Raises Unsupported for the image `host`, StoreError."""
    if container.document["rootfs"] == "host":
        raise Unsupported(
            "cannot export a container of `host`: its files are this machine's",
            "take out what you need with `duckweed cp`",
            exit_code=1,
        )
    request = tree_request.of_everything(container)
    if not tree_request.is_filled(container):
        # Never started: the whole copy would be the image's layers.
        request = {"kind": "merged", "trees": request["lower"], "owners": request["owners"]}
    with open_output(target) as fd, TreeStream(request, tree_request.maps_of(container), fd) as stream:
        stream.check()
