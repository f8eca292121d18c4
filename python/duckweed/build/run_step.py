"""RUN: a container of the same runtime as any other, whose upperdir becomes a layer.

The bundle lives in tmp/ and nobody but this process knows it: no name, no record, no log. Its config.json is
a link to memory, for it may hold secrets. Mount points that the image lacks lie in a tree of their own below
the layers, so that what is mounted leaves no trace. The container dies with the channel, hence with us.
"""

from __future__ import annotations

import json
import os
import select

from duckweed import _core
from duckweed.build.config_steps import with_shell
from duckweed.build.keys import key_of
from duckweed.build.run_mounts import RunMounts, make_points
from duckweed.build.tree import LayeredTree
from duckweed.build.wording import run_text
from duckweed.containers import spec, supervisor
from duckweed.containers.network import GATE, HOST, NONE, gate_of_none, hosts_file, resolver_file
from duckweed.containers.options import Options
from duckweed.containers.shared_namespace import NUMBER
from duckweed.errors import BuildError, StartError
from duckweed.store import scratch
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from duckweed.build.layering import NewLayer
    from duckweed.build.progress import Vertex
    from duckweed.build.solver import Build
    from duckweed.build.state import StageState
    from duckweed.dockerfile.instruction import Instruction

HOSTNAME = "buildkitsandbox"
"""The host name of every step: a name of its own would be an input that nobody can repeat."""
_CONFIG = 5
_CHUNK = 64 * 1024


