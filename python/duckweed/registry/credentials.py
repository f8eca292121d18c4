"""Credentials: who the user is at which registry, as `docker login` and `podman login` have left it.

Looked for in Docker's `config.json` (`$DOCKER_CONFIG`, `~/.docker`): `credHelpers` for the registry, then
`credsStore`, then `auths`; then in the `auth.json` of containers' tools. `login` writes to where Docker
would: the helper that is configured, else `auths`. A helper is a program `docker-credential-NAME` that
speaks JSON on stdin and stdout (docker-credential-helpers, README).
"""

from __future__ import annotations

import base64
import json
import os

from duckweed.errors import DuckweedError, StoreError, UsageError
from duckweed.registry.endpoint import HUB_KEY
from duckweed.registry.settings import read_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_HELPER_TIMEOUT_S = 60
_HUB_NAMES = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))
_TOKEN_USER = "<token>"


class Credential:
    """A user name and password, or an identity token that stands for both."""

    __slots__ = ("identity_token", "password", "username")

    def __init__(self, username: str = "", password: str = "", identity_token: str = "") -> None:
        self.username = username
        self.password = password
        self.identity_token = identity_token

    def basic(self) -> str:
        """The value of an `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class CredentialStore:
    """The credentials of one user's configuration."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        home = environ.get("HOME") or os.path.expanduser("~")
        self.path = (environ.get("DOCKER_CONFIG") or home + "/.docker") + "/config.json"

    def find(self, key: str, repository: str = "") -> Credential | None:
        """The credential for a registry (`host[:port]`, or Docker Hub's key). Raises UsageError for files
        and helpers that do not work.
        """
        document = read_document(self.path)
        helper = self._helper(document, key)
        if helper:
            found = self._ask(helper, key)
            if found is not None:
                return found
        return _from_auths(document, key, repository) or self._from_containers(key, repository)

    def save(self, key: str, credential: Credential) -> str:
        """Keeps a credential; returns the file that now has it in the clear, or "" when a helper has it."""
        document = read_document(self.path)
        helper = self._helper(document, key)
        auths = document.setdefault("auths", {})
        if helper:
            request = {
                "ServerURL": key,
                "Username": _TOKEN_USER if credential.identity_token else credential.username,
                "Secret": credential.identity_token or credential.password,
            }
            _run(helper, "store", json.dumps(request))
            auths[key] = {}
        else:
            pair = f"{credential.username}:{'' if credential.identity_token else credential.password}"
            auths[key] = {"auth": base64.b64encode(pair.encode()).decode()}
            if credential.identity_token:
                auths[key]["identitytoken"] = credential.identity_token
        self._write(document)
        return "" if helper else self.path

    def remove(self, key: str) -> bool:
        """Forgets a registry's credentials; false when there were none."""
        document = read_document(self.path)
        helper = self._helper(document, key)
        was_there = False
        for name in _spellings(key):
            was_there = (document.get("auths") or {}).pop(name, None) is not None or was_there
        if helper:
            was_there = self._ask(helper, key) is not None or was_there
            _run(helper, "erase", key)
        if was_there:
            self._write(document)
        return was_there

    def known(self) -> list[str]:
        """The registries that `auths` of config.json has something about."""
        return sorted(read_document(self.path).get("auths") or {})

    def _helper(self, document: dict[str, Any], key: str) -> str:
        helpers = document.get("credHelpers") or {}
        for name in _spellings(key):
            if isinstance(helpers.get(name), str):
                return str(helpers[name])
        store = document.get("credsStore")
        return store if isinstance(store, str) else ""

    def _ask(self, helper: str, key: str) -> Credential | None:
        answer = _run(helper, "get", key, missing_is_fine=True)
        if answer is None:
            return None
        try:
            document = json.loads(answer)
            username, secret = str(document["Username"]), str(document["Secret"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"`docker-credential-{helper}` answered something that is no credential"
            ) from None
        if username == _TOKEN_USER:
            return Credential(identity_token=secret)
        return Credential(username, secret) if username or secret else None

    def _from_containers(self, key: str, repository: str) -> Credential | None:
        home = self._environ.get("HOME") or os.path.expanduser("~")
        config = self._environ.get("XDG_CONFIG_HOME") or home + "/.config"
        runtime = self._environ.get("XDG_RUNTIME_DIR", "")
        paths = [self._environ.get("REGISTRY_AUTH_FILE", "")]
        paths += [runtime + "/containers/auth.json" if runtime else "", config + "/containers/auth.json"]
        for path in filter(None, paths):
            found = _from_auths(read_document(path), key, repository)
            if found is not None:
                return found
        return None

    def _write(self, document: dict[str, Any]) -> None:
        """Replaces config.json whole; it may be a link to elsewhere, which stays one."""
        path = os.path.realpath(self.path)
        half = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump(document, file, indent="\t")
                file.flush()
                os.fsync(file.fileno())
            os.rename(half, path)
        except OSError as error:
            try:
                os.unlink(half)
            except OSError:
                pass
            raise StoreError(f"cannot write `{path}`: {(error.strerror or str(error)).lower()}") from None


def _spellings(key: str) -> list[str]:
    """The names under which tools have kept credentials for one registry."""
    if key == HUB_KEY:
        return [HUB_KEY, "docker.io", "index.docker.io", "registry-1.docker.io"]
    forms = ["{}", "https://{}", "http://{}", "https://{}/", "http://{}/"]
    forms += ["https://{}/v1/", "https://{}/v2/", "http://{}/v1/", "http://{}/v2/"]
    return [form.format(key) for form in forms]


def _from_auths(document: dict[str, Any], key: str, repository: str) -> Credential | None:
    auths = document.get("auths")
    if not isinstance(auths, dict):
        return None
    # containers-auth.json(5): the longest namespace first, then the registry.
    host = "docker.io" if key == HUB_KEY else key
    parts = repository.split("/") if repository else []
    names = [f"{host}/{'/'.join(parts[:n])}" for n in range(len(parts), 0, -1)] + _spellings(key)
    for name in names:
        entry = auths.get(name)
        found = _read_entry(entry) if isinstance(entry, dict) else None
        if found is not None:
            return found
    return None


def _read_entry(entry: dict[str, Any]) -> Credential | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credential(identity_token=token)
    packed = entry.get("auth")
    if isinstance(packed, str) and packed:
        try:
            username, colon, password = base64.b64decode(packed, validate=False).decode().partition(":")
        except ValueError:
            return None
        return Credential(username, password.rstrip("\0")) if colon else None
    name, secret = entry.get("username"), entry.get("password")
    return Credential(name, secret) if isinstance(name, str) and isinstance(secret, str) and name else None


def _run(helper: str, verb: str, text: str, *, missing_is_fine: bool = False) -> str | None:
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], input=text, capture_output=True, text=True, timeout=_HELPER_TIMEOUT_S
        )
    except FileNotFoundError:
        if missing_is_fine:
            return None
        raise UsageError(
            f"cannot {verb} credentials: `{program}` is configured but not in PATH",
            "install it, or take `credsStore` and `credHelpers` out of Docker's config.json",
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise DuckweedError(f"cannot {verb} credentials with `{program}`: {error}") from None
    if done.returncode == 0:
        return done.stdout
    words = " ".join((done.stdout + " " + done.stderr).split())
    if missing_is_fine and ("not found" in words or "no credentials" in words):
        return None
    raise DuckweedError(f"cannot {verb} credentials with `{program}`: {words or 'it failed'}")


def key_of(registry: str) -> str:
    """The key of a registry's credentials: what `login` is given, without scheme and path."""
    bare = registry.split("://", 1)[-1].split("/", 1)[0]
    return HUB_KEY if bare in _HUB_NAMES or not bare else bare
