"""How a command line is read: Go's pflag manners, and the words of Docker's client 28.2 (November 2026)."""

from __future__ import annotations

import pytest

from duckweed.cli import tree
from duckweed.cli.container_flags import CREATE_FLAGS, REFUSED_FLAGS, RUN_FLAGS, engine_options
from duckweed.cli.parse import BadUsage, HelpWanted, filters_of, parse, read_flags
from duckweed.containers import options
from duckweed.errors import Unsupported

RUN = tree.load("run")
PS = tree.load("ps")
RM = tree.load("rm")


def test_bundled_letters_are_so_many_flags() -> None:
    call = parse(RUN, ["-itd", "busybox"])
    assert call.given == {"interactive": True, "tty": True, "detach": True}


@pytest.mark.parametrize("words", [["-n5"], ["-n=5"], ["-n", "5"], ["--last", "5"], ["--last=5"], ["-an5"]])
def test_every_spelling_of_a_value_is_one_value(words: list[str]) -> None:
    assert parse(PS, words).get("last") == 5


@pytest.mark.parametrize(
    ("word", "expected"), [("--rm", True), ("--rm=true", True), ("--rm=0", False), ("--rm=F", False)]
)
def test_a_boolean_takes_its_value_only_after_an_equals_sign(word: str, expected: bool) -> None:
    call = parse(RUN, [word, "busybox"])
    assert (call.get("rm"), call.arguments) == (expected, ["busybox"])


def test_a_boolean_does_not_eat_the_next_word() -> None:
    assert parse(RUN, ["--rm", "true", "x"]).arguments == ["true", "x"]


def test_flags_of_run_end_at_the_image() -> None:
    call = parse(RUN, ["-e", "A=1", "busybox", "ls", "-e", "--rm", "--", "-h"])
    assert call.given == {"env": ["A=1"]}
    assert call.arguments == ["busybox", "ls", "-e", "--rm", "--", "-h"]


def test_flags_of_other_verbs_may_follow_arguments() -> None:
    call = parse(RM, ["web", "-f", "db", "--volumes"])
    assert (call.given, call.arguments) == ({"force": True, "volumes": True}, ["web", "db"])


def test_two_dashes_end_the_flags() -> None:
    assert parse(RM, ["-f", "--", "-web"]).arguments == ["-web"]


def test_a_single_dash_is_an_argument() -> None:
    assert parse(tree.load("import"), ["-", "x:1"]).arguments == ["-", "x:1"]


def test_repeated_values_are_kept_in_order() -> None:
    assert parse(RUN, ["-v", "a:/a", "--volume=b:/b", "-vc:/c", "i"]).get("volume") == [
        "a:/a",
        "b:/b",
        "c:/c",
    ]


def test_the_last_of_a_single_value_wins() -> None:
    assert parse(RUN, ["--name", "a", "--name=b", "i"]).get("name") == "b"


def test_a_value_may_look_like_a_flag() -> None:
    assert parse(RUN, ["--name", "--rm", "i"]).get("name") == "--rm"


def test_h_is_hostname_where_there_is_one_and_help_elsewhere() -> None:
    assert parse(RUN, ["-h", "box", "i"]).get("hostname") == "box"
    with pytest.raises(HelpWanted):
        parse(PS, ["-h"])


@pytest.mark.parametrize(
    ("verb", "words", "message", "exit_code"),
    [
        ("run", ["--foo"], "unknown flag: --foo", 125),
        ("run", ["--foo=1", "busybox"], "unknown flag: --foo", 125),
        ("run", ["-y"], "unknown shorthand flag: 'y' in -y", 125),
        ("ps", ["-azz"], "unknown shorthand flag: 'z' in -zz", 125),
        ("run", ["--name"], "flag needs an argument: --name", 125),
        ("run", ["-e"], "flag needs an argument: 'e' in -e", 125),
        ("run", ["-ite"], "flag needs an argument: 'e' in -ite", 125),
        ("run", ["---"], "bad flag syntax: ---", 125),
        ("run", ["--rm=maybe", "i"], 'invalid argument "maybe" for "--rm" flag: want true or false', 125),
        ("ps", ["-nx"], 'invalid argument "x" for "-n, --last" flag: want a whole number', 125),
        ("ps", ["-f", "x"], 'invalid argument "x" for "-f, --filter" flag: want KEY=VALUE', 125),
        ("run", [], "'duckweed run' requires at least 1 argument", 1),
        ("exec", ["web"], "'duckweed exec' requires at least 2 arguments", 1),
        ("rename", ["a"], "'duckweed rename' requires 2 arguments", 1),
        ("history", [], "'duckweed history' requires 1 argument", 1),
        ("ps", ["x"], "'duckweed ps' accepts no arguments", 1),
        ("images", ["a", "b"], "'duckweed images' requires at most 1 argument", 1),
    ],
)
def test_complaints_are_dockers(verb: str, words: list[str], message: str, exit_code: int) -> None:
    with pytest.raises(BadUsage) as caught:
        parse(tree.load(verb), words)
    assert (caught.value.message, caught.value.exit_code) == (message, exit_code)


def test_filters_become_lists_by_name() -> None:
    call = parse(PS, ["-f", "label=a=b", "--filter", "status=running", "-f", "Label=c"])
    assert filters_of(call) == {"label": ["a=b", "c"], "status": ["running"]}


def test_no_verb_has_a_flag_twice() -> None:
    for path in tree.COMMANDS:
        flags = tree.load(path).flags
        names = [flag.name for flag in flags] + [flag.short for flag in flags if flag.short]
        assert len(names) == len(set(names)), path


def test_every_flag_says_what_it_does() -> None:
    for path in tree.COMMANDS:
        assert tree.load(path).summary, path
        assert all(flag.help for flag in tree.load(path).flags if not flag.hidden), path


def test_the_engine_reads_every_flag_that_create_offers() -> None:
    offered = {flag.key for flag in CREATE_FLAGS} - {"quiet"}
    assert offered <= set(options._READERS)


def test_a_flag_that_cannot_be_honoured_is_refused_by_name() -> None:
    for flag in REFUSED_FLAGS:
        given, _ = read_flags(RUN.flags, [f"--{flag.name}=1"], interspersed=True)
        with pytest.raises(Unsupported, match=f"`--{flag.name}`") as caught:
            engine_options(given)
        assert caught.value.hint


def test_flags_of_the_client_are_not_passed_to_the_engine() -> None:
    names = [f"--{flag.name}" + ("" if flag.kind == "bool" else "=x") for flag in RUN_FLAGS]
    given, _ = read_flags(RUN.flags, names, interspersed=True)
    assert set(engine_options(given)) == {"detach"}
