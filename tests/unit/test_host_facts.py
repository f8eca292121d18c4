"""What DUCKWEED_PRETEND takes away."""

from __future__ import annotations

import pytest
from place_facts import good_place

from duckweed.errors import Unsupported, UsageError
from duckweed.host import choose, doctor
from duckweed.host.facts import PRETEND, pretend


def poorer(words: str):
    return pretend(good_place(), {"DUCKWEED_PRETEND": words})


@pytest.mark.parametrize("word", sorted(PRETEND))
def test_every_word_takes_its_facts_and_shows_in_the_report(word: str) -> None:
    facts = poorer(word)
    for name in PRETEND[word][0].split():
        assert not facts.ok(name)
        assert facts.detail(name) == "pretended" and facts.errno_name(name)
    report = doctor.report(facts)
    assert report["pretended"] == [word]
    assert report["findings"], "nothing is said about what is missing"
    assert word in report["text"]


def test_nothing_else_is_taken_and_the_real_facts_stay() -> None:
    real = good_place()
    poor = pretend(real, {"DUCKWEED_PRETEND": "no-tun"})
    assert poor.ok("userns") and poor.ok("fuse")
    assert real.ok("tun")


@pytest.mark.parametrize(
    ("words", "idmap", "rootfs", "lost"),
    [
        ("no-subid", "single", "overlay", ()),
        ("no-overlay", "full", "copy", ()),
        ("no-netns,no-pidns", "full", "overlay", ("network", "pid")),
        ("no-overlay, no-subid no-netns", "single", "copy", ("network",)),
        ("no-tun,no-fuse,no-ptrace,no-notify,no-landlock,no-cgroup,no-xattr", "full", "overlay", ()),
    ],
)
def test_decisions_follow_the_pretended_place(
    words: str, idmap: str, rootfs: str, lost: tuple[str, ...]
) -> None:
    choice = choose.decide(poorer(words))
    assert (choice.idmap, choice.rootfs) == (idmap, rootfs)
    assert not set(lost) & set(choice.namespaces) and len(choice.namespaces) == 7 - len(lost)


def test_without_user_namespaces_and_ptrace_nothing_runs() -> None:
    assert choose.decide(poorer("no-userns")).isolation == "trap"
    with pytest.raises(Unsupported, match="EPERM"):
        choose.decide(poorer("no-userns,no-ptrace"))
    assert doctor.report(poorer("no-userns,no-ptrace"))["status"] == 2
    assert doctor.report(poorer("no-userns"))["status"] == 1


def test_an_unknown_word_is_refused_and_an_empty_list_is_nothing() -> None:
    with pytest.raises(UsageError, match="no-luck"):
        poorer("no-luck")
    assert poorer(" , ").pretended == ()