class RunStep:
    """One RUN on a state."""

    def __init__(self, build: Build, state: StageState, one: Instruction) -> None:
        self._build = build
        self._state = state
        self._one = one
        self.args, self._script = self._command()
        self.mounts = RunMounts(build, state, one)
        for device in one.every("device"):
            if "required" in device.split(","):
                raise one.error(f"device {device.partition(',')[0]}: RUN --device is not supported")
        self.history = run_text(self.args, state.arguments, state.environment)
        self.network = one.flag("network") if one.flag("network") not in ("", "default") else build.network

    def _command(self) -> tuple[list[str], bytes | None]:
        """The words to execute, and the script that a heredoc with a `#!` line is."""
        one = self._one
        if not one.heredocs:
            return with_shell(self._state, one), None
        first = one.heredocs[0]
        if one.arguments[0].startswith("<<") and len(one.arguments[0].split()) == 1:
            content = first.content
            if content.startswith("#!"):
                return ["/dev/pipes/" + first.name], content.encode("utf-8", "surrogateescape")
            return [*self._state.shell, content], None
        text = one.arguments[0]
        for heredoc in one.heredocs:
            text += f"\n{heredoc.text}{heredoc.name}"
        return [*self._state.shell, text], None

    def candidate_keys(self) -> Iterator[str]:
        """The keys to look for: with the layers that binds show, then with what they show of them."""
        if self.mounts.has_layers:
            yield self._key(exact=False)
        yield self._key(exact=True)

    def _key(self, *, exact: bool) -> str:
        state, build = self._state, self._build
        facts: dict[str, Any] = {
            "args": self.args,
            "env": list(state.environment.items()),
            "cwd": state.workdir,
            "user": state.user,
            "mounts": self.mounts.facts(exact=exact),
            "network": self.network,
            "security": self._one.flag("security"),
            "hosts": build.request.add_host,
            "shm": build.request.shm_size,
            "ulimit": build.request.ulimit,
            "platform": str(state.platform),
        }
        if self._script is not None:
            facts["script"] = self._script.hex()
        return key_of("RUN", state.parent, facts)

    # Running.

    def run(self, vertex: Vertex) -> NewLayer:
        """Runs the command and makes the layer. Raises BuildError, StartError, StoreError; InterruptedError
        when the build is cancelled.
        """
        layout = self._build.layout
        self._build.layering.ensure(self._state.chain, self._state.diff_ids)
        directory = scratch.new_directory(layout, "build", layout.tree_tmp)
        try:
            self.mounts.open(directory)
            lower = self._prepare(directory)
            code = self._execute(directory, vertex)
            if code != 0:
                self._build.debug(self, directory, code)
                raise BuildError(
                    f'process "{" ".join(self.args)}" did not complete successfully: exit code: {code}'
                )
            request: dict[str, Any] = {"lower": lower}
            if self._emulation() != "off":
                request["memory"] = directory
            if self._build.place.rootfs == "copy":
                request.update(kind="copy", tree=directory + "/rootfs", lower=[*lower, directory + "/points"])
            else:
                request.update(kind="upper", tree=directory + "/upper")
            if self._build.epoch is not None:
                request["epoch"] = self._build.epoch
            return self._build.layering.add_changes(self._state, request)
        finally:
            self.mounts.close()
            remove_tree(directory, self._build.layering.flavour)

    def _prepare(self, directory: str) -> list[str]:
        """Fills the bundle's directory; the stage's own trees."""
        build = self._build
        for name in ("upper", "work", "points", "rootfs"):
            os.mkdir(f"{directory}/{name}", 0o755)
        lower = build.layering.lower(self._state)
        mounts = list(self.mounts.mounts)
        if self._script is not None:
            mounts += _script_mounts(self._one.heredocs[0].name, self._script)
        layers = LayeredTree(build.layering.layer_directories(self._state.chain))
        below = [build.layout.mountpoints]
        if make_points(layers, mounts, directory + "/points"):
            below.insert(0, directory + "/points")
        self._config = self._compose(directory, [*lower, *below], mounts)
        return lower

    def _compose(self, directory: str, lower: list[str], mounts: list[dict[str, Any]]) -> dict[str, Any]:
        build, state = self._build, self._state
        options = build.run_options()
        options.network = self.network
        if build.place.isolation == "trap":
            options.network = self.network if self.network in (NONE, HOST) else GATE
        options.privileged = self._one.flag("security") == "insecure"
        options.user = state.user
        environment = {**build.proxies, **state.environment, **self.mounts.environment}
        config = {
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "Cmd": self.args,
            "WorkingDir": state.workdir,
        }
        place = build.place
        composed = spec.compose(
            options,
            config,
            container_id=os.urandom(32).hex(),
            directory=directory,
            hostname=HOSTNAME,
            rootfs=spec.rootfs_of(place.rootfs, directory, lower),
            uid_map=place.uid_mappings,
            gid_map=place.gid_mappings,
            namespaces=place.namespaces,
            texts=_texts(options),
            network=_network(build, options),
            ephemeral=True,
            root_emulation=self._emulation(),
            isolation=place.isolation,
        )
        return _with_mounts(composed, mounts)

    def _emulation(self) -> str:
        is_insecure = self._one.flag("security") == "insecure"
        # In the trap isolation it is not a matter of what is allowed: nobody else is there to give files to.
        return (
            "off"
            if is_insecure and self._build.place.isolation != "trap"
            else self._build.place.root_emulation
        )

    def _execute(self, directory: str, vertex: Vertex) -> int:
        running = _Running(self._build, directory, self._config)
        try:
            return running.wait(vertex)
        except StartError as error:
            words = f'process "{" ".join(self.args)}" cannot start: {error.message}'
            raise BuildError(words, error.hint) from None
        finally:
            running.close()

    def shell(self, directory: str) -> None:
        """A shell in the step as it failed, on our own terminal."""
        config = dict(self._config)
        config["process"] = {**config["process"], "args": [self._state.shell[0]]}
        running = _Running(self._build, directory, config, interactive=True)
        try:
            running.wait(None)
        except StartError:
            pass
        finally:
            running.close()


