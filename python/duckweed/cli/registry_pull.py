"""`pull`: an image from a registry into the store, told in Docker's words."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, STRING, Call, Flag, verb
from duckweed.cli.transfer_lines import TransferLines
from duckweed.registry.pulling import PullWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed import _core
    from duckweed.oci.reference import Reference

TLS_FLAG = Flag(
    "tls-verify", "", BOOL, "false: accept any certificate, and plain http; true: neither, even on loopback"
)
TRUST_FLAG = Flag("disable-content-trust", "", BOOL, "Accepted; signatures are not looked at", hidden=True)


@verb(
    "pull",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    flags=(
        Flag("all-tags", "a", BOOL, "Pull all tags of the repository"),
        TRUST_FLAG,
        Flag("platform", "", STRING, "Pull for this platform (os/arch[/variant])"),
        Flag("quiet", "q", BOOL, "Print only what was pulled"),
        TLS_FLAG,
    ),
    at_least=1,
    at_most=1,
)
def pull(call: Call) -> int:
    """Download an image from a registry

    What arrived before an interruption is kept, and the next pull goes on with it.
    """
    from duckweed.oci.reference import Reference

    name = call.arguments[0]
    every = call.get("all_tags", False)
    quiet = call.get("quiet", False)
    reference = Reference.parse(name, default_tag=None)
    if not quiet and not every and not reference.tag and not reference.digest:
        sys.stdout.write("Using default tag: latest\n")
    options = {"all_tags": every, "platform": call.get("platform"), "tls_verify": call.get("tls_verify")}
    pull_shown(call.engine.images, name, quiet, sys.stdout, **options)
    sys.stdout.write(f"{Reference.parse(name, None if every else 'latest')}\n")
    return 0


def pull_shown(images: Any, name: str, quiet: bool, out: Any, **options: Any) -> None:
    """Pulls and tells of it on `out`, where `run` has stderr."""
    if quiet:
        images.pull(name, **options)
        return
    with _ShownPull(out) as watch:
        images.pull(name, watch=watch, **options)


class _ShownPull(PullWatch):
    """Tells on a stream what happens: bars on a terminal, plain lines elsewhere."""

    def __init__(self, out: Any) -> None:
        self._lines = TransferLines(out)

    def __enter__(self) -> _ShownPull:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def resolved(self, reference: Reference) -> None:
        self._lines.begin(f"{reference.tag or reference.digest}: Pulling from {reference.repository}")

    def queued(self, digest: str, size: int) -> None:
        self._lines.say(digest[7:19], "Pulling fs layer")

    def waiting(self, digest: str) -> None:
        self._lines.say(digest[7:19], "Waiting")

    def arriving(self, digest: str, part: _core.Part) -> None:
        self._lines.follow(digest[7:19], "Downloading", lambda: (part.received, part.size))

    def stored(self, digest: str) -> None:
        self._lines.say(digest[7:19], "Download complete")

    def taken(self, digest: str) -> None:
        known = self._lines.has(digest[7:19])
        self._lines.say(digest[7:19], "Pull complete" if known else "Already exists")

    def ended(self, reference: Reference, digest: str, is_new: bool) -> None:
        what = "Downloaded newer image" if is_new else "Image is up to date"
        self._lines.end(f"Digest: {digest}\nStatus: {what} for {reference.familiar}")
