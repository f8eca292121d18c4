"""The rules of `build --check`, a function for each idea; names as in Docker's list of build checks."""

from __future__ import annotations

import re
from difflib import get_close_matches

from duckweed.dockerfile.glob import clean
from duckweed.dockerfile.scope import NO_VARIABLES, global_scope
from duckweed.dockerfile.variables import BadSubstitution, Expansion, expand
from duckweed.errors import DuckweedError, UsageError
from duckweed.oci.platform import Platform
from duckweed.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from duckweed.dockerfile.instruction import Instruction
    from duckweed.dockerfile.lint import Report, Surroundings
    from duckweed.dockerfile.stages import Dockerfile, Stage

RULES = {
    "ConsistentInstructionCasing": "Instructions should all be in capitals, or all in small letters",
    "CopyIgnoredFile": "COPY and ADD cannot see what .dockerignore leaves out",
    "DuplicateStageName": "Stage names should be unique",
    "ExposeInvalidFormat": "EXPOSE takes ports of the container, no address and no port of the host",
    "ExposeProtoCasing": "The protocol in EXPOSE should be in small letters",
    "FromAsCasing": "The casing of AS should match that of FROM",
    "FromPlatformFlagConstDisallowed": "FROM --platform should not be a constant",
    "InvalidBaseImagePlatform": "The base image should be for the target platform",
    "InvalidDefaultArgInFrom": "The default values of ARG should give a valid base image",
    "InvalidDefinitionDescription": "A comment above FROM or ARG should begin with the name it describes",
    "JSONArgsRecommended": "CMD and ENTRYPOINT in JSON form let the program receive signals",
    "LegacyKeyValueFormat": "ENV and LABEL should be written with `=`",
    "MaintainerDeprecated": "MAINTAINER is deprecated; use a label",
    "MultipleInstructionsDisallowed": "Only the last CMD, ENTRYPOINT and HEALTHCHECK of a stage counts",
    "NoEmptyContinuation": "An empty line within an instruction will be an error one day",
    "RedundantTargetPlatform": "$TARGETPLATFORM is what FROM uses anyway",
    "ReservedStageName": "`scratch` and `context` should not be names of stages",
    "SecretsUsedInArgOrEnv": "Secrets should not be in ARG or ENV, where the image keeps them",
    "StageNameCasing": "Stage names should be in small letters",
    "UndefinedArgInFrom": "FROM should use declared ARGs only",
    "UndefinedVar": "Variables should be defined before they are used",
    "WorkdirRelativePath": "A relative WORKDIR depends on the base image",
}
EXPERIMENTAL = frozenset(("InvalidDefinitionDescription",))
_SECRET = re.compile(
    r"(?:_|\A)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|\Z)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|\A)(?:public|file|version)(?:_|\Z)", re.IGNORECASE)
_ONCE = ("CMD", "ENTRYPOINT", "HEALTHCHECK")


def _every(dockerfile: Dockerfile) -> Iterable[Instruction]:
    for stage in dockerfile.stages:
        yield stage.opening
        yield from stage.instructions


def _casing(dockerfile: Dockerfile, report: Report) -> None:
    lower = sum(one.typed.islower() for one in _every(dockerfile))
    upper = sum(one.typed.isupper() for one in _every(dockerfile))
    wanted = "lowercase" if lower > upper else "uppercase"
    for one in _every(dockerfile):
        if not (one.typed.islower() if lower > upper else one.typed.isupper()):
            message = f"Command '{one.typed}' should match the case of the command majority ({wanted})"
            report.add("ConsistentInstructionCasing", message, one)


def _empty_continuations(dockerfile: Dockerfile, report: Report) -> None:
    for _, last in dockerfile.source.empty_continuations:
        report.add_lines("NoEmptyContinuation", "Empty continuation line", last, last)


def _stage_names(dockerfile: Dockerfile, report: Report) -> None:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        if not stage.name:
            continue
        if stage.typed_name != stage.name:
            report.add(
                "StageNameCasing", f"Stage name '{stage.typed_name}' should be lowercase", stage.opening
            )
        if stage.name in ("scratch", "context"):
            report.add("ReservedStageName", f'Stage name "{stage.name}" is a reserved name', stage.opening)
        if stage.name in seen:
            report.add("DuplicateStageName", f'Duplicate stage name "{stage.name}"', stage.opening)
        seen.add(stage.name)
        word, typed = stage.opening.arguments[1], stage.opening.typed
        if (typed.islower() and not word.islower()) or (typed.isupper() and not word.isupper()):
            message = f"'{word}' and '{typed}' keywords' casing do not match"
            report.add("FromAsCasing", message, stage.opening)


