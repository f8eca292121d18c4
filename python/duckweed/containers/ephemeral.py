"""`engine.run`: a container that lives exactly as long as one call.

The fast path. The bundle is made like any other, but without a name, a log or an attach socket's client:
the command has our pipes as its stdio, the supervisor tells the exit code on the channel and removes
everything, and when this process dies the channel closes and the container with it. Each call keeps its
own state, so any number of threads and tasks may be in here at once.

A usual container (no name, no volume, the usual namespaces) is an *order*: its documents go to a
supervisor that waits, which has a directory for it (docs/contracts.md §7), and nothing is written from here.
"""

from __future__ import annotations

import json
import os

from duckweed import _core
from duckweed.containers import creation, spec, supervisor
from duckweed.containers.network import DEFAULT, NONE, SHARED
from duckweed.containers.options import parse
from duckweed.containers.shared_namespace import NUMBER
from duckweed.errors import CommandFailed, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.engine import Engine, Result

_CHUNK = 64 * 1024
# What fits a message (docs/contracts.md §6), less some room for what stands around it.
_LONGEST_ORDER = 60 * 1024


class Bundle:
    """A prepared container: `order` is for a supervisor that waits, else `argv` runs it. `finish` judges what
    came of it.
    """

    __slots__ = ("argv", "fds", "order", "plan", "word")

    def __init__(
        self,
        engine: Engine,
        image: str,
        command: str | Sequence[str] | None,
        options: Mapping[str, Any],
        *,
        may_order: bool = True,
    ) -> None:
        from duckweed.containers.collection import find_image

        parsed = parse(command, options)
        if parsed.tty or parsed.interactive:
            raise UsageError(
                "engine.run has no terminal and takes its input as `input=`",
                "use `engine.containers.run(..., tty=True)`, or the command line",
            )
        parsed.rm = True
        if parsed.network == DEFAULT and not (parsed.publish or parsed.publish_all):
            # A network costs more than all the rest of a short run (docs/network.md); who needs one says so.
            parsed.network = NONE
        found = find_image(engine, image, parsed.pull, parsed.platform)
        if parsed.platform:
            creation.check_platform(found, parsed.platform)
        if parsed.name:
            creation.refuse_taken(engine, parsed.name)
        self.word = spec.process_args(found.run_config, parsed)[0]
        self.argv: list[str] = []
        self.fds: list[tuple[int, int]] = []
        place = engine.place(parsed.isolation)
        shared = engine.shared_namespace(place)
        namespace = -1 if parsed.privileged or place.isolation == "trap" else shared.descriptor()
        is_usual = (
            may_order
            and namespace >= 0
            and place.rootfs != "copy"
            and len(place.namespaces) == 7
            and parsed.network == NONE
            and not (place.scratch or parsed.scratch)
            and not (parsed.name or parsed.mounts or found.run_config.get("Volumes"))
        )
        self.order = self._order(engine, found, parsed, shared.standbys) if is_usual else None
        if self.order is None:
            self._write(engine, found, parsed, namespace)

    def _order(
        self, engine: Engine, found: Any, parsed: Any, standbys: _core.Standbys | None
    ) -> tuple[_core.Standbys, bytes, bytes, bytes] | None:
        """The documents for a supervisor that waits; None when they are too long for a message."""
        self.plan = plan = creation.Plan(engine, found, parsed, is_drafted=False)
        record = json.dumps(plan.record(ephemeral=True)).encode()
        config = plan.spec_text(True).encode()
        path = os.fsencode(plan.draft.final_path)
        if standbys is None or len(path) + len(record) + len(config) > _LONGEST_ORDER:
            return None
        return standbys, path, record, config

    def _write(self, engine: Engine, found: Any, parsed: Any, namespace: int) -> None:
        """Puts the container into the store and says how to run it."""
        self.plan = plan = creation.Plan(engine, found, parsed)
        try:
            if plan.points:
                creation.copy_up(plan)
            plan.write(ephemeral=True)
            record = plan.record(ephemeral=True)
            if parsed.name:
                engine.container_store.commit(plan.draft, parsed.name, record)
            else:
                # Nobody knows this container yet, so container.json needs no rename of its own.
                creation.write_file(plan.draft.path + "/container.json", json.dumps(record))
                os.rename(plan.draft.path, plan.draft.final_path)
            plan.check_still_there()
        except BaseException:
            plan.give_up()
            self.sweep()
            raise
        self.argv = [
            supervisor.RUNTIME,
            "supervise",
            "--container",
            plan.draft.final_path,
            "--channel",
            str(supervisor.CHANNEL),
            "--inherit",
        ]
        # Members of named networks share a user namespace of their own.
        alone = plan.joined or parsed.network.startswith(SHARED)
        if namespace >= 0 and not alone:
            self.argv += ["--userns", str(NUMBER)]
            self.fds.append((namespace, NUMBER))

    def sweep(self) -> None:
        """Removes what a killed supervisor could not; one look when there is nothing."""
        plan = self.plan
        if os.path.lexists(plan.draft.final_path):
            from duckweed.errors import NoSuchContainer

            try:
                plan.engine.container_store.remove(plan.draft.id, plan.place.layers)
            except NoSuchContainer:
                pass
            plan.engine.discard_volumes(plan.points)

    def finish(
        self, exit_code: int, error: str, stdout: bytes, stderr: bytes, timed_out: bool, check: bool
    ) -> Result:
        """The Result. Raises StartError, and CommandFailed when `check` is set."""
        from duckweed.engine import Result

        if error and not timed_out:
            if self.order is not None:
                self.plan.check_still_there()  # a missing layer says more than a failed mount
            raise supervisor.start_error(error)
        if timed_out:
            exit_code = 137
        result = Result(exit_code, stdout, stderr, timed_out)
        if check and exit_code != 0:
            why = "took too long and was killed" if timed_out else f"exited with {exit_code}"
            raise CommandFailed(f"`{self.word}` {why}", result)
        return result


