"""`RUN --mount`: from the words to mounts of a bundle, and to the part of the key that they are.

A bind shows a part of the context, of a stage or of an image; writes to it go nowhere. A cache directory is
the same for every build. Secrets and agents are in no key: what they hold must not matter, and is nowhere
on the disk but where it came from.
"""

from __future__ import annotations

import os
import posixpath

from duckweed.build.selection import select
from duckweed.build.tree import DirectoryTree, LayeredTree
from duckweed.dockerfile.mount import parse_mount
from duckweed.dockerfile.scope import expand_in
from duckweed.errors import BuildError, DuckweedError
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from duckweed.build.cache_mounts import CacheDirectory
    from duckweed.build.origins import Origin
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState
    from duckweed.dockerfile.instruction import Instruction
    from duckweed.dockerfile.mount import RunMount

_AGENT = "/run/buildkit/ssh_agent.{}"


class RunMounts:
    """The mounts of one RUN: `mounts` for the bundle, `environment` they add, `points` to make below."""

    def __init__(self, build: Build, state: StageState, one: Instruction) -> None:
        self._build = build
        self._state = state
        self._one = one
        self.mounts: list[dict[str, Any]] = []
        self.environment: dict[str, str] = {}
        self._cleanups: list[Callable[[], Any]] = []
        self._caches: list[CacheDirectory] = []
        self._origins: dict[int, Origin] = {}
        try:
            self.wanted = [
                parse_mount(text, lambda word: expand_in(one, word, state.environment))
                for text in one.every("mount")
            ]
        except ValueError as error:
            if isinstance(error, DuckweedError):
                raise
            raise one.error(str(error)) from None

    def _target(self, mount: RunMount) -> str:
        path = posixpath.join(self._state.workdir, mount.target)
        path = "/" + posixpath.normpath(path).lstrip("/")
        if path == "/":
            raise self._one.error(f'invalid mount target "{mount.target}"')
        return path

    def _origin(self, index: int) -> Origin:
        if index not in self._origins:
            self._origins[index] = self._build.origin(self.wanted[index].origin, self._one)
        return self._origins[index]

    @property
    def has_layers(self) -> bool:
        """Whether a bind shows a stage or an image: then there is a cheap key beside the exact one."""
        return any(
            mount.kind == "bind" and self._origin(index).identity for index, mount in enumerate(self.wanted)
        )

    def facts(self, *, exact: bool) -> list[dict[str, Any]]:
        """What of the mounts is in the key: everything said, and for a bind what it shows. Unless `exact`,
        the layers stand for that.
        """
        facts = []
        for index, mount in enumerate(self.wanted):
            fact: dict[str, Any] = {"kind": mount.kind, "target": mount.target, "ro": mount.read_only}
            if mount.kind == "bind":
                origin = self._origin(index)
                if origin.identity and not exact:
                    fact["layers"] = [origin.identity, mount.source]
                else:
                    fact["content"] = origin.digest_of(mount.source, self._one)
            elif mount.kind == "cache":
                fact.update(id=mount.id or mount.target, sharing=mount.sharing)
            elif mount.kind == "tmpfs":
                fact["size"] = mount.size
            else:
                fact.update(id=mount.id or mount.source, env=mount.env)
            facts.append(fact)
        return facts

    def open(self, directory: str) -> None:
        """Makes everything ready in the bundle's `directory`. Raises BuildError, InterruptedError."""
        number_of_agents = 0
        for index, mount in enumerate(self.wanted):
            if mount.kind == "bind":
                self._bind(mount, self._origin(index), f"{directory}/mount{index}")
            elif mount.kind == "cache":
                self._cache(mount)
            elif mount.kind == "tmpfs":
                options = ["nosuid", "nodev", "mode=1777"]
                if mount.size:
                    options.append(f"size={mount.size}")
                self._add(self._target(mount), {"type": "tmpfs", "source": "tmpfs", "options": options})
            elif mount.kind == "secret":
                self._secret(mount)
            else:
                self._agent(mount, number_of_agents)
                number_of_agents += 1

    def close(self) -> None:
        """Lets go of everything; nothing of it stays."""
        for cache in self._caches:
            cache.release()
        for cleanup in self._cleanups:
            cleanup()

    def _add(self, target: str, mount: dict[str, Any]) -> None:
        self.mounts.append({"destination": target, **mount})

    # Binds.

    def _bind(self, mount: RunMount, origin: Origin, work: str) -> None:
        tree = origin.tree()
        at = tree.resolve(mount.source)
        node = tree.node(at)
        if node is None:
            raise self._one.error(f'mount source "/{mount.source.lstrip("/")}" is not there')
        target = self._target(mount)
        access = "ro" if mount.read_only else "rw"
        if not node.is_directory:
            source = node.path
            if not mount.read_only:
                source = _copied(node.path, work)
            options = ["bind", access, "create=file"]
            self._add(target, {"type": "bind", "source": source, "options": options})
            return
        if isinstance(tree, DirectoryTree):
            directories = [self._shown(tree, at, work)]
        else:
            assert isinstance(tree, LayeredTree)
            directories = tree.directories(at)
        self._overlay(target, directories, mount.read_only, work)

    def _shown(self, tree: DirectoryTree, at: str, work: str) -> str:
        """The context's directory as it is, or, when the ignore file hides a part of it, a copy without."""
        path = f"{tree.root}/{at}".rstrip("/")
        if not tree.hides_something:
            return path
        os.makedirs(work + "/shown")
        self._cleanups.append(lambda: remove_tree(work + "/shown"))
        for source in select(tree, at or "."):
            for below, node in source.entries:
                target = f"{work}/shown/{below}"
                if node.is_directory:
                    os.makedirs(target, exist_ok=True)
                elif node.kind == "symlink":
                    os.symlink(os.readlink(node.path), target)
                elif node.kind == "file":
                    _copy_file(node.path, target)
        return work + "/shown"

    def _overlay(self, target: str, lower: list[str], read_only: bool, work: str) -> None:
        if self._build.place.rootfs != "overlay":
            self._copied_tree(target, lower, read_only, work)
            return
        mount: dict[str, Any] = {"type": "duckweed-overlay", "lower": lower, "options": []}
        if read_only:
            mount["options"] = ["ro"]
        else:
            for name in ("upper", "work"):
                os.makedirs(f"{work}/{name}")
                mount[name] = f"{work}/{name}"
        self._add(target, mount)

    def _copied_tree(self, target: str, lower: list[str], read_only: bool, work: str) -> None:
        """Without overlays: a whole copy."""
        from duckweed.store import within

        os.makedirs(work + "/copy")
        uid_map, gid_map = self._build.place.map_texts()
        within.run(uid_map, gid_map, "copy-up", *lower, work + "/copy")
        options = ["rbind", "ro" if read_only else "rw", "create=dir"]
        self._add(target, {"type": "bind", "source": work + "/copy", "options": options})

    # Caches.

    def _cache(self, mount: RunMount) -> None:
        target = self._target(mount)
        identity = mount.id or posixpath.normpath(mount.target)
        sharing = mount.sharing or "shared"
        cache = self._build.cache_mounts.open(identity, sharing, self._build.is_cancelled)
        self._caches.append(cache)
        source = cache.data
        if not os.listdir(source):
            self._fill(mount, source)
        below = posixpath.normpath("/" + mount.source).lstrip("/") if mount.source else ""
        if below and not mount.origin:
            source = f"{source}/{below}"
            os.makedirs(source, exist_ok=True)
        options = ["rbind", "ro" if mount.read_only else "rw", "create=dir"]
        self._add(target, {"type": "bind", "source": source, "options": options})

    def _fill(self, mount: RunMount, data: str) -> None:
        """A new cache directory has the mode and owner asked for, and what `from=` has at `source=`."""
        if mount.origin:
            from duckweed.store import within

            tree = self._build.origin(mount.origin, self._one).tree()
            at = tree.resolve(mount.source)
            node = tree.node(at)
            if node is None or not node.is_directory:
                raise self._one.error(f'mount source "{mount.source or "/"}" is not a directory')
            lower = tree.directories(at) if isinstance(tree, LayeredTree) else [node.path]
            uid_map, gid_map = self._build.place.map_texts()
            within.run(uid_map, gid_map, "copy-up", *lower, data)
        if mount.mode is not None:
            os.chmod(data, mount.mode)
        if mount.uid or mount.gid:
            self._build.own(data, mount.uid or 0, mount.gid or 0, 0o755 if mount.mode is None else mount.mode)

    # Secrets and agents.

    def _secret(self, mount: RunMount) -> None:
        name = mount.source or mount.id or posixpath.basename(mount.target)
        content = self._build.secrets.read(name)
        if content is None:
            if mount.required:
                raise self._one.error(
                    f"secret {name}: not found", f"give it with `--secret id={name},src=FILE`"
                )
            return
        if mount.env is not None:
            self.environment[mount.env or name] = content.decode("utf-8", "surrogateescape")
            if not mount.target:
                return
        target = mount.target or "/run/secrets/" + posixpath.basename(name)
        target = "/" + posixpath.normpath(posixpath.join(self._state.workdir, target)).lstrip("/")
        mode = 0o400 if mount.mode is None else mount.mode
        options = ["hex", "ro", "nosuid", "nodev", f"mode={mode:o}", f"uid={mount.uid or 0}"]
        options.append(f"gid={mount.gid or 0}")
        self._add(target, {"type": "duckweed-file", "options": options, "text": content.hex()})

    def _agent(self, mount: RunMount, number: int) -> None:
        name = mount.id or "default"
        socket = self._build.agents.socket(name)
        if socket is None:
            if mount.required:
                raise self._one.error(f"unset ssh forward key {name}", f"give it with `--ssh {name}`")
            return
        target = mount.target or _AGENT.format(number)
        self._add(target, {"type": "bind", "source": socket, "options": ["bind", "rw", "create=file"]})
        self.environment.setdefault("SSH_AUTH_SOCK", target)


def make_points(layers: LayeredTree, mounts: list[dict[str, Any]], directory: str) -> bool:
    """Makes the mount points that the image lacks in a tree to lie below its layers; whether there are any.

    So nothing of them can be in the layer that the step makes.
    """
    made = False
    for mount in mounts:
        target = mount["destination"].lstrip("/")
        try:
            if layers.node(layers.resolve(target)) is not None:
                continue
        except OSError:
            continue
        path = f"{directory}/{layers.resolve(target)}"
        is_file = "create=file" in mount.get("options", ()) or mount.get("type") == "duckweed-file"
        os.makedirs(os.path.dirname(path) if is_file else path, mode=0o755, exist_ok=True)
        if is_file and not os.path.lexists(path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        made = True
    return made


def _copied(path: str, work: str) -> str:
    os.makedirs(work, exist_ok=True)
    _copy_file(path, work + "/file")
    return work + "/file"


def _copy_file(source: str, target: str) -> None:
    import shutil

    try:
        shutil.copy2(source, target, follow_symlinks=False)
    except OSError as error:
        raise BuildError(f"cannot copy `{source}`: {(error.strerror or str(error)).lower()}") from None
