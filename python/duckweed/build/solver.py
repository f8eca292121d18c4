"""The solver: stages in threads, their steps in order, each from the cache or done.

Only what the target needs is begun. A stage that takes from another waits for it where it does so, not
before; so two stages that know nothing of each other run side by side. Two stages with an equal step do it
once. The first error ends all of them.
"""

from __future__ import annotations

import os
import threading
import time

from duckweed.build import config_steps
from duckweed.build.cache import BuildCache, CachedLayer
from duckweed.build.cache_mounts import CacheMounts
from duckweed.build.contexts import open_directory
from duckweed.build.copy_step import CopyStep, WorkdirStep
from duckweed.build.keys import key_of
from duckweed.build.layering import Layering
from duckweed.build.lease import Lease
from duckweed.build.origins import ContextOrigin, LayersOrigin
from duckweed.build.run_step import RunStep
from duckweed.build.secrets import Agents, Secrets
from duckweed.build.state import StageState
from duckweed.dockerfile.scope import expand_in, global_scope, is_proxy, platform_args
from duckweed.dockerfile.stages import parse_triggers
from duckweed.dockerfile.variables import BadSubstitution, expand
from duckweed.errors import BuildError, DockerfileError, DuckweedError, StoreError
from duckweed.oci import timestamp
from duckweed.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Union

    from duckweed.build.cache_places import Record
    from duckweed.build.contexts import Context
    from duckweed.build.layering import NewLayer
    from duckweed.build.origins import Origin
    from duckweed.build.progress import Progress, Vertex
    from duckweed.build.remote import Remote
    from duckweed.build.request import BuildRequest
    from duckweed.containers.options import Options
    from duckweed.dockerfile.instruction import Instruction
    from duckweed.dockerfile.stages import Dockerfile, Stage
    from duckweed.engine import Engine

    Step = Union[RunStep, CopyStep, WorkdirStep]

_COUNTED = ("RUN", "COPY", "ADD", "WORKDIR")


