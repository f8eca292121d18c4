"""A whole Dockerfile: the ARGs before the first FROM, and its stages in order.

A stage can be named by its AS name (whatever the case) or by its number. FROM of an earlier stage's name
continues that stage.
"""

from __future__ import annotations

from difflib import get_close_matches

from duckweed.dockerfile.grammar import read_instruction
from duckweed.dockerfile.lines import Source
from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.dockerfile.instruction import Instruction


class Stage:
    """One FROM and what follows it. `base`, `platform` are not expanded; `name` is in lower case, or ""."""

    __slots__ = ("base", "index", "instructions", "name", "opening", "platform", "typed_name")

    def __init__(self, index: int, opening: Instruction) -> None:
        words = opening.arguments
        self.index = index
        self.opening = opening
        self.base = words[0]
        self.typed_name = words[2] if len(words) == 3 else ""
        self.name = self.typed_name.lower()
        self.platform = opening.flag("platform")
        self.instructions: list[Instruction] = []

    @property
    def title(self) -> str:
        """What progress calls it: its name, or `stage-N`."""
        return self.name or f"stage-{self.index}"


class Dockerfile:
    """The parsed file. `global_args` are the ARG instructions before the first FROM."""

    __slots__ = ("global_args", "source", "stages")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.global_args: list[Instruction] = []
        self.stages: list[Stage] = []

    def stage(self, name: str) -> Stage | None:
        """The stage of this name, the last of several, or of this number."""
        for stage in reversed(self.stages):
            if stage.name and stage.name == name.lower():
                return stage
        if name.isascii() and name.isdigit() and int(name) < len(self.stages):
            return self.stages[int(name)]
        return None

    def target(self, name: str) -> Stage:
        """The stage to build: the last, or the one named. Raises UsageError."""
        if not name:
            return self.stages[-1]
        stage = self.stage(name)
        if stage is None:
            near = get_close_matches(name, [one.name for one in self.stages if one.name], n=1)
            raise UsageError(
                f'target stage "{name}" could not be found',
                f"did you mean `{near[0]}`?" if near else "",
                exit_code=1,
            )
        return stage


def parse(content: bytes | str, name: str = "Dockerfile") -> Dockerfile:
    """Reads a Dockerfile. Raises DockerfileError: what is wrong, where, and what might be meant."""
    source = Source(content, name)
    dockerfile = Dockerfile(source)
    for line in source.logical_lines():
        instruction = read_instruction(source, line)
        if instruction.keyword == "FROM":
            dockerfile.stages.append(Stage(len(dockerfile.stages), instruction))
        elif dockerfile.stages:
            dockerfile.stages[-1].instructions.append(instruction)
        elif instruction.keyword == "ARG":
            dockerfile.global_args.append(instruction)
        else:
            raise instruction.error(
                "no build stage in current context", "a Dockerfile begins with FROM; only ARG may come before"
            )
    if not dockerfile.stages:
        empty = not dockerfile.global_args
        raise source.error(
            "file with no instructions" if empty else "dockerfile contains no stages to build",
            "" if not empty else "a Dockerfile begins with `FROM IMAGE`",
        )
    return dockerfile


def parse_triggers(expressions: list[str], stage: Stage) -> list[Instruction]:
    """The instructions of a base image's ONBUILD, in the stage that is FROM it. Raises DockerfileError."""
    opening = stage.opening
    found = []
    for expression in expressions:
        source = Source(expression, f"{opening.source.name}: ONBUILD trigger")
        for line in source.logical_lines():
            instruction = read_instruction(source, line)
            if instruction.keyword in ("FROM", "ONBUILD", "MAINTAINER"):
                raise opening.error(f"{instruction.keyword} isn't allowed as an ONBUILD trigger")
            instruction.is_trigger = True
            instruction.stage = stage.index
            found.append(instruction)
    return found
