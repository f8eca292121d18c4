"""Dockerfiles that nobody would write: whatever stands in one, it is read or refused in one line, and soon.

The instructions are made of pieces that mean something to the parser, so that most of them get past it and to
the checks, the outline, and the steps that change a config.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duckweed.build import config_steps
from duckweed.build.modes import Chmod
from duckweed.build.solver import needed_stages
from duckweed.build.state import StageState
from duckweed.dockerfile import outline
from duckweed.dockerfile.ignore import Matcher, read_patterns
from duckweed.dockerfile.lint import Surroundings, check
from duckweed.dockerfile.mount import parse_mount
from duckweed.dockerfile.scope import expand_heredoc, expand_in, global_scope
from duckweed.dockerfile.stages import Dockerfile, parse
from duckweed.errors import DuckweedError
from duckweed.oci.platform import Platform

PLATFORM = Platform("linux", "amd64")
WORDS = st.sampled_from(
    [
        *"abAB01 =:/\\\"'$,.*?[]{}-<>|&;#@!~`\t\r\n\0é\ud800",
        "${a}",
        "$b",
        "${a:-",
        "${a/x/y}",
        "${a##*}",
        "\\\n",
    ]
    + [
        "<<EOF",
        "<<-E",
        "<<'E'",
        "\nEOF\n",
        "\nE\n",
        '["',
        '"]',
        '","',
        "# x\n",
        "\\ \n",
        "${a:?no}",
        "${",
        "}",
    ]
)
TEXT = st.lists(WORDS, max_size=8).map("".join)
FLAGS = st.sampled_from(
    [
        "",
        "--from=s",
        "--from=0",
        "--chown=a:b",
        "--chmod=u+x",
        "--link",
        "--parents",
        "--exclude=*",
        "--checksum=",
    ]
    + [
        "--mount=type=cache,target=/x",
        "--mount=type=secret,id=a,env=B",
        "--mount=",
        "--network=none",
        "--platform=$a",
    ]
    + [
        "--interval=3s",
        "--retries=x",
        "--keep-git-dir",
        "--unpack=true",
        "--security=insecure",
        "--bogus",
        "--",
    ]
)
KEYWORDS = st.sampled_from(
    [
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "CMD",
        "ENTRYPOINT",
        "WORKDIR",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "SHELL",
        "HEALTHCHECK",
        "ONBUILD",
        "MAINTAINER",
        "env",
        "RUM",
    ]
)
ARGUMENTS = st.one_of(
    TEXT,
    st.lists(TEXT, max_size=3).map(" ".join),
    st.lists(st.text(max_size=4), max_size=3).map(json.dumps),
    st.tuples(TEXT, TEXT).map("=".join),
    st.sampled_from(
        ["busybox", "busybox AS s", "s", "scratch", "a b", "a=b c=$a", "80-90/tcp", "NONE", "CMD x"]
    ),
)
LINES = st.tuples(KEYWORDS, FLAGS, ARGUMENTS).map(lambda parts: " ".join(filter(None, parts)))
HEADS = st.sampled_from(
    ["", "# escape=`\n", "# check=skip=all\n", "# syntax=x\n", "ARG a=1\n", "ARG a\nARG b=$a\n"]
)
FILES = st.tuples(HEADS, st.lists(LINES, max_size=6)).map(
    lambda parts: parts[0] + "FROM b AS s\n" + "\n".join(parts[1])
)


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """A hang ends here, with where it hung."""
    before = signal.alarm(240)
    yield
    signal.alarm(before)


def refused(error: DuckweedError) -> None:
    """A refusal is one line that can be printed."""
    assert error.message
    assert "\n" not in error.message
    json.dumps(error.message)


def walk(dockerfile: Dockerfile) -> None:
    """Everything that a build does with the text before it does anything."""
    scope = global_scope(dockerfile, {}, {"b": "given"})
    outline.targets(dockerfile)
    target = dockerfile.target("")
    stages = needed_stages(dockerfile, target, scope, {})
    assert target in stages
    json.dumps(outline.outline(dockerfile, target, stages, scope, {}))
    arguments = config_steps.Arguments({}, scope)
    for stage in stages:
        state = StageState(PLATFORM)
        expand_in(stage.opening, stage.base, scope)
        for one in stage.instructions:
            if one.keyword == "WORKDIR":
                assert config_steps.workdir(state, one).startswith("/")
            elif not config_steps.apply(state, one, arguments):
                for word in one.arguments[-1:]:
                    expand_in(one, word, state.environment)
                for heredoc in one.heredocs:
                    expand_heredoc(one, heredoc.content, state.environment)
        json.dumps(state.config)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(FILES)
def test_any_dockerfile_is_walked_or_refused_in_one_line(text: str) -> None:
    try:
        dockerfile = parse(text.encode("utf-8", "surrogatepass"))
    except DuckweedError as error:
        refused(error)
        return
    try:
        for finding in check(dockerfile, Surroundings({}, {})).findings:
            assert "\n" not in finding.rule
            dockerfile.source.excerpt(finding.first, finding.last)
    except DuckweedError as error:
        refused(error)
    try:
        walk(dockerfile)
    except DuckweedError as error:
        refused(error)


MOUNT_FIELDS = st.sampled_from(
    [
        "type=bind",
        "type=cache",
        "type=secret",
        "type=ssh",
        "type=tmpfs",
        "type=x",
        "target=/x",
        "dst=",
        "id=a",
        "ro",
    ]
    + [
        "rw=false",
        "from=a",
        "source=../..",
        "mode=999",
        "mode=0755",
        "uid=-1",
        "gid=5",
        "size=1g",
        "size=x",
        "env=A",
    ]
    + ["sharing=locked", "sharing=x", "required", "required=maybe", '"a,b"', '"', "=", ""]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MOUNT_FIELDS, max_size=6).map(",".join))
def test_any_mount_is_read_or_refused(text: str) -> None:
    try:
        mount = parse_mount(text, lambda word: word)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert mount.kind in ("bind", "cache", "secret", "ssh", "tmpfs")


@settings(max_examples=200, deadline=None)
@given(st.text("ugoa+-=rwxXst,0178 ", max_size=12), st.integers(0, 0o7777), st.booleans())
def test_any_mode_is_read_or_refused(text: str, mode: int, is_directory: bool) -> None:
    try:
        chmod = Chmod(text)
    except ValueError:
        return
    assert 0 <= chmod.apply(mode, is_directory) <= 0o7777


@pytest.mark.parametrize(
    "text",
    [
        "ENV A=" + "${a:-" * 3000 + "}" * 3000,
        "ENV A=" + "${a:-" * 3000,
        "ENV A=${b//" + "*?" * 40 + "c/x}",
        "RUN " + "\\\n" * 20000 + "true",
        "RUN " + " ".join(f"<<E{number}" for number in range(2000)),
        "COPY " + "a " * 20000 + "b/",
        "RUN true\n" * 5000,
        "LABEL " + " ".join(f"k{number}=v" for number in range(5000)),
        "RUN <<E\n" + "x\n" * 50000 + "E",
        "RUN --mount=" + ",".join(["type=bind"] * 5000) + " true",
        "CMD [" + "[" * 20000,
        "# x\n" * 50000 + "RUN true",
        "EXPOSE " + " ".join(["1-65535"] * 20),
    ],
    ids=lambda text: text[:20],
)
def test_large_and_deep_text_comes_to_an_end(text: str) -> None:
    try:
        dockerfile = parse("FROM b\nARG b=" + "ab" * 500 + "\n" + text)
        check(dockerfile, Surroundings({}, {}))
        walk(dockerfile)
    except DuckweedError as error:
        refused(error)


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "**/" * 30 + "b", "[a-z]*" * 30, "?*" * 40, "!" * 50])
def test_hard_ignore_patterns_come_to_an_end(pattern: str) -> None:
    try:
        matcher = Matcher(read_patterns(pattern))
    except ValueError:
        return
    for path in ("a" * 200, "a/" * 100 + "a"):
        matcher.matches(path)