class Build:
    """One build for one platform: what all its stages share."""

    def __init__(
        self,
        engine: Engine,
        request: BuildRequest,
        dockerfile: Dockerfile,
        context: Context,
        progress: Progress,
        target: Platform,
    ) -> None:
        self.engine = engine
        self.layout = engine.layout
        self.request = request
        self.dockerfile = dockerfile
        self.progress = progress
        self.platform = target
        self.place = engine.place(request.isolation)
        self.layering = Layering(engine.images, self.place)
        self.cache = BuildCache(self.layout, engine.images.layers, self.layering.flavour.name)
        # What this build has found or made, by chain id: for `--cache-to`.
        self.used: dict[str, Record] = {}
        self.cache_mounts = CacheMounts(self.layout, self.layering.flavour)
        self.lease = Lease(self.layout)
        self.secrets = Secrets(request.secret)
        self.agents = Agents(request.ssh)
        self.network = request.run_options().network
        self.now = int(time.time())
        predefined = platform_args(Platform.host(), target, request.target, request.build_args)
        self.scope = global_scope(dockerfile, predefined, request.build_args)
        self.epoch = _epoch(request.build_args, self.scope)
        self.arguments = config_steps.Arguments(request.build_args, self.scope)
        self.proxies = {name: value for name, value in request.build_args.items() if is_proxy(name)}
        self.cancel_fd, self._cancel_write = os.pipe()
        self._cancelled = threading.Event()
        self._context = ContextOrigin(context)
        self._stages = {stage.index: _StageRun(self, stage) for stage in dockerfile.stages}
        self._images: dict[tuple[str, str], StageState] = {}
        self._named: dict[str, Origin] = {}
        self._opened: list[Context] = []
        self._working: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._remote: Remote | None = None
        self._first_error: BaseException | None = None
        self.failed: tuple[Vertex, Instruction] | None = None
        self.debugger: Any = None
        # What progress puts before a stage's name when there are several platforms.
        self.label = ""
        # Bases that are for another platform: (FROM, name, its platform, the one wanted).
        self.misfits: list[tuple[Instruction, str, str, str]] = []

    @property
    def remote(self) -> Remote:
        """What fetches URLs and repositories."""
        with self._lock:
            if self._remote is None:
                from duckweed.build.remote import Remote

                self._remote = Remote(self.layout)
            return self._remote

    def run_options(self) -> Options:
        """The options of a RUN, for it alone."""
        return self.request.run_options()

    def namespace(self, config: Mapping[str, Any]) -> int:
        """The user namespace that the steps share; -1 where each makes its own."""
        return -1 if self.place.isolation == "trap" else self.engine.shared_namespace(self.place).descriptor()

    def is_cancelled(self) -> bool:
        """Whether the steps are to end."""
        return self._cancelled.is_set()

    def fail(self, error: BaseException) -> None:
        """A stage has ended with an error: the first one is the build's, and ends the others."""
        with self._lock:
            if self._first_error is None and not isinstance(error, InterruptedError):
                self._first_error = error
        self.cancel()

    def cancel(self) -> None:
        """Ends all steps."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            os.write(self._cancel_write, b"x")

    def own(self, directory: str, uid: int, gid: int, mode: int) -> None:
        """Gives a cache directory to somebody of the container."""
        from duckweed.store import scratch, within

        if not self.layering.flavour.uid_map:
            return  # one id stands for all
        record = {"uid": uid, "gid": gid, "mode": mode, "mtime": [self.now, 0], "type": "dir"}
        layer = os.path.dirname(directory)
        scratch.write_json(self.layout, layer + "/index.json", {"version": 1, "entries": {".": record}})
        within.run(self.layering.flavour.uid_map, self.layering.flavour.gid_map, "own", layer)

    # Solving.

    def solve(self) -> StageState:
        """The state of the target. Raises what the first failing step raises; KeyboardInterrupt passes."""
        target = self.dockerfile.target(self.request.target)
        self._import_caches()
        try:
            for stage in needed_stages(self.dockerfile, target, self.scope, self.request.contexts):
                self._stages[stage.index].start()
            return self._stages[target.index].result()
        except InterruptedError:
            # Another stage failed, and this one was told to end.
            raise self._first_error or KeyboardInterrupt() from None
        finally:
            self.cancel()
            for run in self._stages.values():
                run.join()

    def _import_caches(self) -> None:
        """Looks at the caches of `--cache-from`."""
        if not self.request.cache_from or self.request.no_cache:
            return
        from duckweed.build.distant_layers import DistantLayers
        from duckweed.registry.registries import Registries

        distant = DistantLayers(self.layout, self.progress, Registries())
        for spec in self.request.cache_from:
            distant.add(spec, self.platform)
        self.layering.distant, self.layering.cache = distant, self.cache

    def created(self, stamp: str) -> str:
        """A step's time as the result tells it: SOURCE_DATE_EPOCH says it for all of them."""
        return stamp if self.epoch is None else timestamp.from_unix_ns(self.epoch * 10**9)

    def close(self) -> None:
        """Lets go of everything, when nothing of the build runs any more."""
        self.lease.end()
        self.agents.close()
        if self._remote is not None:
            self._remote.close()
        for context in self._opened:
            context.close()
        os.close(self.cancel_fd)
        os.close(self._cancel_write)

    def stage_state(self, stage: Stage, before: Instruction, user: Stage) -> StageState:
        """The end of an earlier stage, waited for. Raises DockerfileError for one that comes later."""
        if stage.index >= user.index:
            raise before.error(
                f'cannot copy from stage "{stage.title}",'
                f' it needs to be defined before current stage "{user.title}"'
            )
        run = self._stages[stage.index]
        run.start()
        return run.result()

    def origin(self, name: str, one: Instruction) -> Origin:
        """What `--from=name` means: the context, a named context, a stage or an image."""
        if not name:
            return self._context
        if "$" in name and one.keyword == "COPY":
            raise one.error(
                "variable expansion is not supported for --from,"
                " define a new stage with FROM using ARG from global scope as a workaround"
            )
        named = self.named_context(name, one)
        if named is not None:
            return named
        stage = self.dockerfile.stage(name)
        if stage is not None:
            state = self.stage_state(stage, one, self._user_of(one))
        elif name.isascii() and name.isdigit():
            raise one.error(f"invalid stage index {name}")
        elif name == "scratch":
            state = StageState(self.platform)
        else:
            state = self.image_state(name, self.platform, one)
        return LayersOrigin(state, self.layering, self.place, self.layout.root)

    def _user_of(self, one: Instruction) -> Stage:
        if one.is_trigger:
            return self.dockerfile.stages[one.stage]
        line = one.line.first
        return [stage for stage in self.dockerfile.stages if stage.opening.line.first <= line][-1]

    def named_context(self, name: str, one: Instruction) -> Origin | None:
        """A `--build-context` of this name."""
        place = self.request.contexts.get(name.lower())
        if place is None:
            return None
        with self._lock:
            if name.lower() not in self._named:
                self._named[name.lower()] = self._open_named(name, place, one)
            return self._named[name.lower()]

    def _open_named(self, name: str, place: str, one: Instruction) -> Origin:
        for lead in ("docker-image://", "oci-layout://"):
            if place.startswith(lead):
                state = self._image_of(place, one)
                return LayersOrigin(state, self.layering, self.place, self.layout.root)
        if place.startswith(("http://", "https://", "git@", "git://", "ssh://")):
            from duckweed.build.contexts import open_url

            context, _ = open_url(self.layout, place)
        else:
            context = open_directory(self.layout, place, f"context {name}")
            context.read_ignore(None)
        self._opened.append(context)
        return ContextOrigin(context)

    def _image_of(self, place: str, one: Instruction) -> StageState:
        if place.startswith("docker-image://"):
            return self.image_state(place[len("docker-image://") :], self.platform, one)
        path = place[len("oci-layout://") :]
        name, _, _ = path.partition("@")
        head, colon, tag = name.rpartition(":")
        directory = head if colon and "/" not in tag and not os.path.isdir(name) else name
        images = self.engine.images.load(directory, quiet=True)
        if not images:
            raise one.error(f"no image in `{directory}`")
        return self._state_of(images[-1].id, self.platform)

    def named_state(self, name: str, platform: Platform, one: Instruction) -> StageState | None:
        """The state that FROM of a named context begins with."""
        place = self.request.contexts.get(name.lower())
        if place is None:
            return None
        if place.startswith(("docker-image://", "oci-layout://")):
            return self._image_of(place, one)
        raise one.error(
            f"the named context `{name}` is a directory", "FROM takes `docker-image://` and `oci-layout://`"
        )

    def image_state(self, name: str, platform: Platform, one: Instruction) -> StageState:
        """The state that FROM of an image begins with; the image is pulled where that can be done."""
        with self._lock:
            known = self._images.get((name, str(platform)))
            if known is None:
                known = self._images[(name, str(platform))] = self._find_image(name, platform, one)
        return known

    def _find_image(self, name: str, platform: Platform, one: Instruction) -> StageState:
        vertex = self.progress.begin(f"[internal] load metadata for {_canonical(name)}", internal=True)
        try:
            from duckweed.build.bases import find_base, suits

            image = find_base(self.engine, name, platform, self.request.pull, vertex)
            if not suits(image, platform):
                self.misfits.append((one, name, str(Platform.of(image.config)), str(platform)))
            state = self._state_of(image.id, platform)
        except DuckweedError as error:
            vertex.fail(error.message)
            if isinstance(error, StoreError):
                raise
            raise one.error(f"{name}: {error.message}", error.hint) from None
        vertex.done()
        return state

    def _state_of(self, image_id: str, platform: Platform) -> StageState:
        image = self.engine.images.get(image_id)
        self.lease.keep(image.chain_ids)
        self.layering.ensure_image(image)
        return StageState.of_image(image.config, image.chain_ids, platform)

    # Steps.

    def do(self, step: Step, vertex: Vertex, state: StageState, *, use_cache: bool) -> CachedLayer:
        """The layer of a step: from the cache, or done now. Raises what the step raises."""
        keys = []
        for key in step.candidate_keys():
            # Where all times are cut off, a layer that was made without that is another layer.
            key = key if self.epoch is None else key_of("EPOCH", key, {"epoch": self.epoch})
            keys.append(key)
            found = self._find(key, state) if use_cache else None
            if found is not None:
                return self._hit(found, keys, vertex)
        with self._lock:
            working = self._working.setdefault(keys[-1], threading.Lock())
        with working:
            found = self._find(keys[-1], state) if use_cache else None
            if found is not None:
                return self._hit(found, keys, vertex)
            if self.is_cancelled():
                raise InterruptedError
            layer = step.run(vertex)
            return self._remember(keys, layer, state, step)

    def _find(self, key: str, state: StageState) -> CachedLayer | None:
        """What a key led to, here or in another cache."""
        found = self.cache.look_up(key)
        if found is None and self.layering.distant is not None:
            record = self.layering.distant.find(key)
            if record is not None and record.parent == state.parent:
                same_as = record.keys[-1] if record.keys[-1] != key else ""
                return CachedLayer({**record.as_dict(0), "same_as": same_as})
        return found

    def _hit(self, found: CachedLayer, keys: list[str], vertex: Vertex) -> CachedLayer:
        self.lease.keep([found.chain_id])
        for key in keys[:-1]:
            self.cache.also(key, keys[-1])
        self._use(found, [*keys, found.same_as] if found.same_as else keys)
        vertex.is_cached = True
        return found

    def _remember(self, keys: list[str], layer: NewLayer, state: StageState, step: Step) -> CachedLayer:
        self.lease.keep([layer.chain_id])
        kind = "exec.cachemount" if isinstance(step, RunStep) and step.mounts.wanted else "regular"
        made = self.cache.remember(
            keys[-1], layer.chain_id, layer.diff_id, state.parent, kind, step.history, layer.size
        )
        for key in keys[:-1]:
            self.cache.also(key, keys[-1])
        self._use(made, keys)
        return made

    def _use(self, layer: CachedLayer, keys: list[str]) -> None:
        """Notes a layer and its keys, the exact one last."""
        if not self.request.wants_records:
            return
        from duckweed.build.cache_places import Record

        known = self.used.get(layer.chain_id)
        every = dict.fromkeys([*(known.keys if known else ()), *keys])
        del every[keys[-1]]
        document = {
            "keys": [*every, keys[-1]],
            "chain": layer.chain_id,
            "diff_id": layer.diff_id,
            "parent": layer.parent,
            "created": layer.created,
            "kind": layer.kind,
            "size": layer.size,
            "description": layer.description,
        }
        self.used[layer.chain_id] = Record(document, None)

    def debug(self, step: RunStep, directory: str, code: int) -> None:
        """A failed RUN, before its bundle goes: a shell in it, for who asked."""
        if self.debugger is not None:
            self.debugger(step, directory, code)


