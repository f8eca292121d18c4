"""Image references: from what a user types to one canonical name.

`alpine` means `docker.io/library/alpine:latest`. The rules and the error words are Docker's, and odd in one
place: the first component is a registry only if it could not be a user's name, that is, if it has a dot or
a colon, is `localhost`, or has a capital letter. What is shown to users is the familiar form, with
`docker.io/library/` left off. Grammar: the `reference` package of the distribution project.
"""

from __future__ import annotations

import re

from duckweed.errors import UsageError

DEFAULT_REGISTRY = "docker.io"
_LEGACY_REGISTRY = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LIMIT = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?\Z")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\Z")
_SHA256 = re.compile(r"sha256:[a-f0-9]{64}\Z")
_WHOLE_ID = re.compile(r"[a-f0-9]{64}\Z")


class Reference:
    """A parsed reference: `registry`, `repository`, and a `tag`, a `digest`, both or neither."""

    __slots__ = ("digest", "registry", "repository", "tag")

    def __init__(
        self, registry: str, repository: str, tag: str | None = None, digest: str | None = None
    ) -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest

    @classmethod
    def parse(cls, text: str, default_tag: str | None = "latest") -> Reference:
        """Reads `[registry/]repository[:tag][@digest]`; a name alone gets `default_tag`. Raises UsageError
        in Docker's words.

        >>> Reference.parse("localhost:5000/team/app:v2").repository
        'team/app'
        >>> str(Reference.parse("busybox"))
        'docker.io/library/busybox:latest'
        """
        name, at, digest = text.partition("@")
        if at and not _SHA256.match(digest):
            known = digest[:7] == "sha256:" or not _DIGEST.match(digest)
            raise UsageError("invalid reference format" if known else "unsupported digest algorithm")
        name, tag = _split_tag(name)
        if _WHOLE_ID.match(name) and not tag and not at:
            raise UsageError(f"invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")
        registry, repository = _split_registry(name)
        if not _REPOSITORY.match(repository):
            if _REPOSITORY.match(repository.lower()):
                raise UsageError(
                    f"invalid reference format: repository name ({repository}) must be lowercase"
                )
            raise UsageError("invalid reference format")
        if not _REGISTRY.match(registry) or (tag is not None and not _TAG.match(tag)):
            raise UsageError("invalid reference format")
        if len(repository) > _NAME_LIMIT:
            raise UsageError(f"repository name must not be more than {_NAME_LIMIT} characters")
        if tag is None and not at:
            tag = default_tag
        return cls(registry, repository, tag, digest or None)

    @property
    def name(self) -> str:
        """Registry and repository: `docker.io/library/busybox`."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as users see it: `busybox`."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        official = self.repository.startswith(_OFFICIAL) and "/" not in self.repository[len(_OFFICIAL) :]
        return self.repository[len(_OFFICIAL) :] if official else self.repository

    @property
    def familiar(self) -> str:
        """The whole reference as users see it: `busybox:latest`."""
        return self.familiar_name + self._suffix()

    def with_tag(self, tag: str | None) -> Reference:
        """The same repository under another tag, without a digest."""
        return Reference(self.registry, self.repository, tag)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tail = name.rpartition(":")
    if colon and "/" not in tail:
        return head, tail
    return name, None


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    registry, repository = (first, rest) if is_registry else (DEFAULT_REGISTRY, name)
    if registry == _LEGACY_REGISTRY:
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    return registry, repository
