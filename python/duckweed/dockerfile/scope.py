"""Which variables an instruction sees, and where they came from.

Before the first FROM there is the global scope: the platform's arguments and the ARGs there. It serves FROM,
and an ARG of the same name without a value brings one of it into a stage. In a stage, ENV and ARG count from
their own line on; the later one wins. Proxy settings need no ARG, and are in no history and no cache key.
"""

from __future__ import annotations

from duckweed.dockerfile.variables import BadSubstitution, expand
from duckweed.errors import DockerfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duckweed.dockerfile.instruction import Instruction
    from duckweed.dockerfile.stages import Dockerfile
    from duckweed.oci.platform import Platform

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
# Read by the builder itself: an ARG of these names is no variable of RUN.
NO_VARIABLES = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")


def is_proxy(name: str) -> bool:
    """Whether this is one of the predefined proxy arguments, in either case."""
    return name.lower() in PROXIES


def platform_args(build: Platform, target: Platform, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    """BUILDPLATFORM, TARGETARCH and so on; `given` build arguments of these names win."""
    values = {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDOSVERSION": "",
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target),
        "TARGETOS": target.os,
        "TARGETOSVERSION": "",
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }
    return {name: given.get(name, value) for name, value in values.items()}


def global_scope(
    dockerfile: Dockerfile, predefined: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """The variables of FROM: the predefined ones, then the ARGs before it. Raises DockerfileError."""
    scope = dict(predefined)
    for instruction in dockerfile.global_args:
        for pair in instruction.pairs:
            if pair.name in given:
                scope[pair.name] = given[pair.name]
            elif pair.value is not None:
                scope[pair.name] = expand_in(instruction, pair.value, scope)
    return scope


def expand_in(
    instruction: Instruction,
    word: str,
    variables: Mapping[str, str],
    missing: Callable[[set[str]], None] | None = None,
) -> str:
    """The word with the variables replaced; `missing` hears of those that are not set.

    Raises DockerfileError that shows the instruction.
    """
    if not any(character in word for character in "$'\"\\`"):
        return word
    try:
        done = expand(word, variables, instruction.source.escape)
    except BadSubstitution as error:
        raise _bad(instruction, word, error) from None
    if missing is not None and done.missing:
        missing(done.missing)
    return done.text


def expand_words(instruction: Instruction, word: str, variables: Mapping[str, str]) -> list[str]:
    """As `expand_in`, then split at blanks outside quotes."""
    try:
        return expand(word, variables, instruction.source.escape).words
    except BadSubstitution as error:
        raise _bad(instruction, word, error) from None


def expand_heredoc(instruction: Instruction, text: str, variables: Mapping[str, str]) -> str:
    """The text of a heredoc: variables, and `\\$` for a dollar sign; quotes are ordinary characters."""
    try:
        return expand(text, variables, process_quotes=False).text
    except BadSubstitution as error:
        raise _bad(instruction, text, error) from None


def _bad(instruction: Instruction, word: str, error: BadSubstitution) -> DockerfileError:
    offset = max(instruction.line.text.find(word), 0)
    shown = word if len(word) <= 80 else word[:77] + "..."
    line, column = instruction.line.place(offset)
    return instruction.source.error(
        f'failed to process "{shown}": {error}', "", line, column, max(line, instruction.line.last)
    )
