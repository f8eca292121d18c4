"""What a build is asked to do, checked once for the command line and for scripts."""

from __future__ import annotations

from duckweed.containers.environment import parse_labels
from duckweed.containers.network import is_named, parse_host
from duckweed.containers.options import Options, parse
from duckweed.errors import Unsupported, UsageError
from duckweed.oci.platform import Platform
from duckweed.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from duckweed.build.cache_places import CacheSpec

_LISTS = (
    "add_host",
    "allow",
    "annotation",
    "attest",
    "build_context",
    "cache_from",
    "cache_to",
    "no_cache_filter",
    "output",
    "platform",
    "secret",
    "ssh",
    "tag",
    "ulimit",
)


class BuildRequest:
    """The checked request; names are Docker's long flag names with `_` for `-`."""

    def __init__(self, context: str, given: Mapping[str, Any]) -> None:
        self.context = context
        values = dict(given)
        self.file: str = values.pop("file", None) or ""
        self.dockerfile: bytes | None = _bytes(values.pop("dockerfile", None))
        self.target: str = values.pop("target", None) or ""
        self.no_cache = bool(values.pop("no_cache", False))
        self.pull = bool(values.pop("pull", False))
        self.push = bool(values.pop("push", False))
        self.load = bool(values.pop("load", False))
        self.network: str = values.pop("network", None) or "default"
        self.isolation: str = values.pop("isolation", None) or "auto"
        self.shm_size = values.pop("shm_size", None)
        self.iidfile: str = values.pop("iidfile", None) or ""
        self.metadata_file: str = values.pop("metadata_file", None) or ""
        self.provenance = values.pop("provenance", None)
        self.sbom = values.pop("sbom", None)
        lists = {name: _list(values.pop(name, None)) for name in _LISTS}
        self.add_host: list[str] = lists["add_host"]
        self.allow: list[str] = lists["allow"]
        self.annotation: list[str] = lists["annotation"]
        self.no_cache_filter = [name for text in lists["no_cache_filter"] for name in text.split(",")]
        self.output: list[str] = lists["output"]
        self.secret: list[str] = lists["secret"]
        self.ssh: list[str] = lists["ssh"]
        self.ulimit: list[str] = lists["ulimit"]
        self.labels = dict(parse_labels(_pairs(values.pop("label", None))))
        self.build_args = _build_args(values.pop("build_arg", None))
        self.cache_from = _caches(lists["cache_from"], "cache-from")
        self.cache_to = _caches(lists["cache_to"], "cache-to")
        wants_inline = self.build_args.get("BUILDKIT_INLINE_CACHE", "").lower() in ("1", "true")
        self.inline_cache = wants_inline or any(spec.kind == "inline" for spec in self.cache_to)
        self.contexts = _named(lists["build_context"])
        self.platforms = [Platform.parse(word) for text in lists["platform"] for word in text.split(",")]
        self.tags = [_reference(text) for text in lists["tag"]]
        if values:
            raise UsageError(f"unknown flag: --{next(iter(values)).replace('_', '-')}", "see `build --help`")
        self._check()

    def _check(self) -> None:
        for host in self.add_host:
            parse_host(host)
        network = self.run_options().network
        if is_named(network) or network.startswith("container:"):
            raise Unsupported(
                f"building on the network `{self.network}` is not in this release",
                "use `--network default`, `none` or `host`",
                exit_code=1,
            )

    @property
    def wants_records(self) -> bool:
        """Whether somebody asks afterwards what was found and made."""
        return self.inline_cache or bool(self.cache_to)

    def run_options(self) -> Options:
        """The options that every RUN of this build has."""
        given: dict[str, Any] = {"add_host": self.add_host, "ulimit": self.ulimit}
        if self.network != "default":
            given["network"] = self.network
        if self.shm_size is not None:
            given["shm_size"] = self.shm_size
        return parse(None, given)


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(each) for each in value]


def _pairs(value: Any) -> Any:
    if isinstance(value, dict):
        return [f"{name}={text}" for name, text in value.items()]
    return _list(value)


def _build_args(value: Any) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` with the value of our own environment; a mapping as it is."""
    import os

    args: dict[str, str] = {}
    if isinstance(value, dict):
        return {str(name): str(text) for name, text in value.items()}
    for text in _list(value):
        name, equals, given = text.partition("=")
        if equals:
            args[name] = given
        elif name in os.environ:
            args[name] = os.environ[name]
    return args


def _named(specs: Iterable[str]) -> dict[str, str]:
    """`--build-context NAME=PLACE`."""
    contexts: dict[str, str] = {}
    for spec in specs:
        name, equals, place = spec.partition("=")
        if not equals or not name or not place:
            raise UsageError(f"invalid context value: {spec}, expected key=value")
        contexts[name.lower()] = place
    return contexts


def _caches(texts: Iterable[str], flag: str) -> list[CacheSpec]:
    texts = list(texts)
    if not texts:
        return []
    from duckweed.build.cache_places import CacheSpec

    return [CacheSpec.parse(text, flag) for text in texts]


def _reference(text: str) -> Reference:
    try:
        reference = Reference.parse(text)
    except UsageError as error:
        raise UsageError(
            f'invalid tag "{text}": {error.message}',
            error.hint or "a tag is `NAME` or `NAME:TAG`",
            exit_code=1,
        ) from None
    if reference.digest:
        raise UsageError(f'invalid tag "{text}": it has a digest', exit_code=1)
    return reference
