"""`--check`: each rule finds what it is for and nothing in a file that is as it should be."""

from __future__ import annotations

import pytest

from duckweed.dockerfile.ignore import Matcher
from duckweed.dockerfile.lint import Surroundings, check
from duckweed.dockerfile.lint_rules import RULES
from duckweed.dockerfile.scope import platform_args
from duckweed.dockerfile.stages import parse
from duckweed.errors import UsageError
from duckweed.oci.platform import Platform

CLEAN = """\
# syntax=docker/dockerfile:1
# check=experimental=all
ARG VERSION=1
FROM base:${VERSION} AS build
ARG VERSION
ENV PATH_TO=/x MODE="$VERSION"
WORKDIR /src
COPY kept.txt $PATH_TO/
RUN make
FROM scratch
COPY --from=build /out /
EXPOSE 80/tcp
USER nobody
HEALTHCHECK CMD ["/check"]
ENTRYPOINT ["/app"]
CMD ["--help"]
"""

CASES = [
    ("ConsistentInstructionCasing", "FROM a\nrun b\nRUN c", 2),
    ("ConsistentInstructionCasing", "FROM a\nRun b\nRUN c", 2),
    ("CopyIgnoredFile", "FROM a\nCOPY left/out /x", 2),
    ("CopyIgnoredFile", "FROM a\nADD left /x", 2),
    ("DuplicateStageName", "FROM a AS x\nFROM b AS x", 2),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE 80:80", 2),
    ("ExposeProtoCasing", "FROM a\nEXPOSE 80/TCP", 2),
    ("FromAsCasing", "FROM a as x", 1),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 a", 1),
    ("InvalidDefaultArgInFrom", "ARG V\nFROM a:$V", 2),
    ("InvalidDefinitionDescription", "# check=experimental=all\nFROM a\n# something else\nARG X=1", 4),
    ("JSONArgsRecommended", "FROM a\nCMD x", 2),
    ("JSONArgsRecommended", "FROM a\nENTRYPOINT x", 2),
    ("LegacyKeyValueFormat", "FROM a\nENV x y", 2),
    ("LegacyKeyValueFormat", "FROM a\nLABEL x y", 2),
    ("MaintainerDeprecated", "FROM a\nMAINTAINER me", 2),
    ("MultipleInstructionsDisallowed", 'FROM a\nCMD ["x"]\nCMD ["y"]', 2),
    ("NoEmptyContinuation", "FROM a\nRUN x \\\n\n y", 4),
    ("RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM a", 1),
    ("ReservedStageName", "FROM a AS scratch", 1),
    ("SecretsUsedInArgOrEnv", "FROM a\nARG DB_PASSWORD", 2),
    ("SecretsUsedInArgOrEnv", "FROM a\nENV API_TOKEN=x", 2),
    ("StageNameCasing", "FROM a AS Build", 1),
    ("UndefinedArgInFrom", "FROM a:$NOTHING", 1),
    ("UndefinedVar", "FROM a\nWORKDIR /$nothing", 2),
    ("WorkdirRelativePath", "FROM a\nWORKDIR x", 2),
]


def findings(text: str, given: dict[str, str] | None = None) -> list[tuple[str, int]]:
    host = Platform("linux", "amd64")
    surroundings = Surroundings(
        platform_args(host, host, "", {}), given or {}, lambda name: {"PATH": "/bin"}, Matcher(["left"])
    )
    return [(finding.rule, finding.first) for finding in check(parse(text), surroundings).findings]


@pytest.mark.parametrize(("rule", "text", "line"), CASES)
def test_a_rule_finds_its_mistake(rule: str, text: str, line: int) -> None:
    assert (rule, line) in findings(text)


def test_a_good_file_has_no_findings() -> None:
    assert findings(CLEAN) == []


def test_every_rule_has_a_case() -> None:
    # A base image for another platform is seen only where images are: tests/build.
    assert {rule for rule, _, _ in CASES} == set(RULES) - {"InvalidBaseImagePlatform"}


def test_what_is_allowed_is_not_found() -> None:
    assert findings("FROM a\nENV PUBLIC_KEY=x TOKEN_FILE=y\nEXPOSE 80") == []
    assert findings('FROM a\nSHELL ["bash", "-c"]\nCMD x') == []
    assert findings("FROM a AS x\nENV v=1\nFROM x\nWORKDIR /$v") == []
    assert findings("FROM --platform=linux/arm64 a AS cross-arm64") == []


def test_rules_are_skipped_by_directive_comment_and_argument() -> None:
    text = "FROM a\nMAINTAINER me\nWORKDIR x"
    assert findings("# check=skip=MaintainerDeprecated\n" + text) == [("WorkdirRelativePath", 4)]
    assert findings("# check=skip=all\n" + text) == []
    assert findings(text.replace("MAINT", "# check=skip=MaintainerDeprecated\nMAINT")) == [
        ("WorkdirRelativePath", 4)
    ]
    assert findings(text, {"BUILDKIT_DOCKERFILE_CHECK": "skip=WorkdirRelativePath"}) == [
        ("MaintainerDeprecated", 2)
    ]


def test_a_bad_directive_is_one_line() -> None:
    with pytest.raises(UsageError, match="invalid check option `foo`"):
        findings("# check=foo\nFROM a")
