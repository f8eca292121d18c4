"""Origins: where a COPY or a bind mount takes from. The context, a directory with a name, a stage, an image.

An origin is known by two digests. The cheap one stands for all of it (the layers' chain id); the other is
over what is taken, so that a stage that was built anew and holds the same there changes nothing. A directory
has the second only.
"""

from __future__ import annotations

import os

from duckweed.build.copy_plan import Entry
from duckweed.build.file_digests import file_digest
from duckweed.build.owners import everything_is_roots, owner_in_layers
from duckweed.build.selection import NotThere, content_digest, select
from duckweed.build.tree import LayeredTree
from duckweed.dockerfile.ignore import Matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from duckweed.build.contexts import Context
    from duckweed.build.layering import Layering
    from duckweed.build.selection import Source
    from duckweed.build.state import StageState
    from duckweed.build.tree import Node, Tree
    from duckweed.containers.place import Place
    from duckweed.dockerfile.instruction import Instruction


class Origin:
    """A place to take from. `identity` stands for all of it, "" where only its parts have digests; `root` is
    the directory of the machine that all its files are beneath.
    """

    identity = ""
    root = "/"

    def tree(self) -> Tree:
        """What is in it. Raises BuildError, StoreError."""
        raise NotImplementedError

    def owner(self) -> Callable[[Node], tuple[int, int]]:
        """Whose a file is inside a container."""
        raise NotImplementedError

    def digest_file(self) -> Callable[..., str]:
        """How to read a file's digest."""
        raise NotImplementedError

    def select(self, words: list[str], one: Instruction, *, parents: bool = False) -> list[Source]:
        """The sources that the words mean. Raises DockerfileError naming the one that is not there."""
        exclude = Matcher(one.every("exclude")) if one.every("exclude") else None
        sources = []
        for word in words:
            try:
                sources += select(self.tree(), word, exclude=exclude, parents=parents)
            except NotThere as error:
                raise one.error(str(error), self.hint(word)) from None
            except PermissionError as error:
                raise one.error(
                    f"cannot look into `{error.filename}`: it belongs to another id",
                    "make the directory readable in the stage that has it, as with `chmod a+rx`",
                ) from None
            except ValueError as error:
                raise one.error(str(error)) from None
        return sources

    def hint(self, word: str) -> str:
        """What to say when a source is not there."""
        return ""

    def content(self, sources: list[Source]) -> str:
        """One digest for all of these. Raises StoreError."""
        return content_digest(sources, self.digest_file(), self.owner())

    def digest_of(self, path: str, one: Instruction) -> str:
        """One digest for a path and all beneath it."""
        return self.content(self.select([path or "."], one))


class ContextOrigin(Origin):
    """A directory of the machine."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.root = context.root

    def tree(self) -> Tree:
        return self._context.tree

    def owner(self) -> Callable[[Node], tuple[int, int]]:
        return everything_is_roots

    def digest_file(self) -> Callable[..., str]:
        return self._context.digests.digest

    def hint(self, word: str) -> str:
        return self._context.hint(word)


class LayersOrigin(Origin):
    """A stage or an image."""

    def __init__(self, state: StageState, layering: Layering, place: Place, root: str) -> None:
        self._state = state
        self._layering = layering
        self._place = place
        self._tree: LayeredTree | None = None
        self.identity = state.parent or "scratch"
        self.root = root

    def tree(self) -> Tree:
        if self._tree is None:
            self._layering.ensure(self._state.chain, self._state.diff_ids)
            self._tree = LayeredTree(self._layering.layer_directories(self._state.chain))
        return self._tree

    def owner(self) -> Callable[[Node], tuple[int, int]]:
        place = self._place
        return owner_in_layers(place.uid_mappings, place.gid_mappings, bool(self._layering.flavour.uid_map))

    def digest_file(self) -> Callable[..., str]:
        return lambda path, facts: file_digest(path)

    def content(self, sources: list[Source]) -> str:
        """Read inside the user namespace, where every file can be: as a tar without times."""
        if not self._layering.flavour.uid_map:
            return super().content(sources)
        owner = self.owner()
        items = []
        for number, source in enumerate(sources):
            words = f"{number} {source.is_directory} {source.keeps_path} {source.name}"
            lead = os.fsencode(words.replace("/", "_"))
            for path, node in source.entries:
                uid, gid = owner(node)
                entry = Entry(node, None, node.mode, uid, gid, 0)
                items.append(entry.item(f"{os.fsdecode(lead)}/{path}".rstrip("/"), "/"))
        return self._layering.content_digest({"kind": "items", "tree": "/", "items": items})
