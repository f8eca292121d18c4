"""COPY, ADD and WORKDIR: layers made of files, without a container.

The destination counts from the working directory and its links are followed in the image. COPY takes from the
context or from what `--from` names; ADD also unpacks archives, and fetches URLs and repositories (`remote`).
"""

from __future__ import annotations

import posixpath

from duckweed.build.contexts import is_remote
from duckweed.build.copy_plan import CannotCopy, CopyPlan
from duckweed.build.keys import key_of
from duckweed.build.modes import Chmod
from duckweed.build.owners import parse_owner
from duckweed.build.tree import LayeredTree
from duckweed.dockerfile.lines import parse_heredoc
from duckweed.dockerfile.scope import expand_heredoc, expand_in
from duckweed.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from duckweed.build.layering import NewLayer
    from duckweed.build.origins import Origin
    from duckweed.build.progress import Vertex
    from duckweed.build.remote import Fetched
    from duckweed.build.selection import Source
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState
    from duckweed.dockerfile.instruction import Instruction


class CopyStep:
    """One COPY or ADD on a state."""

    def __init__(self, build: Build, state: StageState, one: Instruction) -> None:
        self._build = build
        self._state = state
        self._one = one
        self._chown = self._expand(one.flag("chown"))
        self._chmod_text = self._expand(one.flag("chmod"))
        self._chmod = self._read_chmod()
        *words, destination = one.arguments
        self.words: list[str] = []
        self.remotes: list[str] = []
        self._files: list[tuple[str, bytes]] = []
        for word in words:
            self._take(word)
        self.destination = self._expand(destination)
        self._origin: Origin = build.origin(one.flag("from"), one)
        self._sources: list[Source] | None = None
        self._fetched: list[Fetched] = []
        self.history = self._history()

    def _expand(self, word: str) -> str:
        return expand_in(self._one, word, self._state.environment)

    def _read_chmod(self) -> Chmod | None:
        try:
            return Chmod(self._chmod_text) if self._chmod_text else None
        except ValueError as error:
            raise self._one.error(str(error)) from None

    def _take(self, word: str) -> None:
        one = self._one
        heredoc = None if one.is_list else parse_heredoc(word)
        if heredoc is not None:
            for found in one.heredocs:
                if found.name == heredoc.name:
                    text = found.content
                    if found.expand:
                        text = expand_heredoc(one, text, self._state.environment)
                    self._files.append((found.name, text.encode("utf-8", "surrogateescape")))
                    break
            return
        word = self._expand(word)
        if is_remote(word):
            if one.keyword == "COPY":
                raise one.error("source can't be a URL for COPY", "use ADD")
            self.remotes.append(word)
        else:
            self.words.append(word)

    def _history(self) -> str:
        one = self._one
        parts = [one.keyword]
        if one.choice("parents"):
            parts.append("--parents")
        if self._chown:
            parts.append(f"--chown={self._chown}")
        if self._chmod_text:
            parts.append(f"--chmod={self._chmod_text}")
        words = [self._expand(word) for word in one.arguments[:-1] if one.is_list or not parse_heredoc(word)]
        parts += [*words, *(f"<<{name}" for name, _ in self._files), self.destination]
        return " ".join(parts) + " # buildkit"

    @property
    def target(self) -> str:
        """The absolute destination; a slash at its end says that it is a directory."""
        return absolute(self._state.workdir, self.destination)

    # Keys.

    def candidate_keys(self) -> Iterator[str]:
        """The keys to look for: first what is cheap to know, then what is exact."""
        facts: dict[str, Any] = {
            "verb": self._one.keyword,
            "target": self.target,
            "chown": self._chown,
            "chmod": self._chmod_text,
            "parents": bool(self._one.choice("parents")),
            "unpack": self._one.choice("unpack"),
            "files": [(name, data.hex()) for name, data in self._files],
        }
        if self.remotes:
            facts["fetched"] = [fetched.identity for fetched in self._fetch()]
        parent = self._state.parent
        if self._origin.identity and self.words:
            words = {"words": self.words, "exclude": self._one.every("exclude")}
            yield key_of("COPY", parent, {**facts, **words, "from": self._origin.identity})
        content = self._origin.content(self._selected()) if self.words else ""
        yield key_of("COPY", parent, {**facts, "content": content})

    def _selected(self) -> list[Source]:
        if self._sources is None:
            parents = bool(self._one.choice("parents"))
            self._sources = self._origin.select(self.words, self._one, parents=parents)
        return self._sources

    def _fetch(self) -> list[Fetched]:
        if not self._fetched:
            checksum = self._expand(self._one.flag("checksum"))
            if checksum and len(self.remotes) + len(self.words) != 1:
                raise self._one.error("checksum can't be specified for multiple sources")
            for address in self.remotes:
                self._fetched.append(self._build.remote.fetch(address, checksum, self._one))
        return self._fetched

    # Doing it.

    def run(self, vertex: Vertex) -> NewLayer:
        """Makes the layer. Raises BuildError, StoreError."""
        build, state = self._build, self._state
        build.layering.ensure(state.chain, state.diff_ids)
        below = LayeredTree(build.layering.layer_directories(state.chain))
        try:
            plan = CopyPlan(
                below,
                owner=parse_owner(self._chown, below) if self._chown else None,
                owner_of=self._origin.owner(),
                chmod=self._chmod,
                now=build.now,
            )
            archives = self._fill(plan)
        except (CannotCopy, ValueError) as error:
            if isinstance(error, BuildError):
                raise
            raise self._one.error(str(error)) from None
        if archives:
            from duckweed.build.unpack import layer_with_archives

            return layer_with_archives(build, state, plan, archives, self.target)
        return add_plan(build, state, plan, inside=bool(self._origin.identity))

    def _fill(self, plan: CopyPlan) -> list[str]:
        """Adds everything to the plan but archives to unpack, which are returned."""
        unpack = self._one.choice("unpack")
        archives = []
        for source in self._selected() if self.words else ():
            node = source.entries[0][1] if source.entries else None
            if self._one.keyword == "ADD" and unpack is not False and node is not None:
                from duckweed.build.unpack import is_archive

                if not source.is_directory and node.kind == "file" and is_archive(node.path):
                    archives.append(node.path)
                    continue
            plan.add(source, self.target)
        for name, data in self._files:
            plan.add_file(name, data, self.target)
        for fetched in self._fetched:
            if unpack and fetched.path is not None:
                archives.append(fetched.path)
            else:
                fetched.put(plan, self.target)
        return archives


