"""Changes: the Dockerfile instructions that `import --change` takes, applied to an image's run config.

CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR; each as one
line.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Config = dict[str, Any]

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_HEALTH_FLAGS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def apply_changes(config: Config, changes: Sequence[str]) -> None:
    """Applies each instruction in order. Raises UsageError naming the instruction."""
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise UsageError(f"{word.upper() or 'an empty line'} is not a valid change command")
        rest = rest.strip()
        if not rest:
            raise UsageError(f"invalid change `{line}`: {word.upper()} needs an argument")
        try:
            apply(config, rest)
        except ValueError as error:
            raise UsageError(f"invalid change `{line}`: {error}") from None


def _words(text: str) -> list[str]:
    """The JSON form, or the shell form as `/bin/sh -c`."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return ["/bin/sh", "-c", text]


def _pairs(text: str) -> dict[str, str]:
    """`K=V K2="V 2"`, or the old `K the rest`."""
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) != 2:
            raise ValueError("no value")
        return {first[0]: first[1]}
    pairs = {}
    for word in shlex.split(text):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"`{word}` is not KEY=VALUE")
        pairs[key] = value
    return pairs


def _set_cmd(config: Config, text: str) -> None:
    config["Cmd"] = _words(text)


def _set_entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _words(text)


def _add_env(config: Config, text: str) -> None:
    env = {word.partition("=")[0]: word for word in config.get("Env") or []}
    env.update({key: f"{key}={value}" for key, value in _pairs(text).items()})
    config["Env"] = list(env.values())


def _add_ports(config: Config, text: str) -> None:
    ports = config.setdefault("ExposedPorts", {})
    for word in text.split():
        match = _PORT.match(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if match is None or not 0 < first <= last < 65536:
            raise ValueError(f"`{word}` is not a port")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}


def _add_labels(config: Config, text: str) -> None:
    config.setdefault("Labels", {}).update(_pairs(text))


def _set_user(config: Config, text: str) -> None:
    if len(text.split()) != 1:
        raise ValueError("one user")
    config["User"] = text


def _add_volumes(config: Config, text: str) -> None:
    paths = _words(text) if text.startswith("[") else text.split()
    for path in paths:
        if not path.strip():
            raise ValueError("a volume needs a path")
        config.setdefault("Volumes", {})[path] = {}


def _set_workdir(config: Config, text: str) -> None:
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", text))


def _add_onbuild(config: Config, text: str) -> None:
    if text.split()[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise ValueError(f"{text.split()[0].upper()} is not allowed as an ONBUILD trigger")
    config.setdefault("OnBuild", []).append(text)


def _set_stop_signal(config: Config, text: str) -> None:
    config["StopSignal"] = text


def _set_health_check(config: Config, text: str) -> None:
    check: dict[str, Any] = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag[2:].partition("=")
        if name == "retries" and value.isdigit():
            check["Retries"] = int(value)
        elif name in _HEALTH_FLAGS:
            check[_HEALTH_FLAGS[name]] = _nanoseconds(value)
        else:
            raise ValueError(f"unknown flag `{flag}`")
        text = text.strip()
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        check = {"Test": ["NONE"]}
    elif kind.upper() == "CMD" and command.strip():
        words = _words(command.strip())
        check["Test"] = ["CMD-SHELL", words[2]] if words[:2] == ["/bin/sh", "-c"] else ["CMD", *words]
    else:
        raise ValueError("it is `CMD command` or `NONE`")
    config["Healthcheck"] = check


def _nanoseconds(text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"`{text}` is not a duration")
    return int(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _set_cmd,
    "ENTRYPOINT": _set_entrypoint,
    "ENV": _add_env,
    "EXPOSE": _add_ports,
    "HEALTHCHECK": _set_health_check,
    "LABEL": _add_labels,
    "ONBUILD": _add_onbuild,
    "STOPSIGNAL": _set_stop_signal,
    "USER": _set_user,
    "VOLUME": _add_volumes,
    "WORKDIR": _set_workdir,
}
