"""Annotations: what `--annotation` and the `annotation.KEY=VALUE` options of an output put on manifests.

`KEY=VALUE` is for the manifest; `manifest:`, `index:`, `manifest-descriptor:` and `index-descriptor:` before
it (several with commas, a platform in brackets) say otherwise.
"""

from __future__ import annotations

import re

from duckweed.errors import UsageError
from duckweed.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from duckweed.oci.manifest import Descriptor

_LEVELS = ("manifest", "index", "manifest-descriptor", "index-descriptor")
_LEAD = re.compile(r"((?:(?:manifest|index)(?:-descriptor)?(?:\[[^\]]*\])?,?)+):(.*)\Z", re.DOTALL)
_OPTION = re.compile(
    r"annotation(?:-(manifest|index|manifest-descriptor|index-descriptor))?(?:\[(.*)\])?\.(.+)\Z"
)


class Annotations:
    """The annotations of one output, by level and platform (None: for all)."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: list[tuple[str, Platform | None, str, str]] = []

    @classmethod
    def parse(cls, texts: Iterable[str], options: Mapping[str, str] | None = None) -> Annotations:
        """Reads the flag's values, and an output's own options. Raises UsageError."""
        found = cls()
        for text in texts:
            found._read(text)
        for option, value in (options or {}).items():
            match = _OPTION.match(option)
            if match:
                platform = Platform.parse(match[2]) if match[2] else None
                found._given.append((match[1] or "manifest", platform, match[3], value))
        return found

    def _read(self, text: str) -> None:
        match = _LEAD.match(text)
        levels, pair = (match[1].split(","), match[2]) if match else (["manifest"], text)
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(
                f"invalid annotation `{text}`: expected KEY=VALUE",
                f"one of `{': '.join(_LEVELS)}:` may stand before it",
                exit_code=1,
            )
        for level in filter(None, levels):
            name, _, platform = level.rstrip("]").partition("[")
            self._given.append((name, Platform.parse(platform) if platform else None, key, value))

    def at(self, level: str, platform: Platform | None = None) -> dict[str, str]:
        """The annotations of a level, for an image of this platform."""
        return {
            key: value
            for name, wanted, key, value in self._given
            if name == level and (wanted is None or wanted == platform)
        }

    def check_single(self) -> None:
        """Raises UsageError for annotations of an index where none is written."""
        for name, _, key, _ in self._given:
            if name.startswith("index"):
                raise UsageError(
                    f"index annotation `{key}`: one platform alone has no index",
                    "name several with `--platform`, or annotate the `manifest:`",
                    exit_code=1,
                )


def with_annotations(entry: Descriptor, found: dict[str, str]) -> Descriptor:
    """A descriptor with annotations on it."""
    entry.annotations = {**entry.annotations, **found}
    return entry