class _StageRun:
    """One stage in a thread of its own."""

    def __init__(self, build: Build, stage: Stage) -> None:
        self._build = build
        self._stage = stage
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._done = threading.Event()
        self._state: StageState | None = None
        self._error: BaseException | None = None
        self._index = 0
        self._total = 0

    def start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._stage.title, daemon=True)
                self._thread.start()

    def result(self) -> StageState:
        """The state at its end. Raises what ended it."""
        # In pieces, so that the main thread hears of Ctrl-C.
        while not self._done.wait(0.5):
            pass
        if self._error is not None:
            raise self._error
        assert self._state is not None
        return self._state

    def join(self) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._state = self._solve()
        except BaseException as error:
            self._error = error
            self._build.fail(error)
        finally:
            self._done.set()

    def _solve(self) -> StageState:
        build, stage = self._build, self._stage
        state = self._begin()
        steps = [*parse_triggers(state.triggers, stage), *stage.instructions]
        state.triggers = []
        self._total = self._index + sum(one.keyword in _COUNTED for one in steps)
        if self._index:
            self._tell_base()
        for one in steps:
            if build.is_cancelled():
                raise InterruptedError
            if not config_steps.apply(state, one, build.arguments):
                self._step(state, one)
        return state

    def _begin(self) -> StageState:
        """The state that FROM gives."""
        build, stage = self._build, self._stage
        opening = stage.opening
        base = expand_in(opening, stage.base, build.scope)
        if not base:
            raise opening.error(f"base name ({stage.base}) should not be blank")
        platform = build.platform
        if stage.platform:
            platform = _platform(opening, expand_in(opening, stage.platform, build.scope), stage.platform)
        earlier = build.dockerfile.stage(base) if not base.isdigit() else None
        named = build.named_state(stage.name, platform, opening) if stage.name else None
        if named is not None:
            return named.continued()
        named = build.named_state(base, platform, opening)
        if named is not None:
            self._index = 1
            return named.continued()
        if earlier is not None and earlier.index < stage.index:
            state = build.stage_state(earlier, opening, stage).continued()
            return state
        if base == "scratch":
            return StageState(platform)
        self._index = 1
        self._base = base
        return build.image_state(base, platform, opening).continued()

    def _tell_base(self) -> None:
        name = _canonical(getattr(self, "_base", self._stage.base))
        vertex = self._build.progress.begin(f"{self._prefix(1)}FROM {name}")
        vertex.cached()

    def _prefix(self, index: int) -> str:
        only = len(self._build.dockerfile.stages) == 1
        name = self._build.label + ("" if only else f"{self._stage.title} ")
        width = len(str(self._total))
        return f"[{name}{index:{width}d}/{self._total}] "

    def _step(self, state: StageState, one: Instruction) -> None:
        build = self._build
        self._index += 1
        name = _shown(one, state.environment)
        trigger = "ONBUILD " if one.is_trigger else ""
        prefix = self._prefix(self._index)
        step: Step
        if one.keyword == "WORKDIR":
            path = config_steps.workdir(state, one)
            if path == "/":
                state.record("WORKDIR /")
                return
            step = WorkdirStep(build, state, path)
        elif one.keyword == "RUN":
            step = RunStep(build, state, one)
        else:
            step = CopyStep(build, state, one)
        vertex = build.progress.begin(f"{prefix}{trigger}{name}")
        try:
            layer = build.do(step, vertex, state, use_cache=self._uses_cache())
        except BaseException as error:
            self._failed(vertex, one, error)
            raise
        vertex.done()
        state.record(step.history, layer=True)
        state.add_layer(layer.chain_id, layer.diff_id, layer.created)

    def _uses_cache(self) -> bool:
        request = self._build.request
        if request.no_cache:
            return False
        return not {self._stage.name, str(self._stage.index)} & set(request.no_cache_filter)

    def _failed(self, vertex: Vertex, one: Instruction, error: BaseException) -> None:
        if isinstance(error, InterruptedError):
            vertex.fail("canceled")
            return
        words = error.message if isinstance(error, DuckweedError) else str(error) or type(error).__name__
        vertex.fail(words)
        if self._build.failed is None:
            self._build.failed = (vertex, one)
        if isinstance(error, BuildError) and not isinstance(error, DockerfileError) and not error.excerpt:
            error.excerpt = one.source.excerpt(one.line.first, one.line.last)


