"""`--secret` and `--ssh`: what a build may use and must never keep."""

from __future__ import annotations

import os
import threading

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
        self._started: dict[str, _OwnAgent] = {}
        self._lock = threading.Lock()
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
        with self._lock:
            if name not in self._started:
                self._started[name] = _OwnAgent([os.path.expanduser(each) for each in paths])
            return self._started[name].socket

    def close(self) -> None:
        """Ends the agents that were started here."""
        for agent in self._started.values():
            agent.close()
        self._started.clear()


# The agent lives as long as this script, and this script as long as somebody holds the other end of its
# stdin: however this process ends, the keys go.
_GUARD = 'echo ready; cat > /dev/null; kill "$SSH_AGENT_PID"; rm -rf -- "$0"'


class _OwnAgent:
    """An ssh-agent that holds these keys; `socket` is its path."""

    def __init__(self, keys: list[str]) -> None:
        import subprocess
        import tempfile

        place = tempfile.gettempdir()
        # A socket's path has 107 bytes at most (unix(7)).
        self._directory = tempfile.mkdtemp(prefix="duckweed-agent-", dir=place if len(place) < 70 else "/tmp")
        self.socket = self._directory + "/agent"
        self._guard: subprocess.Popen[bytes] | None = None
        try:
            self._guard = subprocess.Popen(
                ["ssh-agent", "-a", self.socket, "/bin/sh", "-c", _GUARD, self._directory],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert self._guard.stdout is not None
            if self._guard.stdout.readline() != b"ready\n":
                raise BuildError("cannot start an ssh-agent for the key")
            for key in keys:
                self._add(key)
        except FileNotFoundError:
            self.close()
            raise BuildError(
                "keys need `ssh-agent` and `ssh-add`, which are not installed",
                "give an agent's socket instead",
            ) from None
        except BaseException:
            self.close()
            raise

    def _add(self, key: str) -> None:
        import subprocess

        environment = {**os.environ, "SSH_AUTH_SOCK": self.socket, "SSH_ASKPASS_REQUIRE": "never"}
        done = subprocess.run(
            ["ssh-add", key],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = " ".join((done.stderr or "").split()) or "it failed"
            raise BuildError(f"cannot load the ssh key: {words}")

    def close(self) -> None:
        """Ends the agent and removes its socket."""
        import shutil

        if self._guard is not None:
            assert self._guard.stdin is not None and self._guard.stdout is not None
            self._guard.stdin.close()
            self._guard.stdout.close()
            self._guard.wait()
            self._guard = None
        shutil.rmtree(self._directory, ignore_errors=True)