def _with_mounts(config: dict[str, Any], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """The bundle with the step's own mounts, the outer before the inner; they hide the usual files."""
    taken = {mount["destination"] for mount in mounts}
    usual = [mount for mount in config["mounts"] if mount["destination"] not in taken]
    config["mounts"] = usual + sorted(mounts, key=lambda mount: mount["destination"].count("/"))
    return config


def _network(build: Build, options: Options) -> dict[str, Any] | None:
    """The annotation's `network`: the way out that the engine's containers have."""
    if options.network in (NONE, HOST):
        return gate_of_none(build.place) if options.network == NONE else None
    from duckweed.containers import membership

    return membership.annotation(build.engine, options.network, membership.wishes(options, {}), {})


def _texts(options: Options) -> dict[str, str]:
    return {
        "resolv.conf": resolver_file(options.network, (), (), ()),
        "hostname": HOSTNAME + "\n",
        "hosts": hosts_file(HOSTNAME, "", options.network, options.add_host),
    }


def _script_mounts(name: str, script: bytes) -> list[dict[str, Any]]:
    """A heredoc that is a program: a file in /dev/pipes, as BuildKit has it."""
    options = ["hex", "ro", "mode=755", "uid=0", "gid=0"]
    return [
        {
            "destination": f"/dev/pipes/{name}",
            "type": "duckweed-file",
            "options": options,
            "text": script.hex(),
        }
    ]


class _Running:
    """A supervised container whose output is read here."""

    def __init__(
        self, build: Build, directory: str, config: dict[str, Any], *, interactive: bool = False
    ) -> None:
        self._build = build
        self._answer: dict[str, Any] = {}
        self._pid = 0
        self._channel = -1
        self._pipes: list[int] = []
        self._start(directory, config, interactive)

    def _start(self, directory: str, config: dict[str, Any], interactive: bool) -> None:
        memory = os.memfd_create("config.json", os.MFD_CLOEXEC)
        close = [memory]
        try:
            data = memoryview(json.dumps(config).encode("utf-8", "surrogateescape"))
            while data:
                data = data[os.write(memory, data) :]
            if not os.path.lexists(directory + "/config.json"):
                os.symlink(f"/proc/self/fd/{_CONFIG}", directory + "/config.json")
            self._channel, theirs = _core.channel()
            close.append(theirs)
            fds = [(theirs, supervisor.CHANNEL), (memory, _CONFIG)]
            if interactive:
                fds += [(0, 0), (1, 1), (2, 2)]
            else:
                null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                out, their_out = os.pipe()
                close += [null, their_out]
                self._pipes = [out]
                fds += [(null, 0), (their_out, 1), (their_out, 2)]
            argv = [supervisor.RUNTIME, "supervise", "--container", directory]
            argv += ["--channel", str(supervisor.CHANNEL), "--inherit"]
            namespace = self._build.namespace(config)
            if namespace >= 0:
                argv += ["--userns", str(NUMBER)]
                fds.append((namespace, NUMBER))
            try:
                self._pid = _core.spawn(argv, fds)
            except OSError as error:
                raise supervisor.cannot_start(error) from None
        finally:
            for fd in close:
                os.close(fd)

    def wait(self, vertex: Vertex | None) -> int:
        """The exit code. Raises StartError; InterruptedError when the build is cancelled."""
        poll = select.poll()
        watched = {self._channel, self._build.cancel_fd, *self._pipes}
        for fd in watched:
            poll.register(fd, select.POLLIN)
        while self._channel in watched or self._pipes:
            for fd, _ in poll.poll():
                if fd == self._build.cancel_fd:
                    raise InterruptedError
                if fd == self._channel:
                    if not self._hear():
                        poll.unregister(fd)
                        watched.discard(fd)
                    continue
                data = os.read(fd, _CHUNK)
                if data and vertex is not None:
                    vertex.log(data)
                if not data:
                    poll.unregister(fd)
                    self._pipes.remove(fd)
                    os.close(fd)
        return self._outcome()

    def _hear(self) -> bool:
        """Takes what the supervisor says; false when it has closed the channel."""
        message = _core.receive(self._channel, 0)
        if message is None:
            return True
        kind, payload, _ = message
        if kind == b"":
            return False
        if kind in (b"X", b"J"):
            answer = json.loads(payload)
            if kind == b"X" or not answer.get("ok"):
                self._answer = answer
        return True

    def _outcome(self) -> int:
        if "exit_code" in self._answer:
            return int(self._answer["exit_code"])
        raise supervisor.start_error(self._answer.get("error"))

    def close(self) -> None:
        """Ends the container if it still runs, and waits until the supervisor has gone."""
        if self._channel >= 0:
            os.close(self._channel)
            self._channel = -1
        for fd in self._pipes:
            os.close(fd)
        self._pipes.clear()
        if self._pid:
            supervisor.reap(self._pid)
            self._pid = 0