def needed_stages(
    dockerfile: Dockerfile, target: Stage, scope: Mapping[str, str], contexts: Mapping[str, str]
) -> list[Stage]:
    """The stages that the target is known to take from, itself included, in the order of the file."""
    needed: dict[int, Stage] = {}
    waiting = [target]
    while waiting:
        stage = waiting.pop()
        if stage.index in needed:
            continue
        needed[stage.index] = stage
        names = [_plain(stage, scope)]
        for one in stage.instructions:
            names.append(one.flag("from"))
            for mount in one.every("mount"):
                names += [part[5:] for part in mount.split(",") if part.startswith("from=")]
        for name in names:
            found = dockerfile.stage(name) if name and name.lower() not in contexts else None
            if found is not None and found.index < stage.index:
                waiting.append(found)
    return [needed[index] for index in sorted(needed)]


def _plain(stage: Stage, scope: Mapping[str, str]) -> str:
    try:
        base = expand(stage.base, scope, stage.opening.source.escape).text
    except BadSubstitution:
        return ""
    return "" if base.isdigit() else base


def _shown(one: Instruction, environment: Mapping[str, str]) -> str:
    """The instruction as progress shows it: variables replaced where the builder replaces them."""
    text = one.text
    try:
        is_run = one.keyword == "RUN"
        text = expand(text, environment, one.source.escape, keep_quotes=is_run, keep_unset=is_run).text
    except BadSubstitution:
        pass
    word, _, rest = text.partition(" ")
    if one.keyword == "RUN" and one.heredocs:
        lines = one.heredocs[0].text.strip().split("\n")
        rest += f" ({lines[0]}{'...' if len(lines) > 1 else ''})"
    return f"{word.upper()} {rest}"


def _canonical(name: str) -> str:
    from duckweed.oci.reference import Reference

    try:
        return str(Reference.parse(name))
    except DuckweedError:
        return name


def _platform(opening: Instruction, text: str, written: str) -> Platform:
    if not text:
        raise opening.error(f"empty platform value from expression {written}")
    try:
        return Platform.parse(text)
    except DuckweedError as error:
        raise opening.error(f"failed to parse platform {written}: {error.message}", error.hint) from None


def _epoch(args: Mapping[str, str], scope: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH as a build argument, in our own environment, or as an ARG before the first FROM."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or scope.get("SOURCE_DATE_EPOCH", "")
    text = args.get("SOURCE_DATE_EPOCH", given)
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise BuildError(f"invalid SOURCE_DATE_EPOCH: `{text}` is no number of seconds since 1970")
    return int(text)
