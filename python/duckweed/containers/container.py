"""One container: its life from `created` to removed, told by its directory and its supervisor."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from duckweed.engine import Result


class Container:
    """One container of the store.

    `id`, `short_id`, `name` (without slash), `status` ("created" | "running" | "exited" ...),
    `attrs` (docker inspect's dict, computed now), `summary` (what ps shows: docker's /containers/json dict).
    """

    id: str
    short_id: str
    name: str

    @property
    def status(self) -> str:
        """`created`, `running`, `exited`; read from disk and the kernel each time."""
        raise NotImplementedError

    @property
    def attrs(self) -> dict[str, Any]:
        """`docker inspect`'s dict."""
        raise NotImplementedError

    @property
    def summary(self) -> dict[str, Any]:
        """Docker's /containers/json dict: Id Names Image ImageID Command Created Ports Labels State Status Mounts NetworkSettings HostConfig."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it detached; nothing happens when it runs already. Raises `StartError`."""
        raise NotImplementedError

    def launch(self, *, attach: Sequence[str] = ("stdout", "stderr"), stdin: bool = False, rows: int = 0, cols: int = 0) -> int:
        """Starts it for an attached client and returns the channel's descriptor (inheritable), for `attach_argv(channel=fd)`.

        `attach` names the streams wanted. The client's attach message is in the channel before the supervisor starts,
        so no output is lost. Raises `StartError`.
        """
        raise NotImplementedError

    def attach_argv(
        self,
        *,
        channel: int | None = None,
        stdin: bool = False,
        no_stdout: bool = False,
        sig_proxy: bool = True,
        detach_keys: str | None = None,
    ) -> list[str]:
        """The command line that the CLI `os.execv`s into: argv[0] is the runtime's path. With `channel` the one from `launch`."""
        raise NotImplementedError

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
        """The command line that the CLI `os.execv`s into for `exec`. Raises `WrongState` unless the container runs."""
        raise NotImplementedError

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
        """Runs a command in the running container and waits for it."""
        raise NotImplementedError

    def stop(self, timeout: float | None = None, signal: str | int | None = None) -> None:
        """Sends the stop signal, waits `timeout` seconds (its own StopTimeout, 10), then SIGKILL; -1 waits for ever."""
        raise NotImplementedError

    def kill(self, signal: str | int = "KILL") -> None:
        """Sends a signal to init. Raises `WrongState` unless it runs."""
        raise NotImplementedError

    def restart(self, timeout: float | None = None) -> None:
        """Stops and starts it."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the exit code. `TimeoutError` after `timeout` seconds."""
        raise NotImplementedError

    def remove(self, force: bool = False, volumes: bool = False) -> None:
        """Removes it; `force` kills first; `volumes` removes its anonymous volumes."""
        raise NotImplementedError

    def rename(self, name: str) -> None:
        """Gives it another name."""
        raise NotImplementedError

    def logs(
        self,
        *,
        follow: bool = False,
        tail: int | str = "all",
        since: str | float | None = None,
        until: str | float | None = None,
        timestamps: bool = False,
    ) -> Iterator[tuple[str, bytes]]:
        """The log as `(stream, bytes)` pieces; a piece usually is one line."""
        raise NotImplementedError

    def top(self, ps_args: str = "") -> dict[str, Any]:
        """`{"Titles": [...], "Processes": [[...], ...]}` of its processes."""
        raise NotImplementedError

    def port(self, private: str | None = None) -> dict[str, Any]:
        """Published ports: `{"80/tcp": [{"HostIp", "HostPort"}]}`; none in this release."""
        raise NotImplementedError
