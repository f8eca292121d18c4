"""The instructions that change nothing but the image's config: ENV, LABEL, CMD, USER and the others.

Each takes the state, the instruction and the build, and records its line of history in BuildKit's words.
"""

from __future__ import annotations

import posixpath

from duckweed.build import wording
from duckweed.build.ports import exposed_ports
from duckweed.containers.signals import parse_signal
from duckweed.dockerfile import health
from duckweed.dockerfile.scope import NO_VARIABLES, expand_in, expand_words
from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duckweed.build.state import StageState
    from duckweed.dockerfile.instruction import Instruction


class Arguments:
    """Where an ARG can take its value from: `given` by `--build-arg`, and the `scope` before the FROMs."""

    __slots__ = ("given", "scope")

    def __init__(self, given: Mapping[str, str], scope: Mapping[str, str]) -> None:
        self.given = given
        self.scope = scope


def apply(state: StageState, one: Instruction, arguments: Arguments) -> bool:
    """Applies a config instruction; False when it is none of them. Raises DockerfileError."""
    step = _STEPS.get(one.keyword)
    if step is None:
        return False
    step(state, one, arguments)
    return True


def _expand(state: StageState, one: Instruction, word: str) -> str:
    return expand_in(one, word, state.environment)


def _env(state: StageState, one: Instruction, _: Arguments) -> None:
    # All values see the variables as they were before the instruction.
    pairs = [(_expand(state, one, p.name), _expand(state, one, p.value or "")) for p in one.pairs]
    for name, value in pairs:
        state.set_variable(name, value)
    state.record(" ".join(["ENV", *(f"{name}={value}" for name, value in pairs)]))


def _label(state: StageState, one: Instruction, _: Arguments) -> None:
    pairs = [(_expand(state, one, p.name), _expand(state, one, p.value or "")) for p in one.pairs]
    labels = state.config.get("Labels") or {}
    state.config["Labels"] = {**labels, **dict(pairs)}
    state.record(" ".join(["LABEL", *(f"{name}={value}" for name, value in pairs)]))


def _arg(state: StageState, one: Instruction, arguments: Arguments) -> None:
    shown = []
    for pair in one.pairs:
        value = pair.value
        if pair.name in arguments.given:
            value = arguments.given[pair.name]
        elif value is None:
            value = arguments.scope.get(pair.name)
        else:
            value = _expand(state, one, value)
        if value is not None and pair.name not in NO_VARIABLES:
            state.environment[pair.name] = value
        state.arguments.pop(pair.name, None)
        state.arguments[pair.name] = value or ""
        shown.append(pair.name if value is None else f"{pair.name}={value}")
    state.record("ARG " + " ".join(shown))


def with_shell(state: StageState, one: Instruction) -> list[str]:
    """The words that the instruction means: the JSON form as it is, the shell form with the shell before."""
    if one.is_list:
        return list(one.arguments)
    return [*state.shell, " ".join(one.arguments)]


def _cmd(state: StageState, one: Instruction, _: Arguments) -> None:
    words = with_shell(state, one)
    state.config["Cmd"] = words
    state.config["ArgsEscaped"] = True
    state.has_cmd = True
    state.record("CMD " + wording.quoted_list(words))


def _entrypoint(state: StageState, one: Instruction, _: Arguments) -> None:
    words = with_shell(state, one)
    _set(state, "Entrypoint", words if words else None)
    if not state.has_cmd:
        state.config.pop("Cmd", None)
    state.record("ENTRYPOINT " + wording.quoted_list(words))


def _set(state: StageState, name: str, value: object) -> None:
    if value is None:
        state.config.pop(name, None)
    else:
        state.config[name] = value


def _health_check(state: StageState, one: Instruction, _: Arguments) -> None:
    check = {"Test": list(one.arguments), **health.settings(one.flags)}
    state.config["Healthcheck"] = check
    state.record("HEALTHCHECK " + wording.health_check(check))


def _expose(state: StageState, one: Instruction, _: Arguments) -> None:
    ports: list[str] = []
    try:
        for argument in one.arguments:
            for word in expand_words(one, argument, state.environment):
                ports += exposed_ports(word)
    except ValueError as error:
        raise one.error(str(error)) from None
    known = state.config.get("ExposedPorts") or {}
    state.config["ExposedPorts"] = {**known, **{port: {} for port in ports}}
    state.record("EXPOSE " + wording.plain_list(ports))


def _user(state: StageState, one: Instruction, _: Arguments) -> None:
    state.config["User"] = _expand(state, one, one.arguments[0])
    state.record(f"USER {state.config['User']}")


def _volume(state: StageState, one: Instruction, _: Arguments) -> None:
    paths = [_expand(state, one, word) for word in one.arguments]
    if not all(paths):
        raise one.error("VOLUME specified can not be an empty string")
    state.config["Volumes"] = {**(state.config.get("Volumes") or {}), **{path: {} for path in paths}}
    state.record("VOLUME " + wording.plain_list(paths))


def _stop_signal(state: StageState, one: Instruction, _: Arguments) -> None:
    word = _expand(state, one, one.arguments[0])
    try:
        parse_signal(word)
    except UsageError as error:
        raise one.error(error.message, error.hint) from None
    state.config["StopSignal"] = word
    state.record(f"STOPSIGNAL {word}")


def _shell(state: StageState, one: Instruction, _: Arguments) -> None:
    state.config["Shell"] = list(one.arguments)
    state.record("SHELL " + wording.plain_list(one.arguments))


def _maintainer(state: StageState, one: Instruction, _: Arguments) -> None:
    state.document["author"] = one.arguments[0]
    state.record(f"MAINTAINER {one.arguments[0]}")


def _onbuild(state: StageState, one: Instruction, _: Arguments) -> None:
    state.config.setdefault("OnBuild", []).append(one.arguments[0])


def workdir(state: StageState, one: Instruction) -> str:
    """The absolute path that a WORKDIR means; it is the state's from now on."""
    path = posixpath.join(state.workdir, _expand(state, one, one.arguments[0]))
    path = "/" + posixpath.normpath(path).lstrip("/")
    state.workdir = path
    state.config["WorkingDir"] = path
    return path


_STEPS: dict[str, Callable[[StageState, Instruction, Arguments], None]] = {
    "ARG": _arg,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
}
