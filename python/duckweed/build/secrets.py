"""`--secret` and `--ssh`: what a build may use and must never keep."""

from __future__ import annotations

import os

from duckweed.dockerfile.mount import split_fields
from duckweed.errors import BuildError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LIMIT_BYTES = 500 * 1024
"""BuildKit's own limit (session/secrets, MaxSecretSize)."""


class Secrets:
    """The secrets by their ids, read when a step asks for one."""

    def __init__(self, specs: Iterable[str]) -> None:
        self._sources: dict[str, tuple[str, str]] = {}
        for spec in specs:
            self._add(spec)

    def _add(self, spec: str) -> None:
        values: dict[str, str] = {}
        for field in split_fields(spec):
            key, equals, value = field.partition("=")
            key = key.strip().lower()
            if not equals or key not in ("type", "id", "source", "src", "env"):
                raise UsageError(
                    f"invalid secret `{spec}`", "write `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`"
                )
            values["src" if key == "source" else key] = value
        name = values.get("id", "")
        kind = values.get("type", "env" if "env" in values else "file")
        if not name:
            raise UsageError(f"invalid secret `{spec}`: it needs an id")
        if kind not in ("file", "env"):
            raise UsageError(f'unsupported secret type "{kind}"', "it is `file` or `env`")
        if kind == "env" or ("env" not in values and "src" not in values and name in os.environ):
            self._sources[name] = ("env", values.get("env") or values.get("src") or name)
            return
        path = os.path.expanduser(values.get("src") or name)
        if not os.path.isfile(path):
            raise UsageError(f"failed to stat {path}: no such file", "a secret is read from a file")
        self._sources[name] = ("file", os.path.abspath(path))

    def read(self, name: str) -> bytes | None:
        """The bytes of a secret; None when it was not given. Raises BuildError."""
        kind, place = self._sources.get(name, ("", ""))
        if not kind:
            return None
        if kind == "env":
            value = os.environ.get(place)
            return None if value is None else os.fsencode(value)
        try:
            with open(place, "rb") as file:
                content = file.read(_LIMIT_BYTES + 1)
        except OSError as error:
            raise BuildError(f"cannot read secret `{name}`: {(error.strerror or '').lower()}") from None
        if len(content) > _LIMIT_BYTES:
            raise BuildError(f"secret `{name}` is larger than 500 KB")
        return content


class Agents:
    """The ssh agents by their ids. Keys in files are held by an agent of our own, for this build alone."""

    def __init__(self, specs: Iterable[str]) -> None:
        self._sources: dict[str, list[str]] = {}
        self._started: dict[str, tuple[str, str]] = {}
        for spec in specs:
            name, equals, places = spec.partition("=")
            paths = [path for path in places.split(",") if path]
            if equals and not paths:
                raise UsageError(f"invalid ssh `{spec}`", "write `default`, `NAME=SOCKET` or `NAME=KEY,KEY`")
            self._sources[name or "default"] = paths

    def socket(self, name: str) -> str | None:
        """The path of an agent's socket; None when it was not given. Raises BuildError."""
        paths = self._sources.get(name)
        if paths is None:
            return None
        if not paths:
            socket = os.environ.get("SSH_AUTH_SOCK", "")
            if not socket:
                raise BuildError(
                    "invalid empty ssh agent socket: SSH_AUTH_SOCK is not set",
                    f"start an agent, or name a key: `--ssh {name}=~/.ssh/id_ed25519`",
                )
            return socket
        path = os.path.expanduser(paths[0])
        if not os.path.exists(path):
            raise BuildError(f"ssh agent or key `{path}`: no such file")
        if not os.path.isfile(path):
            return path
        if name not in self._started:
            self._started[name] = _start_agent([os.path.expanduser(each) for each in paths])
        return self._started[name][0]

    def close(self) -> None:
        """Ends the agents that were started here."""
        import signal

        for socket, pid in self._started.values():
            try:
                os.kill(int(pid), signal.SIGTERM)
            except (OSError, ValueError):
                pass
            for path in (socket, os.path.dirname(socket)):
                try:
                    os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
                except OSError:
                    pass
        self._started.clear()


def _start_agent(keys: list[str]) -> tuple[str, str]:
    """An ssh-agent with these keys: its socket and its pid."""
    import re
    import subprocess
    import tempfile

    directory = tempfile.mkdtemp(prefix="duckweed-agent-")
    socket = directory + "/agent"
    try:
        done = subprocess.run(["ssh-agent", "-s", "-a", socket], capture_output=True, text=True, check=True)
        environment = {**os.environ, "SSH_AUTH_SOCK": socket, "SSH_ASKPASS_REQUIRE": "never"}
        for key in keys:
            subprocess.run(
                ["ssh-add", key],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            )
    except FileNotFoundError:
        raise BuildError(
            "keys need `ssh-agent` and `ssh-add`, which are not installed", "give an agent's socket instead"
        ) from None
    except subprocess.CalledProcessError as error:
        words = " ".join((error.stderr or "").split()) or "it failed"
        raise BuildError(f"cannot load the ssh key: {words}") from None
    pid = re.search(r"SSH_AGENT_PID=(\d+)", done.stdout)
    return socket, pid[1] if pid else ""
