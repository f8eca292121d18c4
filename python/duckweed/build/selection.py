"""What the sources of a COPY or ADD mean: wildcards, links, exclusions, and the entries of directories.

A source that is a link is followed, the links in a directory are not. A directory stands for what is in it. A
wildcard is matched against whole paths beneath its fixed part; one that fits nothing is no error.
"""

from __future__ import annotations

import hashlib
import os

from duckweed.build.tree import Node
from duckweed.dockerfile.glob import Glob, clean, has_wildcard, unescape
from duckweed.dockerfile.ignore import Matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckweed.build.tree import Tree


class NotThere(ValueError):
    """A source without a wildcard that is not in the tree."""


class Source:
    """One thing to copy. `name` is what it is called in a directory; `entries` are (path beneath it, node),
    each directory before what is in it; "" is the thing itself. `keeps_path` is `--parents`.
    """

    __slots__ = ("entries", "is_directory", "keeps_path", "name")

    def __init__(self, name: str, entries: list[tuple[str, Node]], *, keeps_path: bool = False) -> None:
        self.name = name
        self.entries = entries
        self.keeps_path = keeps_path
        self.is_directory = keeps_path or (bool(entries) and entries[0][1].is_directory)


def select(tree: Tree, word: str, *, exclude: Matcher | None = None, parents: bool = False) -> list[Source]:
    """The sources that one word of the instruction means. Raises NotThere, BadPattern, OSError."""
    if parents:
        return _with_parents(tree, word, exclude)
    path = clean("/" + word).lstrip("/")
    sources = []
    for match in _matches(tree, path):
        at = tree.resolve(match)
        node = tree.node(at)
        if node is None:
            raise NotThere(f'"/{unescape(path)}": not found')
        name = match.rpartition("/")[2]
        if not node.is_directory:
            if exclude is None or not (has_wildcard(path) and exclude.matches(name)):
                sources.append(Source(name, [("", node)]))
            continue
        sources.append(Source(name, [("", node), *_walk(tree, at, "", exclude, None)]))
    return sources


def _matches(tree: Tree, path: str) -> list[str]:
    if not has_wildcard(path):
        return [unescape(path)]
    fixed, rest = _split(path)
    base = tree.resolve(fixed)
    return [f"{base}/{found}".lstrip("/") for found in _find(tree, base, "", Glob(rest), rest.count("/"))]


def _split(path: str) -> tuple[str, str]:
    """The part before the first wildcard, and the rest."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if has_wildcard(part):
            return "/".join(map(unescape, parts[:index])), "/".join(parts[index:])
    return unescape(path), ""


def _find(tree: Tree, base: str, below: str, glob: Glob, depth: int) -> Iterator[str]:
    """A pattern has as many slashes as what it matches: nothing deeper is looked at."""
    directory = f"{base}/{below}".strip("/")
    node = tree.node(directory)
    if node is None or not node.is_directory:
        return
    for name in tree.names(directory):
        here = f"{below}/{name}" if below else name
        if here.count("/") == depth:
            if glob.matches(here):
                yield here
        else:
            yield from _find(tree, base, here, glob, depth)


def _walk(
    tree: Tree, top: str, below: str, exclude: Matcher | None, above: tuple[bool, ...] | None
) -> Iterator[tuple[str, Node]]:
    """What is in a directory, without what is excluded; a directory with an exception in it stays."""
    for name in tree.names(f"{top}/{below}".strip("/")):
        here = f"{below}/{name}" if below else name
        node = tree.node(f"{top}/{here}".lstrip("/"))
        if node is None:
            continue
        hidden, matched = exclude.below(here, above) if exclude else (False, None)
        if not node.is_directory:
            if not hidden:
                yield here, node
            continue
        if not hidden:
            yield here, node
            yield from _walk(tree, top, here, exclude, matched)
        elif exclude is not None and exclude.may_have_exceptions_below(here):
            inner = list(_walk(tree, top, here, exclude, matched))
            if inner:
                yield here, node
                yield from inner


def _with_parents(tree: Tree, word: str, exclude: Matcher | None) -> list[Source]:
    """`--parents`: the matches keep their paths, from the `/./` on if there is one."""
    fixed, pivot, pattern = word.partition("/./")
    if not pivot:
        fixed, pattern = "", word
    pattern = clean("/" + pattern).lstrip("/")
    base = tree.resolve(clean("/" + fixed).lstrip("/"))
    top = tree.node(base)
    if top is None or not top.is_directory:
        raise NotThere(f'"/{base}": not found')
    if not pattern:
        return [Source("", list(_walk(tree, base, "", exclude, None)), keeps_path=True)]
    wanted = Matcher([pattern])
    entries: dict[str, Node] = {}
    for here, node in _walk(tree, base, "", exclude, None):
        if wanted.matches(here):
            for parent in _parents(here):
                above = tree.node(f"{base}/{parent}".lstrip("/"))
                if above is not None:
                    entries.setdefault(parent, above)
            entries[here] = node
    if not entries and not has_wildcard(word):
        raise NotThere(f'"/{pattern}": not found')
    return [Source("", list(entries.items()), keeps_path=True)]


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def content_digest(
    sources: list[Source],
    file_digest: Callable[[str, os.stat_result], str],
    owner: Callable[[Node], tuple[int, int]],
) -> str:
    """One digest for all that would be copied: names, kinds, modes, owners, contents; no times."""
    state = hashlib.sha256()
    for source in sources:
        state.update(f"\0source {source.is_directory} {source.keeps_path}\0".encode())
        state.update(os.fsencode(source.name))
        for path, node in source.entries:
            uid, gid = owner(node)
            kind = node.kind
            state.update(os.fsencode(f"\0{path}\0{kind} {node.mode:o} {uid} {gid} "))
            if kind == "file":
                state.update(file_digest(node.path, node.facts).encode())
            elif kind == "symlink":
                state.update(os.fsencode(os.readlink(node.path)))
            elif kind in ("char", "block"):
                state.update(
                    str(node.facts.st_rdev if node.record is None else node.record.get("dev")).encode()
                )
            if kind in ("file", "dir"):
                for name in sorted(_xattrs(node.path)):
                    value = os.getxattr(node.path, name, follow_symlinks=False)
                    state.update(b"\0" + os.fsencode(name) + b"=" + value)
    return state.hexdigest()


def _xattrs(path: str) -> list[str]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []
    return [name for name in names if name.startswith("user.") and not name.startswith("user.overlay.")]