def _descriptions(dockerfile: Dockerfile, report: Report) -> None:
    for one in [*dockerfile.global_args, *_every(dockerfile)]:
        names = [pair.name for pair in one.pairs] if one.keyword == "ARG" else one.arguments[2:3]
        if one.keyword not in ("ARG", "FROM") or not names or not one.line.comments:
            continue
        if one.line.comments[-1].split(" ")[0] not in names:
            example = names[0] if len(names) == 1 else "<arg_key>"
            message = f"Comment for {one.keyword} should follow the format: `# {example} <description>`"
            report.add("InvalidDefinitionDescription", message, one)


WHOLE_FILE: tuple[Callable[[Dockerfile, Report], None], ...] = (
    _casing,
    _empty_continuations,
    _stage_names,
    _descriptions,
)


# Rules that need variables.


def check_stages(dockerfile: Dockerfile, surroundings: Surroundings, report: Report) -> None:
    """Walks every stage with the variables that it would have."""
    try:
        scope = global_scope(dockerfile, surroundings.predefined, surroundings.given)
        defaults = global_scope(dockerfile, surroundings.predefined, {})
    except DuckweedError:
        return  # the build says it
    declared = {pair.name for one in dockerfile.global_args for pair in one.pairs}
    environments: dict[str, dict[str, str] | None] = {}
    for stage in dockerfile.stages:
        base = _check_from(stage, scope, declared, report)
        _check_default(stage, defaults, environments, report)
        walk = _Walk(stage, surroundings, scope, report)
        if base in environments:
            walk.environment = dict(environments[base] or {})
            walk.is_known = environments[base] is not None
        elif base and base != "scratch":
            found = surroundings.base_environment(base)
            walk.environment, walk.is_known = dict(found or {}), found is not None
        walk.run()
        environments[stage.name or str(stage.index)] = walk.environment if walk.is_known else None


def _expansion(stage: Stage, word: str, scope: Mapping[str, str]) -> Expansion | None:
    try:
        return expand(word, scope, stage.opening.source.escape)
    except BadSubstitution:
        return None


def _check_from(stage: Stage, scope: Mapping[str, str], declared: set[str], report: Report) -> str:
    base = _expansion(stage, stage.base, scope)
    platform = _expansion(stage, stage.platform, scope)
    known = declared | set(scope)
    for expansion in (base, platform):
        for name in sorted((expansion.missing if expansion else set()) - known):
            message = f"FROM argument '{name}' is not declared{_meant(name, known, '')}"
            report.add("UndefinedArgInFrom", message, stage.opening)
    if stage.platform and platform is not None:
        _check_platform(stage, platform, scope, report)
    return base.text if base else ""


def _check_platform(stage: Stage, platform: Expansion, scope: Mapping[str, str], report: Report) -> None:
    if not platform.found and not platform.missing:
        try:
            meant = Platform.parse(platform.text)
        except UsageError:
            return
        if meant.os not in stage.name and meant.architecture not in stage.name:
            message = f'FROM --platform flag should not use constant value "{platform.text}"'
            report.add("FromPlatformFlagConstDisallowed", message, stage.opening)
    elif platform.found == {"TARGETPLATFORM"} and platform.text == scope.get("TARGETPLATFORM"):
        message = f"Setting platform to predefined {stage.platform} in FROM is redundant"
        report.add("RedundantTargetPlatform", message, stage.opening)


def _check_default(
    stage: Stage, defaults: Mapping[str, str], earlier: Mapping[str, object], report: Report
) -> None:
    base = _expansion(stage, stage.base, defaults)
    if base is None or base.text in earlier:
        return
    try:
        Reference.parse(base.text)
    except UsageError:
        message = f"Default value for ARG {stage.base} results in empty or invalid base image name"
        report.add("InvalidDefaultArgInFrom", message, stage.opening)


def _meant(name: str, known: Iterable[str], sign: str) -> str:
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f" (did you mean {sign}{near[0]}?)" if near else ""


