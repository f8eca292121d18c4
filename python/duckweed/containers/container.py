"""One container: its life from `created` to removed, told by its directory and its supervisor.

What may not happen twice at once (start, removal, the record of a death nobody wrote) is done under a
`Claim` of the directory; everything else asks the supervisor, which is the only one who can answer.
"""

from __future__ import annotations

import os
import time

from duckweed.containers import inspect, supervisor
from duckweed.containers.claim import Claim
from duckweed.containers.signals import SIGKILL, parse_signal, signal_name
from duckweed.containers.state import State, read_state
from duckweed.containers.supervisor import NobodyThere
from duckweed.errors import NoSuchContainer, StartError, StoreError, Unsupported, UsageError, WrongState
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, BinaryIO

    from duckweed.containers.copying import Copied
    from duckweed.engine import Engine, Result
    from duckweed.store.image import Image

_DEFAULT_STOP_TIMEOUT_S = 10.0
# How long a supervisor may take from "the container has ended" to having written so.
_RECORD_PATIENCE_S = 10.0


class Container:
    """One container of the store.

    `id`, `short_id`, `name` (without slash), `status` ("created", "running", "exited" ...), `attrs`
    (docker inspect's dict, computed now), `summary` (what ps shows: docker's /containers/json dict). As a
    context manager it is stopped and removed at the end.
    """

    def __init__(self, engine: Engine, container_id: str, document: dict[str, Any] | None = None) -> None:
        self.engine = engine
        self.id = container_id
        self.short_id = container_id[:12]
        self.directory = f"{engine.root}/containers/{container_id}"
        self._document = document

    def __repr__(self) -> str:
        return f"<Container {self.short_id} {self.name}>"

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
            self.remove(force=True, volumes=True)
        except NoSuchContainer:
            pass

    @property
    def document(self) -> dict[str, Any]:
        """container.json. Raises NoSuchContainer."""
        if self._document is None:
            self._document = scratch.read_json(f"{self.directory}/container.json")
            if self._document is None:
                raise self._gone()
        return self._document

    @property
    def written(self) -> str:
        """The directory that holds what the container writes (`upper`, `work`, `rootfs`)."""
        return self.document.get("scratch") or self.directory

    def _gone(self) -> NoSuchContainer:
        return NoSuchContainer(f"No such container: {self.short_id}")

    @property
    def name(self) -> str:
        return str(self.document["Name"]).lstrip("/") or self.short_id

    @property
    def labels(self) -> dict[str, str]:
        """The container's labels, the image's among them."""
        return (self.document.get("Config") or {}).get("Labels") or {}

    def state(self) -> State:
        """The state of now. A death that its supervisor could not record is recorded here (and the container
        removed if it asked for that).
        """
        state = read_state(self.directory)
        if state.lost or state.is_leftover:
            self._record_death(state)
        return state

    def _record_death(self, state: State) -> None:
        claim = Claim(self.directory)
        try:
            if not claim.attempt():
                return
        except NoSuchContainer:
            return
        try:
            again = read_state(self.directory)
            if not (again.lost or again.is_leftover):
                return
            document = {
                **again.document,
                "status": "exited",
                "exit_code": 137,
                "finished_at": again.finished_at,
                "socket": "",
            }
            scratch.write_json(self.engine.layout, f"{self.directory}/state.json", document)
            if state.auto_remove:
                self._take_away(volumes=True)
        finally:
            claim.release()

    @property
    def status(self) -> str:
        """`created`, `running` or `exited`; read from disk and the kernel each time."""
        return self.state().status

    @property
    def attrs(self) -> dict[str, Any]:
        """`docker inspect`'s dict."""
        return inspect.inspect(self.document, self.directory, self.state())

    @property
    def summary(self) -> dict[str, Any]:
        """Docker's /containers/json dict."""
        return inspect.summary(self.document, self.state())

    # Starting

    def start(self) -> None:
        """Starts it detached; nothing happens when it runs already. Raises StartError."""
        with Claim(self.directory):
            if not self._startable():
                return
            os.close(supervisor.spawn_managed(self.directory, None))

    def launch(
        self,
        *,
        attach: Sequence[str] = ("stdout", "stderr"),
        stdin: bool = False,
        rows: int = 0,
        cols: int = 0,
    ) -> int:
        """Starts it for an attached client and returns the channel's descriptor, inheritable, for
        `attach_argv(channel=fd)`.

        `attach` names the streams wanted. The client's attach message is in the channel before the supervisor
        starts, so no output is lost. Raises StartError, or WrongState when it runs already.
        """
        with Claim(self.directory):
            if not self._startable():
                raise WrongState(
                    f"container {self.short_id} is already running", "attach to it with `duckweed attach`"
                )
            fd = supervisor.spawn_managed(
                self.directory, supervisor.attach_request(attach, stdin, rows, cols)
            )
        os.set_inheritable(fd, True)
        return fd

    def _startable(self) -> bool:
        state = read_state(self.directory)
        if state.elsewhere:
            raise WrongState(f"container {self.short_id} is running on the host `{state.elsewhere}`")
        if state.running:
            return False
        if not os.path.exists(f"{self.directory}/config.json"):
            raise self._gone()
        self._check_sources()
        self._check_trees()
        return True

    def _check_trees(self) -> None:
        """What may have gone without us: a scratch directory, and the layers of a read-only store, whose
        keeper does not know of this container. Layers that are only missing in a scratch directory are made.
        """
        if self.written != self.directory and not os.path.isdir(self.written):
            raise StoreError(
                f"cannot start container {self.short_id}: its files were in `{self.written}`, which is gone",
                f"scratch directories are cleaned by others: `duckweed rm {self.short_id}` and run it anew",
            )
        if self.engine.layout.trees != self.engine.root:
            self._make_layers()
        own = self.engine.layout.layers + "/"
        for tree in self.document.get("lower") or ():
            if not tree.startswith(own) and not os.path.isdir(tree):
                raise StoreError(
                    f"cannot start container {self.short_id}: `{tree}`, a layer of its image, is gone",
                    "it was in a read-only store; ask who keeps that store",
                )

    def _check_sources(self) -> None:
        """A bind source that has gone since create, in Docker's words."""
        for point in self.document.get("Mounts") or ():
            if point["Type"] != "tmpfs" and not os.path.exists(point["Source"]):
                raise UsageError(
                    f'invalid mount config for type "{point["Type"]}": '
                    f"bind source path does not exist: {point['Source']}"
                )

    def _make_layers(self) -> None:
        from duckweed.errors import DuckweedError

        if all(map(os.path.isdir, self.document.get("lower") or ())):
            return
        try:
            self.engine.place()
            self.engine.images.ensure_layers(self.engine.images.get(self.document["ImageID"]))
        except DuckweedError as error:
            raise StoreError(
                f"cannot start container {self.short_id}: its layers are gone: {error.message}", error.hint
            ) from None

    def attach_argv(
        self,
        *,
        channel: int | None = None,
        stdin: bool = False,
        no_stdout: bool = False,
        sig_proxy: bool = True,
        detach_keys: str | None = None,
    ) -> list[str]:
        """The command line that the CLI `os.execv`s into: argv[0] is the runtime's path. With `channel` the
        one from `launch`.

        Raises WrongState when it does not run (and no `channel` is given).
        """
        where = (
            ["--socket", self._running("attach to").socket]
            if channel is None
            else ["--channel", str(channel)]
        )
        argv = [supervisor.RUNTIME, "attach", *where]
        if stdin:
            argv.append("--stdin")
        if self.document["Config"].get("Tty"):
            argv.append("--tty")
        if no_stdout:
            argv.append("--no-stdout")
        if not sig_proxy:
            argv.append("--no-sig-proxy")
        if detach_keys is not None:
            argv += ["--detach-keys", detach_keys]
        return argv

    def exec_argv(
        self,
        command: Sequence[str],
        *,
        stdin: bool = False,
        tty: bool = False,
        detach: bool = False,
        env: Sequence[str] | Mapping[str, str] = (),
        env_file: Sequence[str] = (),
        workdir: str | None = None,
        user: str | None = None,
        privileged: bool = False,
        detach_keys: str | None = None,
    ) -> list[str]:
        """The command line that the CLI `os.execv`s into for `exec`. Raises WrongState unless the container
        runs.
        """
        import json

        from duckweed.containers import execution

        state = self._running("exec in")
        request = execution.request_of(
            self.document,
            command,
            env=env,
            env_file=env_file,
            workdir=workdir,
            user=user,
            tty=tty,
            detach=detach,
            privileged=privileged,
        )
        argv = [supervisor.RUNTIME, "exec", "--socket", state.socket, "--request", json.dumps(request)]
        argv += ["--stdin"] if stdin else []
        argv += ["--tty"] if tty else []
        return argv + (["--detach-keys", detach_keys] if detach_keys is not None else [])

    def exec(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | str | None = None,
        tty: bool = False,
        detach: bool = False,
        env: Sequence[str] | Mapping[str, str] = (),
        workdir: str | None = None,
        user: str | None = None,
        privileged: bool = False,
        check: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """Runs a command in the running container and waits for it (with `detach` only for its start).

        Raises WrongState, StartError, CommandFailed with `check`; TimeoutError after `timeout` seconds
        (the command is killed).
        """
        from duckweed.containers import execution

        state = self._running("exec in")
        request = execution.request_of(
            self.document,
            command,
            env=env,
            workdir=workdir,
            user=user,
            tty=tty,
            detach=detach,
            privileged=privileged,
        )
        try:
            return execution.execute(state.socket, request, input=input, check=check, timeout=timeout)
        except NobodyThere:
            raise self._not_running() from None

    # Ending

    def _running(self, operation: str) -> State:
        state = self.state()
        if state.elsewhere:
            raise WrongState(
                f"cannot {operation} container {self.short_id}: it is running on the host `{state.elsewhere}`"
            )
        if not state.running:
            raise self._not_running()
        return state

    def _not_running(self) -> WrongState:
        return WrongState(
            f"container {self.id} is not running", f"start it with `duckweed start {self.short_id}`"
        )

    def kill(self, signal: str | int = "KILL") -> None:
        """Sends a signal to init. Raises WrongState unless it runs."""
        number = parse_signal(signal)
        state = self.state()
        if not state.running or not self._signal(state, number):
            raise WrongState(f"cannot kill container: {self.name}: container {self.id} is not running")
        if number == SIGKILL:
            self._await_end(state, _RECORD_PATIENCE_S)

    def _signal(self, state: State, number: int) -> bool:
        """False when the container has ended meanwhile."""
        if state.elsewhere:
            raise WrongState(f"container {self.short_id} is running on the host `{state.elsewhere}`")
        try:
            supervisor.request(state.socket, {"op": "kill", "signal": number})
        except NobodyThere:
            return False
        except StartError as error:
            if "not running" in error.message:
                return False
            raise
        return True

    def stop(self, timeout: float | None = None, signal: str | int | None = None) -> None:
        """Sends the stop signal, waits `timeout` seconds (else its own StopTimeout, else 10), then SIGKILL;
        -1 waits for ever.
        """
        config = self.document.get("Config") or {}
        number = parse_signal(signal) if signal is not None else int(self.document.get("stop_signal") or 15)
        patience = config.get("StopTimeout", _DEFAULT_STOP_TIMEOUT_S) if timeout is None else timeout
        state = self.state()
        if not state.running:
            return
        self._signal(state, number)
        if self._await_end(state, None if patience < 0 else patience):
            return
        self._signal(state, SIGKILL)
        if not self._await_end(state, 30.0):
            raise WrongState(
                f"cannot stop container {self.short_id}: it does not end after {signal_name(SIGKILL)}"
            )

    def restart(self, timeout: float | None = None) -> None:
        """Stops and starts it."""
        self.stop(timeout)
        self.start()

    def _await_end(self, state: State, timeout_s: float | None) -> bool:
        """Waits for the end of the run that `state` tells of; false when the time is up."""
        try:
            fd = supervisor.open_wait(state.socket)
            try:
                ended = supervisor.receive_end(fd, timeout_s) is not None
            finally:
                os.close(fd)
        except NobodyThere:
            self._await_record()
            ended = True
        return ended

    def _await_record(self) -> State:
        """The state once it no longer says `running`: a supervisor that answers nobody is about to write so,
        or dead.
        """
        deadline = time.monotonic() + _RECORD_PATIENCE_S
        pause_s = 0.0005
        while True:
            state = read_state(self.directory)
            if not state.running or time.monotonic() > deadline:
                return state
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the exit code; at once when it does not run. TimeoutError after
        `timeout` seconds.
        """
        state = self.state()
        if not state.running:
            if not os.path.isdir(self.directory):
                raise self._gone()
            return state.exit_code
        if state.elsewhere:
            raise WrongState(f"container {self.short_id} is running on the host `{state.elsewhere}`")
        try:
            fd = supervisor.open_wait(state.socket)
            try:
                code = supervisor.receive_end(fd, timeout)
            finally:
                os.close(fd)
            if code is None:
                raise TimeoutError(f"container {self.short_id} still runs after {timeout} seconds")
            return code
        except NobodyThere:
            return self._await_record().exit_code

    def remove(self, force: bool = False, volumes: bool = False) -> None:
        """Removes it; `force` kills first; `volumes` removes its anonymous volumes. Raises Conflict while it
        runs.
        """
        name = self.name
        state = self.state()
        if state.running:
            if not force:
                raise WrongState(
                    f'cannot remove container "/{name}": container is running: '
                    "stop the container before removing or force remove"
                )
            self._signal(state, SIGKILL)
            if not self._await_end(state, 30.0):
                raise WrongState(
                    f"cannot remove container {self.short_id}: it does not end after {signal_name(SIGKILL)}"
                )
            if not os.path.isdir(self.directory):
                return  # it removed itself
        with Claim(self.directory):
            if read_state(self.directory).running:
                raise WrongState(f'cannot remove container "/{name}": it was started again meanwhile')
            self._take_away(volumes)

    def _take_away(self, volumes: bool) -> None:
        document = self.document
        self.engine.container_store.remove(self.id, self.engine.place("auto").layers)
        if document.get("networks"):
            from duckweed.containers import membership

            membership.leave(self.engine, document["networks"], self.id)
        if volumes:
            self.engine.discard_volumes(document.get("Mounts") or ())

    def rename(self, name: str) -> None:
        """Gives it another name. Raises NameInUse."""
        from duckweed.containers.names import check_name

        name = check_name(name)
        with Claim(self.directory):
            self._document = None
            old = self.name
            if name == old:
                raise UsageError(
                    "Error when allocating new name: "
                    "Renaming a container with the same name as its current name"
                )
            if (self.document.get("HostConfig") or {}).get("AutoRemove") and read_state(
                self.directory
            ).running:
                # The supervisor was told at its start which name to give back.
                raise Unsupported(
                    "cannot rename a running container that removes itself",
                    "stop it, or give it its name at `run`",
                )
            self.engine.container_store.rename(self.id, name)
            self._document = None
            self._rename_in_spec(name)

    def _rename_in_spec(self, new: str) -> None:
        """config.json names the container too, for its auto-remove."""
        import json

        spec = scratch.read_json(f"{self.directory}/config.json")
        if spec is None:
            return
        annotation = json.loads(spec["annotations"]["io.duckweed.container"])
        annotation["name"] = new
        if annotation.get("auto_remove"):
            annotation["auto_remove"]["names"] = [self.engine.layout.name(new)]
        spec["annotations"]["io.duckweed.container"] = json.dumps(annotation)
        scratch.write_json(self.engine.layout, f"{self.directory}/config.json", spec)

    # Looking

    def logs(
        self,
        *,
        follow: bool = False,
        tail: int | str = "all",
        since: str | float | None = None,
        until: str | float | None = None,
        timestamps: bool = False,
    ) -> Iterator[tuple[str, bytes]]:
        """The log as `(stream, bytes)`, mostly a line a piece. `follow` ends with the container."""
        from duckweed.containers import logs
        from duckweed.containers.following import follow_log

        log = (self.document.get("HostConfig") or {}).get("LogConfig") or {}
        if log.get("Type") == "none":
            raise Unsupported("configured logging driver does not support reading")
        count = logs.parse_tail(tail)
        if follow:
            return follow_log(self, tail=count, since=since, until=until, timestamps=timestamps)
        path = f"{self.directory}/container.log"
        return logs.read_log(path, tail=count, since=since, until=until, timestamps=timestamps)

    def size(self) -> dict[str, int]:
        """`{"SizeRw", "SizeRootFs"}` in bytes: what the container wrote, and that with its image.

        Where overlay is refused the container has a copy of its image, and all of that counts as written.
        """
        from duckweed.store.usage import layer_bytes, tree_bytes

        is_copy = self.document.get("rootfs") == "copy"
        flavour = lambda: self.engine.place().layers  # noqa: E731
        written = tree_bytes(self.written + ("/rootfs" if is_copy else "/upper"), flavour)
        below = 0 if is_copy else sum(map(layer_bytes, self.document.get("lower") or ()))
        return {"SizeRw": written, "SizeRootFs": written + below}

    def diff(self) -> list[dict[str, Any]]:
        """What it has changed in its image: `[{"Path", "Kind"}]`, 0 changed, 1 added, 2 deleted. Raises
        StoreError.
        """
        from duckweed.containers.changes import changes

        return changes(self)

    def export(self, target: str | int | BinaryIO = "-") -> None:
        """Writes all its files as a tar, its mounts left out: to a path (which appears when it is whole), a
        descriptor, a binary file object, or `-` for stdout. Raises StoreError; Unsupported for `host`.
        """
        from duckweed.containers.exporting import export

        export(self, target)

    def copy_from(self, path: str, target: str | int, *, follow_link: bool = False) -> Copied:
        """Copies `path` of the container, running or not, to a path of this machine, or as a tar to a
        descriptor. Raises NotFound, UsageError, StoreError.
        """
        from duckweed.containers.copying import copy_from

        return copy_from(self, path, target, follow_link=follow_link)

    def copy_to(
        self, source: str | int, path: str, *, follow_link: bool = False, archive: bool = False
    ) -> Copied:
        """Copies a path of this machine to `path` of the container, running or not, owned by its root unless
        `archive` keeps the ids; a descriptor is read as a tar for the directory `path`. Raises NotFound,
        UsageError, StoreError.
        """
        from duckweed.containers.copying import copy_to

        return copy_to(self, source, path, follow_link=follow_link, archive=archive)

    def commit(
        self,
        repository: str | None = None,
        tag: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> Image:
        """An image of its changes on its image's layers, named `repository:tag` or not at all.

        `changes` are Dockerfile instructions. A running container stands still meanwhile, unless `pause` is
        false. Raises UsageError, BadImage, StoreError.
        """
        from duckweed.containers.commit import commit

        name = f"{repository}:{tag}" if repository and tag else repository
        return commit(self, name, author=author, message=message, changes=changes, pause=pause)

    def top(self, ps_args: str = "") -> dict[str, Any]:
        """`{"Titles": [...], "Processes": [[...], ...]}` of its processes, as `ps -ef` would; `ps_args` is
        not looked at.
        """
        from duckweed.containers.processes import list_processes

        return list_processes(self._running("list the processes of").pid)

    def sample(self) -> dict[str, Any]:
        """What it has used so far and uses now (`containers.statistics`). Raises WrongState."""
        from duckweed.containers.statistics import sample

        state = self._running("read the use of")
        limit = (self.document.get("HostConfig") or {}).get("Memory") or 0
        return sample(state.pid, state.socket, int(limit))

    def port(self, private: str | None = None) -> dict[str, Any]:
        """Published ports: `{"80/tcp": [{"HostIp", "HostPort"}]}`.

        Raises NotFound for a `private` port that is not published, in Docker's words.
        """
        from duckweed.containers.ports import published

        _ = self.document  # a container that has gone must be said to have gone
        found = published(inspect.published_ports(self.state()))
        if private is None:
            return found
        number, _, protocol = private.partition("/")
        key = f"{number}/{protocol or 'tcp'}"
        if key not in found:
            from duckweed.errors import NotFound

            raise NotFound(f"no public port '{key}' published for {self.name}")
        return {key: found[key]}