def as_bytes(input: Any) -> bytes | None:
    """What to feed: bytes, text in UTF-8, or all that an open file holds."""
    if input is None or isinstance(input, bytes):
        return input
    if isinstance(input, str):
        return input.encode()
    if hasattr(input, "read"):
        return as_bytes(input.read())
    return bytes(input)


def run(
    engine: Engine,
    image: str,
    command: str | Sequence[str] | None,
    *,
    input: Any,
    timeout: float | None,
    check: bool,
    capture: bool,
    options: Mapping[str, Any],
) -> Result:
    """See `Engine.run`."""
    data = as_bytes(input)
    if timeout is not None and timeout < 0:
        raise UsageError("timeout must not be negative")
    bundle = Bundle(engine, image, command, options)
    try:
        end = _core.run_inherit(
            bundle.argv,
            channel_fd=supervisor.CHANNEL,
            stdin=data,
            capture=capture,
            timeout_s=timeout,
            fds=bundle.fds,
            standbys=bundle.order,
        )
    except OSError as error:
        raise supervisor.cannot_start(error) from None
    finally:
        bundle.sweep()
    return bundle.finish(end.exit_code, end.error, end.stdout, end.stderr, end.timed_out, check)


async def run_async(
    engine: Engine,
    image: str,
    command: str | Sequence[str] | None,
    *,
    input: Any,
    timeout: float | None,
    check: bool,
    capture: bool,
    options: Mapping[str, Any],
) -> Result:
    """See `Engine.run_async`. No thread: the event loop watches the pipes and the channel."""
    import asyncio

    data = as_bytes(input)
    bundle = Bundle(engine, image, command, options, may_order=False)
    watch = _Watch(asyncio.get_running_loop())
    timed_out = False
    try:
        watch.start(bundle.argv, bundle.fds, data, capture)
        try:
            await asyncio.wait_for(asyncio.shield(watch.done), timeout)
        except asyncio.TimeoutError:
            timed_out = True
    finally:
        # Also when the task is cancelled: closing the channel kills the container.
        watch.close_channel()
        status = await watch.reap()
        watch.close()
        bundle.sweep()
    exit_code, error = watch.outcome(status)
    return bundle.finish(exit_code, error, bytes(watch.stdout), bytes(watch.stderr), timed_out, check)


