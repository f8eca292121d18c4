"""`build --check`: what in a Dockerfile works and is still a mistake, by the names of BuildKit's rules.

Which rules count is said by `# check=skip=NAME,...;error=true;experimental=all` at the top of the file, by
the build argument BUILDKIT_DOCKERFILE_CHECK instead, and by a comment `check=skip=...` above an instruction.
"""

from __future__ import annotations

from duckweed.dockerfile import lint_rules
from duckweed.dockerfile.lint_rules import EXPERIMENTAL, RULES
from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duckweed.dockerfile.ignore import Matcher
    from duckweed.dockerfile.instruction import Instruction
    from duckweed.dockerfile.lines import Source
    from duckweed.dockerfile.stages import Dockerfile

_PAGE = "https://docs.docker.com/go/dockerfile/rule/"


class Finding:
    """One breach of a rule: its name, what is wrong, and the lines."""

    __slots__ = ("first", "last", "message", "rule")

    def __init__(self, rule: str, message: str, first: int, last: int) -> None:
        self.rule = rule
        self.message = message
        self.first = first
        self.last = last

    @property
    def url(self) -> str:
        """Docker's page about the rule."""
        words = "".join(f"-{c.lower()}" if c.isupper() else c for c in self.rule).lstrip("-")
        return _PAGE + words.replace("j-s-o-n", "json") + "/"

    @property
    def description(self) -> str:
        """The rule in one sentence."""
        return RULES[self.rule]


class Choice:
    """Which rules count: `skip` and `experimental` are names, `*` for all."""

    __slots__ = ("experimental", "is_error", "skip")

    def __init__(self) -> None:
        self.skip: set[str] = set()
        self.experimental: set[str] = set()
        self.is_error = False

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Reads `skip=A,B;error=true;experimental=all`. Raises ValueError."""
        choice = cls()
        for part in filter(None, text.strip().split(";")):
            key, equals, value = part.partition("=")
            key, value = key.strip(), value.strip()
            if not equals or key not in ("skip", "experimental", "error"):
                raise ValueError(f"invalid check option `{part.strip()}`")
            if key == "error":
                if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                    raise ValueError(f"invalid check option `{part.strip()}`: error is true or false")
                choice.is_error = value.lower() in ("true", "1", "t")
            else:
                names = {"*"} if value == "all" else {name.strip() for name in value.split(",")}
                setattr(choice, key, names)
        return choice

    def merged(self, other: Choice) -> Choice:
        """With what a comment above one instruction adds."""
        both = Choice()
        both.skip = self.skip | other.skip
        both.experimental = self.experimental | other.experimental
        both.is_error = self.is_error
        return both

    def counts(self, rule: str) -> bool:
        if rule in EXPERIMENTAL:
            return bool(self.experimental & {"*", rule})
        return not self.skip & {"*", rule}


class Report:
    """Collects the findings of one file."""

    __slots__ = ("choice", "findings", "source")

    def __init__(self, choice: Choice, source: Source) -> None:
        self.choice = choice
        self.source = source
        self.findings: list[Finding] = []

    def add(self, rule: str, message: str, at: Instruction) -> None:
        """A finding at an instruction, unless the rule is turned off there."""
        choice = self.choice
        for comment in at.line.comments:
            if comment.startswith("check="):
                try:
                    choice = choice.merged(Choice.parse(comment[6:].split(" ")[0]))
                except ValueError:
                    continue
        self.add_lines(rule, message, at.line.first, at.line.last, choice)

    def add_lines(self, rule: str, message: str, first: int, last: int, choice: Choice | None = None) -> None:
        """A finding at lines."""
        if (choice or self.choice).counts(rule):
            self.findings.append(Finding(rule, message, first, last))


class Surroundings:
    """What the Dockerfile is built with: the variables of FROM, the build arguments, and what only the
    engine knows: the environment of a base image (None when it is not known) and the ignore file.
    """

    __slots__ = ("base_environment", "given", "ignore", "predefined")

    def __init__(
        self,
        predefined: Mapping[str, str],
        given: Mapping[str, str],
        base_environment: Callable[[str], Mapping[str, str] | None] = lambda _: None,
        ignore: Matcher | None = None,
    ) -> None:
        self.predefined = predefined
        self.given = given
        self.base_environment = base_environment
        self.ignore = ignore


def choice_of(dockerfile: Dockerfile, given: Mapping[str, str]) -> Choice:
    """The rules that count for this file. Raises UsageError."""
    text = given.get("BUILDKIT_DOCKERFILE_CHECK", dockerfile.source.directives.get("check", ""))
    try:
        return Choice.parse(text)
    except ValueError as error:
        raise UsageError(str(error), "write it as `# check=skip=NAME,NAME;error=true`", exit_code=1) from None


def check(dockerfile: Dockerfile, surroundings: Surroundings) -> Report:
    """All findings, in the order of the lines. Raises UsageError for a bad `check` directive."""
    report = Report(choice_of(dockerfile, surroundings.given), dockerfile.source)
    for rule in lint_rules.WHOLE_FILE:
        rule(dockerfile, report)
    lint_rules.check_stages(dockerfile, surroundings, report)
    report.findings.sort(key=lambda finding: finding.first)
    return report