def absolute(workdir: str, path: str) -> str:
    """The destination from the root, with the slash at its end kept (`.` means one)."""
    joined = posixpath.join(workdir, path or "./")
    clean = "/" + posixpath.normpath(joined).lstrip("/")
    is_directory = joined.endswith(("/", "/.", "/..")) or path in (".", "..")
    return clean + "/" if is_directory and clean != "/" else clean


def add_plan(build: Build, state: StageState, plan: CopyPlan, *, inside: bool = False) -> NewLayer:
    """The layer of a plan; `inside` when its files are those of layers."""
    request: dict[str, Any] = {"kind": "items", "tree": "/", "items": plan.items("/")}
    if build.epoch is not None:
        request["epoch"] = build.epoch
    return build.layering.add_items(state, request, inside=inside)


class WorkdirStep:
    """WORKDIR: the directory is made when the image has none; the layer is there in any case."""

    def __init__(self, build: Build, state: StageState, path: str) -> None:
        self._build = build
        self._state = state
        self._path = path
        self.history = "WORKDIR " + path

    def candidate_keys(self) -> Iterator[str]:
        """As of a COPY."""
        yield key_of("WORKDIR", self._state.parent, {"path": self._path, "user": self._state.user})

    def run(self, vertex: Vertex) -> NewLayer:
        """Makes the layer. Raises BuildError, StoreError."""
        build, state = self._build, self._state
        build.layering.ensure(state.chain, state.diff_ids)
        below = LayeredTree(build.layering.layer_directories(state.chain))
        owner = parse_owner(state.user, below) if state.user else None
        plan = CopyPlan(below, owner=owner, now=build.now)
        plan.make_directories(below.resolve(self._path.lstrip("/")))
        return add_plan(build, state, plan)
