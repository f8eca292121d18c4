"""`push`: an image from the store into a registry, told in Docker's words."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, STRING, Call, Flag, verb
from duckweed.cli.registry_pull import TLS_FLAG, TRUST_FLAG
from duckweed.cli.transfer_lines import TransferLines
from duckweed.registry.pushing import PushWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed import _core
    from duckweed.oci.reference import Reference


@verb(
    "push",
    "[OPTIONS] NAME[:TAG]",
    flags=(
        Flag("all-tags", "a", BOOL, "Push all tags of the repository"),
        Flag(
            "compression-format", "", STRING, "gzip: pack zstd layers anew, for tools that cannot read them"
        ),
        TRUST_FLAG,
        Flag("quiet", "q", BOOL, "Print only what was pushed"),
        TLS_FLAG,
    ),
    at_least=1,
    at_most=1,
    completes="image",
)
def push(call: Call) -> int:
    """Upload an image to a registry

    Layers go as they are kept; what the registry has already is not sent.
    """
    quiet = call.get("quiet", False)
    name = call.arguments[0]
    options = {
        "all_tags": call.get("all_tags", False),
        "compression_format": call.get("compression_format"),
        "tls_verify": call.get("tls_verify"),
    }
    images = call.engine.images
    if quiet:
        pushed = images.push(name, **options)
        sys.stdout.write("".join(f"{one.reference.familiar}\n" for one in pushed))
        return 0
    watch = _ShownPush()
    try:
        images.push(name, watch=watch, **options)
    finally:
        watch.close()
    return 0


class _ShownPush(PushWatch):
    """Tells on stdout what happens."""

    def __init__(self) -> None:
        self._lines = TransferLines()

    def close(self) -> None:
        self._lines.close()

    def begun(self, reference: Reference) -> None:
        self._lines.begin(f"The push refers to repository [{reference.name}]")

    def prepared(self, digest: str) -> None:
        self._lines.say(digest[7:19], "Preparing")

    def present(self, digest: str) -> None:
        self._lines.say(digest[7:19], "Layer already exists")

    def mounted(self, digest: str, source: str) -> None:
        self._lines.say(digest[7:19], f"Mounted from {source}")

    def sending(self, digest: str, sent: _core.Counter, size: int) -> None:
        self._lines.follow(digest[7:19], "Pushing", lambda: (min(sent.value, size), size))

    def pushed(self, digest: str) -> None:
        self._lines.say(digest[7:19], "Pushed")

    def ended(self, reference: Reference, digest: str, size: int) -> None:
        self._lines.end(f"{reference.tag}: digest: {digest} size: {size}")