class _Walk:
    """One stage, instruction by instruction. Undefined variables are told only when the base is known."""

    def __init__(
        self, stage: Stage, surroundings: Surroundings, scope: Mapping[str, str], report: Report
    ) -> None:
        self.stage = stage
        self.surroundings = surroundings
        self.scope = scope
        self.report = report
        self.environment: dict[str, str] = {}
        self.is_known = True
        self._declared: set[str] = set()
        self._last: dict[str, Instruction] = {}
        self._has_workdir = False
        self._has_shell = False

    def run(self) -> None:
        for one in self.stage.instructions:
            check = getattr(self, "_" + one.keyword.lower(), None)
            if check is not None:
                check(one)
            if one.keyword in _ONCE:
                before = self._last.get(one.keyword)
                if before is not None:
                    message = f"Multiple {one.keyword} instructions: only the last one of a stage is used"
                    self.report.add("MultipleInstructionsDisallowed", message, before)
                self._last[one.keyword] = one

    def _expand(self, one: Instruction, word: str) -> str:
        try:
            done = expand(word, self.environment, one.source.escape)
        except BadSubstitution:
            return word
        if self.is_known:
            for name in sorted(done.missing - self._declared - set(NO_VARIABLES)):
                message = f"Usage of undefined variable '${name}'{_meant(name, self.environment, '$')}"
                self.report.add("UndefinedVar", message, one)
        return done.text

    def _env(self, one: Instruction) -> None:
        values = {}
        for pair in one.pairs:
            if pair.is_old:
                message = f'"{one.keyword} key=value" should be used instead of "{one.keyword} key value"'
                self.report.add("LegacyKeyValueFormat", message, one)
            name = self._expand(one, pair.name)
            values[name] = self._expand(one, pair.value or "")
            if one.keyword == "ENV":
                self._secret(one, name)
        if one.keyword == "ENV":
            self.environment.update(values)

    _label = _env

    def _secret(self, one: Instruction, name: str) -> None:
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            message = f'Do not use ARG or ENV instructions for sensitive data ({one.keyword} "{name}")'
            self.report.add("SecretsUsedInArgOrEnv", message, one)

    def _arg(self, one: Instruction) -> None:
        for pair in one.pairs:
            self._secret(one, pair.name)
            given = self.surroundings.given.get(pair.name)
            value = given if given is not None else self.scope.get(pair.name) if pair.value is None else None
            if value is None and pair.value is not None:
                value = self._expand(one, pair.value)
            self._declared.add(pair.name)
            if value is not None:
                self.environment[pair.name] = value

    def _cmd(self, one: Instruction) -> None:
        if not one.is_list and not self._has_shell:
            message = f"JSON arguments recommended for {one.keyword}: with a shell between, signals get lost"
            self.report.add("JSONArgsRecommended", message, one)

    _entrypoint = _cmd

    def _shell(self, one: Instruction) -> None:
        self._has_shell = True

    def _maintainer(self, one: Instruction) -> None:
        message = "Maintainer instruction is deprecated in favor of using label"
        self.report.add("MaintainerDeprecated", message, one)

    def _workdir(self, one: Instruction) -> None:
        path = self._expand(one, one.arguments[0])
        if not self._has_workdir and not path.startswith("/"):
            message = f'Relative workdir "{path}" can have unexpected results if the base image changes'
            self.report.add("WorkdirRelativePath", message, one)
        self._has_workdir = True

    def _user(self, one: Instruction) -> None:
        self._expand(one, one.arguments[0])

    _stopsignal = _user

    def _volume(self, one: Instruction) -> None:
        for word in one.arguments:
            self._expand(one, word)

    def _expose(self, one: Instruction) -> None:
        for word in one.arguments:
            for port in self._expand(one, word).split():
                numbers, _, protocol = port.partition("/")
                if protocol != protocol.lower():
                    message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                    self.report.add("ExposeProtoCasing", message, one)
                if ":" in numbers:
                    message = f"EXPOSE should not define an IP address or host-port mapping, found '{port}'"
                    self.report.add("ExposeInvalidFormat", message, one)

    def _copy(self, one: Instruction) -> None:
        for name in ("chown", "chmod", "checksum"):
            self._expand(one, one.flag(name))
        words = [self._expand(one, word) for word in one.arguments]
        ignore = self.surroundings.ignore
        if ignore is None or ignore.has_exceptions or one.flag("from"):
            return
        for word in words[:-1]:
            path = clean(word).lstrip("/")
            if "://" in word or word.startswith("<<") or path in ("", "."):
                continue
            if ignore.matches(path):
                verb = "Copy" if one.keyword == "COPY" else "Add"
                message = f'Attempting to {verb} file "{path}" that is excluded by .dockerignore'
                self.report.add("CopyIgnoredFile", message, one)

    _add = _copy
