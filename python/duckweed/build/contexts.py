"""Build contexts: a directory, a tar on stdin or behind a URL, a git repository; and their ignore files.

A directory is used in place. What comes from elsewhere is unpacked into the store's tmp/ and gone with the
build. The ignore file is `<Dockerfile>.dockerignore` beside the Dockerfile if there is one, else
`.containerignore` or `.dockerignore` at the top of the context.
"""

from __future__ import annotations

import hashlib
import os
import re

from duckweed.build.file_digests import FileDigests
from duckweed.build.tree import DirectoryTree
from duckweed.dockerfile.ignore import Matcher, read_patterns
from duckweed.errors import BuildError, UsageError
from duckweed.store import scratch
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from duckweed.store.layout import Layout

_IGNORE_FILES = (".containerignore", ".dockerignore")
_GIT = re.compile(r"(?:git://|git@|ssh://|github\.com/|https?://.*\.git(?:[#?]|\Z))")
DOCKERFILES = ("Dockerfile", "Containerfile")


def is_git(text: str) -> bool:
    """Whether a context or a source is a repository, by its spelling."""
    return _GIT.match(text) is not None


def is_remote(word: str) -> bool:
    """Whether a source of ADD is a URL or a repository."""
    return word.startswith(("http://", "https://")) or (is_git(word) and not os.path.exists(word))


class Context:
    """A directory of files with what must not be seen of it. `close` removes what was made for it."""

    def __init__(self, layout: Layout, root: str, name: str = "context") -> None:
        self.root = os.path.realpath(root)
        self.name = name
        self.ignore_name = ""
        self.matcher: Matcher | None = None
        word = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:32]
        self.digests = FileDigests(layout, f"{layout.build}/files/{word}.json")
        self._temporary: list[str] = []
        self._tree: DirectoryTree | None = None

    @property
    def tree(self) -> DirectoryTree:
        """What the build sees."""
        if self._tree is None:
            self._tree = DirectoryTree(self.root, self.matcher)
        return self._tree

    def read_ignore(self, dockerfile: str | None) -> None:
        """Finds and reads the ignore file. `dockerfile` is the path of the Dockerfile on this machine."""
        candidates = [f"{dockerfile}.dockerignore"] if dockerfile else []
        candidates += [f"{self.root}/{name}" for name in _IGNORE_FILES]
        for path in candidates:
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as file:
                    patterns = read_patterns(file.read())
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                raise BuildError(f"cannot read `{path}`: {(error.strerror or '').lower()}") from None
            self.ignore_name = os.path.basename(path)
            try:
                self.matcher = Matcher(patterns)
            except ValueError as error:
                raise BuildError(f"`{self.ignore_name}`: {error}") from None
            return

    def hint(self, word: str) -> str:
        """Why a file may not be there."""
        path = word.strip("/")
        if self.matcher and self.matcher.matches(path) and os.path.lexists(f"{self.root}/{path}"):
            return f"`{self.ignore_name}` leaves it out"
        return ""

    def remove_later(self, path: str) -> None:
        """A directory that goes with the context."""
        self._temporary.append(path)

    def close(self) -> None:
        """Keeps what was learnt, removes what was unpacked."""
        if self._temporary:
            for path in self._temporary:
                remove_tree(path)
        else:
            self.digests.keep()


def open_directory(layout: Layout, path: str, name: str = "context") -> Context:
    """A directory as it is. Raises UsageError."""
    if not os.path.isdir(path):
        reason = "is not a directory" if os.path.exists(path) else "not found"
        raise UsageError(
            f'unable to prepare {name}: path "{path}" {reason}',
            "the argument is a directory, a git URL, or `-` for a Dockerfile or a tar on stdin",
            exit_code=1,
        )
    return Context(layout, path, name)


def open_stdin(layout: Layout, stream: BinaryIO) -> tuple[Context, bytes | None]:
    """`-`: a tar (in any of the usual compressions), or a Dockerfile with an empty context."""
    from duckweed.build.unpack import is_archive, unpack_context

    directory = scratch.new_directory(layout, "context")
    context = Context(layout, directory)
    context.remove_later(directory)
    whole = directory + ".input"
    try:
        with open(whole, "xb") as file:
            while True:
                chunk = stream.read(1 << 20)
                if not chunk:
                    break
                file.write(chunk)
        if os.path.getsize(whole) == 0:
            raise UsageError("unable to evaluate context on stdin: it is empty", exit_code=1)
        if is_archive(whole):
            unpack_context(layout, whole, directory)
            return context, None
        with open(whole, "rb") as file:
            return context, file.read()
    except BaseException:
        context.close()
        raise
    finally:
        scratch.discard_file(whole)


def open_url(layout: Layout, url: str) -> tuple[Context, bytes | None]:
    """A repository, a tar behind a URL, or a Dockerfile behind one. Raises BuildError."""
    from duckweed.build.remote import checkout, download
    from duckweed.build.unpack import is_archive, unpack_context

    directory = scratch.new_directory(layout, "context")
    context = Context(layout, directory)
    context.remove_later(directory)
    try:
        if is_git(url):
            context.root = checkout(url, directory, keep_git=False)[0]
            return context, None
        whole = directory + "/download"
        download(url, whole)
        if is_archive(whole):
            os.mkdir(directory + "/tree")
            unpack_context(layout, whole, directory + "/tree")
            context.root = directory + "/tree"
            return context, None
        with open(whole, "rb") as file:
            content = file.read()
        os.unlink(whole)
        return context, content
    except BaseException:
        context.close()
        raise


def open_context(layout: Layout, text: str, stream: BinaryIO) -> tuple[Context, bytes | None]:
    """The context that the argument of `build` means, and the Dockerfile when that is what came."""
    if text == "-":
        return open_stdin(layout, stream)
    is_url = is_git(text) or text.startswith(("http://", "https://"))
    if is_url and not os.path.isdir(text):
        return open_url(layout, text)
    return open_directory(layout, text), None


def find_dockerfile(context: Context, given: str, cwd: str) -> tuple[str, str]:
    """The Dockerfile's path on this machine, and the name it is called by. Raises UsageError."""
    if given:
        for base in (cwd, context.root):
            path = os.path.join(base, given)
            if os.path.isfile(path):
                return path, os.path.basename(given)
        raise UsageError(
            f"failed to read dockerfile: open {given}: no such file or directory",
            "name it with `-f FILE`; the path counts from here or from the context",
            exit_code=1,
        )
    for name in DOCKERFILES:
        path = f"{context.root}/{name}"
        if os.path.isfile(path):
            return path, name
    raise UsageError(
        "failed to read dockerfile: open Dockerfile: no such file or directory",
        f"there is no Dockerfile or Containerfile in `{context.root}`; name one with `-f FILE`",
        exit_code=1,
    )
