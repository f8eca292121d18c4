"""From the text of a Dockerfile to stages and instructions, and what is said of text that is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckweed.dockerfile.instruction import Instruction
from duckweed.dockerfile.mount import parse_mount
from duckweed.dockerfile.scope import global_scope, platform_args
from duckweed.dockerfile.stages import parse, parse_triggers
from duckweed.errors import DockerfileError, DuckweedError, UsageError
from duckweed.oci.platform import Platform


def one(text: str) -> Instruction:
    """The instruction that follows a FROM."""
    (stage,) = parse("FROM base\n" + text).stages
    (instruction,) = stage.instructions
    return instruction


@pytest.mark.parametrize(
    ("text", "arguments", "is_list"),
    [
        ("RUN echo a  b", ["echo a  b"], False),
        ('RUN ["echo", "a b"]', ["echo", "a b"], True),
        ("RUN ['single', 'quotes']", ["['single', 'quotes']"], False),
        ('RUN ["broken"', ['["broken"'], False),
        ("run echo", ["echo"], False),
        ("  RUN\techo", ["echo"], False),
        ("RUN a \\\n  b", ["a   b"], False),
        ("RUN a \\\n# comment\n  # another\n  b", ["a   b"], False),
        ("RUN a \\\n\n b", ["a  b"], False),
        ("RUN a \\  \n b", ["a  b"], False),
        ("RUN a \\\\", ["a \\\\"], False),
        ("RUN a\\", ["a"], False),
        ("CMD", [], False),
        ('CMD ["a"]', ["a"], True),
        ("CMD []", [], True),
        ('ENTRYPOINT [ "a" , "b" ] ', ["a", "b"], True),
        ("COPY a b  c /d/", ["a", "b", "c", "/d/"], False),
        ('COPY ["a b", "/c d/"]', ["a b", "/c d/"], True),
        ("EXPOSE 90 80/udp", ["80/udp", "90"], False),
        ('VOLUME ["/a"]', ["/a"], True),
        ("VOLUME /a /b", ["/a", "/b"], False),
        ("WORKDIR /a b", ["/a b"], False),
        ("USER a:b", ["a:b"], False),
        ("STOPSIGNAL 9", ["9"], False),
        ("HEALTHCHECK NONE", ["NONE"], False),
        ("HEALTHCHECK CMD a b", ["CMD-SHELL", "a b"], False),
        ('HEALTHCHECK CMD ["a", "b"]', ["CMD", "a", "b"], True),
        ("ONBUILD RUN x", ["RUN x"], False),
        ("MAINTAINER Some One <a@b>", ["Some One <a@b>"], False),
        ('SHELL ["/bin/bash", "-c"]', ["/bin/bash", "-c"], True),
    ],
)
def test_arguments(text: str, arguments: list[str], is_list: bool) -> None:
    instruction = one(text)
    assert (instruction.arguments, instruction.is_list) == (arguments, is_list)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ENV a=1", [("a", "1")]),
        ('ENV a=1 b="2 3" c=4\\ 5', [("a", "1"), ("b", '"2 3"'), ("c", "4\\ 5")]),
        ("ENV a b c", [("a", "b c")]),
        ("ENV a=b=c", [("a", "b=c")]),
        ("LABEL x.y=1 \\\n z=2", [("x.y", "1"), ("z", "2")]),
        ("ARG a", [("a", None)]),
        ("ARG a b=1 c=", [("a", None), ("b", "1"), ("c", "")]),
    ],
)
def test_pairs(text: str, pairs: list[tuple[str, str | None]]) -> None:
    assert [(pair.name, pair.value) for pair in one(text).pairs] == pairs


def test_flags_stand_in_front() -> None:
    copy = one('COPY --from=x --chown="a:b" --exclude=*.o --exclude=y --link --parents=false a --b /c')
    assert (copy.flag("from"), copy.flag("chown")) == ("x", "a:b")
    assert copy.every("exclude") == ["*.o", "y"]
    assert (copy.choice("link"), copy.choice("parents")) == (True, False)
    assert copy.arguments == ["a", "--b", "/c"]
    assert one("RUN -- --flag").arguments == ["--flag"]


def test_heredocs_are_read_to_their_names() -> None:
    copy = one("COPY <<A <<-'B' /x/\nhi $V\nA\n\traw $V\n\tB\n")
    assert [(h.name, h.content, h.expand) for h in copy.heredocs] == [
        ("A", "hi $V\n", True),
        ("B", "raw $V\n", False),
    ]
    stage = parse("FROM b\nRUN <<EOF\n# no comment\nRUN x \\\nEOF\nCMD y").stages[0]
    assert stage.instructions[0].heredocs[0].content == "# no comment\nRUN x \\\n"
    assert stage.instructions[1].keyword == "CMD"


def test_lists_and_other_instructions_have_no_heredocs() -> None:
    assert one('RUN ["cat", "<<EOF"]').heredocs == []
    assert one("CMD cat <<EOF").heredocs == []


def test_a_trigger_keeps_its_heredoc() -> None:
    trigger = one("ONBUILD RUN <<E\nx\nE\n").arguments
    assert trigger == ["RUN <<E\nx\nE"]
    (again,) = parse_triggers(trigger, parse("FROM b").stages[0])
    assert again.heredocs[0].content == "x\n"
    assert again.is_trigger


def test_directives_count_only_at_the_top_and_once() -> None:
    assert parse("# syntax=x\n#ESCAPE = `\nFROM b\nRUN a `\nb").source.directives == {
        "syntax": "x",
        "escape": "`",
    }
    assert parse("# a comment\n# escape=`\nFROM b").source.directives == {}
    assert parse("\n# escape=`\nFROM b").source.directives == {}
    assert parse("# unknown=1\n# escape=`\nFROM b").source.directives == {}
    with pytest.raises(DockerfileError, match="only one `escape`"):
        parse("# escape=`\n# escape=`\nFROM b")
    with pytest.raises(DockerfileError, match="invalid escape token"):
        parse("# escape=x\nFROM b")


def test_byte_order_mark_and_dos_lines() -> None:
    dockerfile = parse(b"\xef\xbb\xbfFROM b\r\nRUN a \\\r\n  b\r\nCOPY <<E /x\r\nhi\r\nE\r\n")
    run, copy = dockerfile.stages[0].instructions
    assert (run.arguments, copy.heredocs[0].content) == (["a   b"], "hi\r\n")


def test_stages_are_found_by_name_and_number() -> None:
    dockerfile = parse("ARG V=1\nFROM a:$V AS First\nRUN x\nFROM --platform=linux/arm64 b\nFROM first")
    assert [stage.title for stage in dockerfile.stages] == ["first", "stage-1", "stage-2"]
    assert dockerfile.stage("FIRST") is dockerfile.stage("0") is dockerfile.stages[0]
    assert dockerfile.stages[1].platform == "linux/arm64"
    assert dockerfile.target("") is dockerfile.stages[2]
    with pytest.raises(UsageError) as error:
        dockerfile.target("firts")
    assert "first" in error.value.hint


def test_the_global_scope() -> None:
    host = Platform("linux", "arm64", "v8")
    predefined = platform_args(Platform("linux", "amd64"), host, "", {"TARGETOS": "plan9"})
    assert (predefined["TARGETPLATFORM"], predefined["TARGETOS"]) == ("linux/arm64", "plan9")
    dockerfile = parse("ARG A=1\nARG B=${A}2 C\nARG D=$C\nFROM x")
    scope = global_scope(dockerfile, predefined, {"A": "9"})
    assert {name: scope.get(name) for name in "ABCD"} == {"A": "9", "B": "92", "C": None, "D": ""}


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("FROM a\nRUM b", (2, 1), "unknown instruction: RUM", "`RUN`"),
        ("RUN x", (1, 1), "no build stage in current context", "begins with FROM"),
        ("", (0, 0), "file with no instructions", ""),
        ("ARG x", (0, 0), "no stages to build", ""),
        ("FROM", (1, 1), "FROM requires either one or three arguments", ""),
        ("FROM a b", (1, 1), "FROM requires either one or three arguments", ""),
        ("FROM a AS 1x", (1, 11), 'invalid name for build stage: "1x"', ""),
        ("FROM a\n\nCOPY x", (3, 1), "at least two arguments", ""),
        ("FROM a\nCOPY a <<E\nE", (2, 1), "cannot accept a heredoc as a destination", ""),
        ("FROM a\nRUN --mont=x y", (2, 5), "unknown flag: --mont", "`--mount`"),
        ("FROM a\nCOPY --from x y", (2, 6), "missing a value on flag: --from", "--from=VALUE"),
        ("FROM a\nCOPY --chown=a --chown=b x y", (2, 16), "duplicate flag specified: --chown", ""),
        ("FROM a\nCOPY --link=maybe x y", (2, 6), "expecting boolean value", ""),
        ("FROM a\nRUN --mount=type=bnd,target=/x y", (2, 5), "did you mean bind?", ""),
        ("FROM a\nRUN --network=hots x", (2, 1), 'unsupported network "hots"', "`host`"),
        ("FROM a\nRUN", (2, 1), "RUN requires a command", ""),
        ("FROM a\nENV x", (2, 1), "ENV must have two arguments", "x=VALUE"),
        ("FROM a\nENV x=1 yy", (2, 9), "can't find = in", "quotes"),
        ("FROM a\nENV =1", (2, 1), "names can not be blank", ""),
        ("FROM a\nRUN <<EOF\nfoo", (2, 5), "unterminated heredoc", "`EOF`"),
        ("FROM a\nCMD [1]", (2, 5), "arrays must be comprised of strings only", ""),
        ("FROM a\nHEALTHCHECK --interval=3 CMD x", (2, 13), "missing unit", ""),
        ("FROM a\nHEALTHCHECK", (2, 12), "at least one argument", ""),
        ("FROM a\nHEALTHCHECK FOO x", (2, 13), "try CMD", ""),
        ("FROM a\nHEALTHCHECK NONE x", (2, 13), "takes no arguments", ""),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", (2, 13), "cannot be negative", ""),
        ("FROM a\nONBUILD FROM x", (2, 1), "isn't allowed as an ONBUILD trigger", ""),
        ("FROM a\nONBUILD ONBUILD RUN x", (2, 1), "Chaining ONBUILD", ""),
        ("FROM a\nONBUILD CPOY a b", (2, 1), "unknown instruction: CPOY", "`COPY`"),
        ("FROM a\nSHELL bash", (2, 1), "JSON form", ""),
        ("FROM a\nVOLUME", (2, 1), "at least one argument", ""),
        ('FROM a\nVOLUME [" "]', (2, 1), "can not be an empty string", ""),
        ("FROM a\nSTOPSIGNAL a b", (2, 1), "exactly one argument", ""),
        ("FROM a\nRUN \\\n  --mount=foo \\\n  x", (3, 3), "unexpected key 'foo'", ""),
    ],
)
def test_an_error_names_the_place(text: str, place: tuple[int, int], message: str, hint: str) -> None:
    with pytest.raises(DockerfileError) as error:
        parse(text, "build/Dockerfile")
    found = error.value
    where = ":".join(["build/Dockerfile", *(str(number) for number in place if number)])
    assert found.message.startswith(f"{where}: ")
    assert message in found.message
    assert hint in found.hint
    assert (found.line, found.column) == place
    assert "\n" not in found.message
    if place[0]:
        assert f"{place[0]:4} | >>> {text.splitlines()[place[0] - 1]}" in found.excerpt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", {"kind": "bind", "read_only": True, "source": ""}),
        ("type=bind,source=a,dst=/x,rw,from=s", {"read_only": False, "origin": "s", "source": "a"}),
        ("type=cache,target=/x", {"read_only": False, "sharing": ""}),
        (
            "type=cache,target=/x,id=i,sharing=locked,mode=0700,uid=1,gid=2,ro",
            {"id": "i", "sharing": "locked", "mode": 0o700, "uid": 1, "gid": 2, "read_only": True},
        ),
        ("type=tmpfs,target=/x,size=1m", {"size": 1 << 20, "read_only": False}),
        ("type=secret,id=s,required,env=E", {"id": "s", "required": True, "env": "E"}),
        ("type=ssh", {"kind": "ssh", "id": "", "required": False}),
        ('type=secret,id=s,"target=/a,b"', {"target": "/a,b"}),
    ],
)
def test_mounts(text: str, expected: dict[str, object]) -> None:
    mount = parse_mount(text, lambda word: word)
    assert {name: getattr(mount, name) for name in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        "type=secret",
        "type=secret,id=a,source=b",
        "type=secret,id=a,from=b",
        "type=bind,target=/x,mode=1",
        "type=bind,target=/x,size=1",
        "type=bind,target=/x,sharing=locked",
        "type=cache,target=/x,sharing=often",
        "type=cache,target=/x,mode=9",
        "type=cache,target=/x,required",
        "type=cache",
        "type=tmpfs,target=/x,size=lots",
        "target",
        "target=/x,ro=maybe",
        'target=/x,"open',
        "",
    ],
)
def test_mounts_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_mount(text, lambda word: word)


WORDS = """
FROM RUN COPY ADD ENV ARG CMD LABEL ONBUILD HEALTHCHECK EXPOSE VOLUME SHELL USER WORKDIR STOPSIGNAL MAINTAINER
ENTRYPOINT scratch AS a b=1 $x ${y:-z} --mount=type=cache,target=/x --from=a --chown=1 <<EOF EOF <<-'E' E #
escape=` syntax=x \\ ` ' " [ ] ["a","b"] , = : / \ufeff \x00 \udcff é NONE
"""
PIECES = st.sampled_from([*WORDS.split(), "\n", "\n", "\n", " ", "\t", "\r\n"])


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=40).map(" ".join))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        dockerfile = parse("FROM a\n" + text)
        for stage in dockerfile.stages:
            for instruction in stage.instructions:
                assert instruction.line.first <= instruction.line.last
        global_scope(dockerfile, {}, {})
    except DuckweedError as error:
        assert "\n" not in error.message


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    try:
        parse(content)
    except DockerfileError as error:
        assert error.excerpt.encode("utf-8", "strict") is not None
