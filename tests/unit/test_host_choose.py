"""Decisions from facts."""

from __future__ import annotations

from errno import ENODEV, ENOSPC, EPERM

import pytest
from place_facts import good_place, refused, without_userns

from duckweed.errors import Unsupported, UsageError
from duckweed.host import choose
from duckweed.store.layers import Flavour


def test_a_good_place_gets_all_ids_overlay_and_every_namespace_without_notes() -> None:
    choice = choose.decide(good_place())
    assert choice.uid_map == [(0, 1000, 1), (1, 100000, 65536)]
    assert choice.gid_map == [(0, 1001, 1), (1, 200000, 65536)]
    assert (choice.isolation, choice.idmap, choice.rootfs) == ("userns", "full", "overlay")
    assert choice.netns and choice.pidns and len(choice.namespaces) == 7
    assert choice.notes == []


def test_the_flavour_is_the_one_the_store_computes_from_the_same_maps() -> None:
    choice = choose.decide(good_place())
    assert choice.flavour == Flavour.mapped("0:1000:1,1:100000:65536", "0:1001:1,1:200000:65536").name


def test_no_subordinate_ids_is_a_single_id_and_no_note() -> None:
    choice = choose.decide(
        good_place(subids={"uid": [], "gid": []}, newuidmap=refused(None), newgidmap=refused(None))
    )
    assert (choice.uid_map, choice.flavour, choice.notes) == ([(0, 1000, 1)], "single", [])


def test_a_short_range_is_said_once_and_not_used() -> None:
    facts = good_place(
        subids={"uid": [], "gid": [], "short": 1000}, newuidmap=refused(None), newgidmap=refused(None)
    )
    choice = choose.decide(facts)
    assert choice.idmap == "single"
    assert len(choice.notes) == 1 and "1000 ids" in choice.notes[0]


def test_a_range_that_newuidmap_refuses_is_said() -> None:
    choice = choose.decide(good_place(newgidmap=refused(None, "newgidmap: gid range not allowed")))
    assert choice.idmap == "single"
    assert "newgidmap: gid range not allowed" in choice.notes[0]


def test_refused_overlay_becomes_copies_and_a_note_with_the_errno() -> None:
    facts = good_place(overlay=refused(ENODEV), overlay_lowerdir_add=refused(ENODEV))
    choice = choose.decide(facts)
    assert choice.rootfs == "copy"
    assert "(ENODEV)" in choice.notes[0]
    with pytest.raises(Unsupported, match="ENODEV"):
        choose.decide(facts, rootfs="overlay")


def test_copies_on_request_need_no_note() -> None:
    assert choose.decide(good_place(), rootfs="copy").notes == []


def test_a_refused_network_namespace_is_left_out_and_said() -> None:
    choice = choose.decide(good_place(netns=refused(ENOSPC)))
    assert not choice.netns and choice.pidns
    assert "(ENOSPC)" in choice.notes[0]


def test_masked_proc_takes_the_pid_namespace_with_it() -> None:
    choice = choose.decide(good_place(proc=refused(EPERM)))
    assert not choice.pidns
    assert len(choice.notes) == 1 and "/proc" in choice.notes[0]


def test_full_ids_on_request_are_an_error_where_they_cannot_be_had() -> None:
    with pytest.raises(Unsupported, match="no subordinate ids"):
        choose.decide(good_place(subids={"uid": []}), idmap="full")
    assert choose.decide(good_place(), idmap="single").flavour == "single"


@pytest.mark.parametrize(
    ("errno", "changes", "words"),
    [
        (ENOSPC, {"settings": {"user.max_user_namespaces": "0"}}, "max_user_namespaces.*ENOSPC"),
        (EPERM, {"process": {"seccomp": 2}}, "seccomp profile.*EPERM"),
        (EPERM, {"settings": {"kernel.unprivileged_userns_clone": "0"}}, "unprivileged_userns_clone"),
        (EPERM, {"settings": {"kernel.apparmor_restrict_unprivileged_userns": "1"}}, "AppArmor"),
        (EPERM, {"not_chroot": refused(None)}, "chroot"),
    ],
)
def test_refused_user_namespaces_are_an_error_that_names_the_cause(errno, changes, words) -> None:
    with pytest.raises(Unsupported, match=words) as caught:
        choose.decide(without_userns(errno, **changes), "userns")
    assert "\n" not in caught.value.message and "trap" in caught.value.hint
    taken = choose.decide(without_userns(errno, **changes))
    assert taken.isolation == "trap" and "using the trap isolation" in taken.notes[0]


def test_apparmor_that_allows_the_namespace_and_refuses_its_use_is_known() -> None:
    facts = good_place(uid_map=refused(EPERM), settings={"kernel.apparmor_restrict_unprivileged_userns": "1"})
    with pytest.raises(Unsupported, match="AppArmor"):
        choose.decide(facts, "userns")


def test_trap_can_be_chosen_in_a_good_place_and_needs_ptrace() -> None:
    choice = choose.decide(good_place(), "trap")
    assert (choice.isolation, choice.root_emulation, choice.netns, choice.notes) == (
        "trap",
        "full",
        False,
        [],
    )
    with pytest.raises(Unsupported, match="EPERM"):
        choose.decide(good_place(ptrace=refused(EPERM)), "trap")
    with pytest.raises(Unsupported, match="cannot run containers here"):
        choose.decide(without_userns(EPERM, ptrace_seccomp=refused(EPERM)))


def test_unknown_words_are_usage_errors() -> None:
    for words in ({"isolation": "vm"}, {"idmap": "some"}, {"rootfs": "zfs"}):
        with pytest.raises(UsageError):
            choose.decide(good_place(), **words)