class _Watch:
    """One ephemeral container as seen by an event loop. `done` is set when channel and pipes have ended."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.done = loop.create_future()
        self.pid = 0
        self.channel = self.stdin = self.out = self.err = -1
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.answer: dict[str, Any] = {}
        self.feed = memoryview(b"")

    def start(
        self, argv: Sequence[str], passed: Sequence[tuple[int, int]], data: bytes | None, capture: bool
    ) -> None:
        """Spawns the supervisor with our pipes. Raises StartError."""
        self.channel, theirs = _core.channel()
        fds = [(theirs, supervisor.CHANNEL), *passed]
        close = [theirs]
        try:
            if data is None:
                close.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            else:
                read, self.stdin = os.pipe()
                close.append(read)
            fds.append((close[-1], 0))
            if capture:
                self.out, out = os.pipe()
                self.err, err = os.pipe()
                close += [out, err]
                fds += [(out, 1), (err, 2)]
            else:
                fds += [(1, 1), (2, 2)]
            self.pid = _core.spawn(argv, fds)
        except OSError as error:
            raise supervisor.cannot_start(error) from None
        finally:
            for fd in close:
                os.close(fd)
        self._watch(data)

    def _watch(self, data: bytes | None) -> None:
        self.loop.add_reader(self.channel, self._on_channel)
        for fd, into in ((self.out, self.stdout), (self.err, self.stderr)):
            if fd >= 0:
                os.set_blocking(fd, False)
                self.loop.add_reader(fd, self._on_output, fd, into)
        if self.stdin >= 0:
            self.feed = memoryview(data or b"")
            os.set_blocking(self.stdin, False)
            self.loop.add_writer(self.stdin, self._on_writable)

    def _on_channel(self) -> None:
        message = _core.receive(self.channel, 0)
        if message is None:
            return
        kind, payload, _ = message
        if kind in (b"X", b"J"):
            answer = json.loads(payload)
            if kind == b"X" or not answer.get("ok"):
                self.answer = answer
            return
        if kind == b"":
            self.close_channel()
            self._check_done()

    def _on_output(self, fd: int, into: bytearray) -> None:
        try:
            block = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        into += block
        if not block:
            self.loop.remove_reader(fd)
            os.close(fd)
            if fd == self.out:
                self.out = -1
            else:
                self.err = -1
            self._check_done()

    def _on_writable(self) -> None:
        try:
            self.feed = self.feed[os.write(self.stdin, self.feed) :] if self.feed else self.feed
        except BlockingIOError:
            return
        except OSError:
            self.feed = self.feed[:0]  # EPIPE: the command did not want the rest
        if not self.feed:
            self.loop.remove_writer(self.stdin)
            os.close(self.stdin)
            self.stdin = -1

    def _check_done(self) -> None:
        if self.channel < 0 and self.out < 0 and self.err < 0 and not self.done.done():
            self.done.set_result(None)

    def close_channel(self) -> None:
        """The supervisor takes the end of the channel for the end of our interest."""
        if self.channel >= 0:
            self.loop.remove_reader(self.channel)
            os.close(self.channel)
            self.channel = -1

    async def reap(self) -> int:
        """The supervisor's own exit status; it ends right after its channel."""
        import asyncio

        pause_s = 0.0005
        while self.pid:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                break  # somebody's waitpid(-1) took it
            if pid:
                self.pid = 0
                return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 137
            try:
                await asyncio.sleep(pause_s)
            except asyncio.CancelledError:
                pass  # it is dying already; leaving now would leave a zombie
            pause_s = min(pause_s * 2, 0.02)
        return 125

    def close(self) -> None:
        """Lets go of everything that is still open."""
        for fd, remove in (
            (self.out, self.loop.remove_reader),
            (self.err, self.loop.remove_reader),
            (self.stdin, self.loop.remove_writer),
        ):
            if fd >= 0:
                remove(fd)
                os.close(fd)
        self.out = self.err = self.stdin = -1

    def outcome(self, status: int) -> tuple[int, str]:
        """Exit code and StartError JSON, as `_core.run_inherit` gives them."""
        if "exit_code" in self.answer:
            return int(self.answer["exit_code"]), ""
        if "error" in self.answer:
            return 125, json.dumps(self.answer["error"])
        return status, ""
