"""`load`, `save`, `import`, `tag`, `rmi` and `image prune`: how images come, are named and go."""

from __future__ import annotations

import sys

from duckweed.cli.failure import each
from duckweed.cli.parse import BOOL, FILTER, LIST, STRING, Call, Flag, Refused, filters_of, verb
from duckweed.cli.prompt import is_confirmed
from duckweed.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.image import Image


@verb(
    "load",
    "[OPTIONS]",
    flags=(
        Flag("input", "i", STRING, "Read from this file, not from stdin", completes="file"),
        Flag("quiet", "q", BOOL, "Say nothing until it is loaded"),
    ),
    at_most=0,
)
def load(call: Call) -> int:
    """Load images from a docker-archive or OCI archive

    The archive may be compressed with gzip or zstd.
    """
    source = call.get("input", "-")
    if source == "-" and sys.stdin.isatty():
        raise Refused("requested load from stdin, but stdin is empty", "name a file with `-i FILE`")
    for image in call.engine.images.load(source, quiet=call.get("quiet", False)):
        sys.stdout.write("".join(f"{line}\n" for line in _loaded(image)))
    for line in call.engine.news():
        sys.stderr.write(f"note: {line}\n")
    return 0


def _loaded(image: Image) -> list[str]:
    return [f"Loaded image: {tag}" for tag in image.tags] or [f"Loaded image ID: {image.id}"]


@verb(
    "save",
    "[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        Flag("output", "o", STRING, "Write to a file, instead of STDOUT", completes="file"),
        Flag("format", "", STRING, "docker-archive (every engine reads it) or oci-archive"),
    ),
    at_least=1,
    completes="image",
)
def save(call: Call) -> int:
    """Save images to an archive

    A name without a tag means all its tags. The same images give the same bytes.
    """
    target = call.get("output", "-")
    if target == "-" and sys.stdout.isatty():
        raise Refused("cowardly refusing to save to a terminal", "use the -o flag or redirect")
    call.engine.images.save(call.arguments, target, format=call.get("format", "docker-archive"))
    return 0


@verb(
    "import",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    flags=(
        Flag("change", "c", LIST, "Apply a Dockerfile instruction to the image"),
        Flag("message", "m", STRING, "Comment in the image's history"),
        Flag("platform", "", STRING, "Platform of the image (os/arch[/variant])"),
    ),
    at_least=1,
    at_most=2,
    completes="file",
)
def import_(call: Call) -> int:
    """Make an image from a tar of a root file system"""
    source, *reference = call.arguments
    image = call.engine.images.import_(
        source,
        reference[0] if reference else None,
        changes=call.get("change", ()),
        message=call.get("message", ""),
        platform=call.get("platform"),
    )
    sys.stdout.write(f"{image.id}\n")
    return 0


@verb("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", at_least=2, at_most=2, completes="image")
def tag(call: Call) -> int:
    """Give an image another name"""
    source, target = call.arguments
    call.engine.images.tag(source, target)
    return 0


@verb(
    "rmi",
    "[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        Flag("force", "f", BOOL, "Remove it though stopped containers or several names refer to it"),
        Flag("no-prune", "", BOOL, "Keep untagged parents"),
    ),
    at_least=1,
    completes="image",
)
def rmi(call: Call) -> int:
    """Remove images, or names of images"""
    force = call.get("force", False)

    def remove_one(name: str) -> str:
        removed = call.engine.images.remove(name, force=force, no_prune=call.get("no_prune", False))
        return "\n".join(f"{what}: {which}" for entry in removed for what, which in entry.items())

    return each(call.arguments, remove_one)


@verb(
    "image prune",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Remove all images that no container uses, not only untagged ones"),
        Flag("filter", "", FILTER, "Only images that match (until=TIME, label=NAME[=VALUE])"),
        Flag("force", "f", BOOL, "Do not ask"),
    ),
    at_most=0,
)
def prune(call: Call) -> int:
    """Remove unused images"""
    every = call.get("all", False)
    what = "all images without at least one container associated to them" if every else "all dangling images"
    if not is_confirmed(call, f"This will remove {what}."):
        return 0
    report = call.engine.images.prune(all=every, filters=filters_of(call) or None)
    lines = "".join(f"{line}\n" for line in deleted_images(report))
    if lines:
        sys.stdout.write(f"Deleted Images:\n{lines}\n")
    sys.stdout.write(f"Total reclaimed space: {human_size(report['SpaceReclaimed'])}\n")
    return 0


def deleted_images(report: dict[str, Any]) -> list[str]:
    """The lines about what a prune took: `untagged: busybox:latest`, `deleted: sha256:...`."""
    return [
        f"{what.lower()}: {which}" for entry in report["ImagesDeleted"] or () for what, which in entry.items()
    ]
