"""The report: codes, weights, words."""

from __future__ import annotations

import json
from errno import EACCES, EDQUOT, EINVAL, ENODEV, ENOENT, ENOSPC, EOPNOTSUPP, EPERM

import pytest
from place_facts import good_place, refused, without_userns, works

from duckweed.host import doctor
from duckweed.host.facts import Facts


def codes(facts) -> list[str]:
    return [finding["code"] for finding in doctor.report(facts)["findings"]]


def test_a_good_place_has_nothing_to_say() -> None:
    report = doctor.report(good_place())
    assert (report["status"], report["findings"]) == (0, [])
    assert "works here" in report["verdict"]


@pytest.mark.parametrize(
    ("facts", "code", "status"),
    [
        (without_userns(ENOSPC, settings={"user.max_user_namespaces": "0"}), "NS-SYSCTL", 1),
        (without_userns(EINVAL), "NS-EINVAL", 1),
        (without_userns(EPERM, process={"seccomp": 2}), "NS-SECCOMP", 1),
        (without_userns(EPERM), "NS-DENIED", 1),
        (good_place(netns=refused(ENOSPC)), "NS-SUBLIMIT", 1),
        (good_place(proc=refused(EPERM)), "PROC-MASK", 1),
        (good_place(overlay=refused(ENODEV), overlay_lowerdir_add=refused(ENODEV)), "OVL-NODEV", 1),
        (good_place(filesystem={"type": "lustre"}), "OVL-FS", 0),
        (good_place(filesystem={"free_bytes": 1000}), "STORE-QUOTA", 1),
        (good_place(filesystem={"free_inodes": 10}), "STORE-QUOTA", 1),
        (good_place(store_write=refused(EDQUOT)), "STORE-WRITE", 2),
        (good_place(store_exec=refused(EACCES)), "STORE-NOEXEC", 2),
        (good_place(store_xattr=refused(EOPNOTSUPP)), "XATTR", 1),
        (good_place(store_whiteout=refused(EPERM)), "DEV-MKNOD", 1),
        (good_place(subids={"uid": [], "gid": []}, newuidmap=refused(None)), "ID-RANGE", 0),
        (good_place(subids={"uid": [], "gid": [], "short": 5}, newuidmap=refused(None)), "ID-SHORT", 0),
        (good_place(newuidmap=refused(ENOENT)), "ID-RANGE", 0),
        (good_place(cgroup=refused(EACCES)), "CG-NONE", 0),
        (good_place(cgroup=works("memory pids")), "CG-CPU", 0),
        (good_place(limits={"nofile": {"soft": 1, "hard": 20000}}), "RLIM-NOFILE", 0),
        (good_place(tun=refused(ENOENT)), "NET-TUN", 0),
        (good_place(ping=refused(EACCES), settings={"net.ipv4.ping_group_range": "1 0"}), "NET-PING", 0),
        (good_place(settings={"net.ipv4.ip_unprivileged_port_start": "1024"}), "NET-LOWPORT", 0),
        (good_place(fuse=refused(ENOENT)), "DEV-FUSE", 0),
        (good_place(ptrace=refused(EPERM)), "PT-DENIED", 0),
        (good_place(ptrace=refused(EPERM), settings={"kernel.yama.ptrace_scope": "3"}), "PT-YAMA", 0),
        (good_place(process={"tracer_pid": 7}), "NESTED-TRACE", 0),
        (good_place(seccomp_addfd=refused(EINVAL)), "NO-NOTIF", 0),
        (good_place(landlock=refused(EOPNOTSUPP)), "NO-LANDLOCK", 0),
        (good_place(process={"euid": 0}), "UID0-NOCAP", 0),
    ],
)
def test_each_refusal_has_its_code_and_weight(facts, code: str, status: int) -> None:
    report = doctor.report(facts)
    assert [finding["code"] for finding in report["findings"]] == [code]
    assert report["status"] == status
    finding = report["findings"][0]
    assert finding["found"] and finding["means"] and finding["instead"]


def test_no_engine_is_said_only_when_every_way_is_shut() -> None:
    shut = {"ptrace": refused(EPERM), "seccomp_notify": refused(EINVAL), "seccomp_addfd": refused(EINVAL)}
    assert "NO-ENGINE" in codes(without_userns(EPERM, **shut))
    assert "NO-ENGINE" not in codes(good_place(**shut))


def test_the_gravest_finding_comes_first() -> None:
    facts = good_place(tun=refused(ENOENT), proc=refused(EPERM), store_exec=refused(EACCES))
    assert codes(facts) == ["STORE-NOEXEC", "PROC-MASK", "NET-TUN"]


def test_the_report_is_json_and_its_text_is_plain_and_narrow() -> None:
    report = doctor.report(without_userns(EPERM, cgroup=refused(EACCES)))
    assert json.loads(json.dumps(report)) == report
    assert report["text"] == doctor.render(report)
    assert "\x1b" not in report["text"]
    for line in report["text"].splitlines():
        assert len(line) <= 130, line
        assert line == line.rstrip()


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (good_place(), "off (containers have real ids)"),
        (good_place(newuidmap=refused(ENOENT)), "full (one real id)"),
        (good_place(newuidmap=refused(ENOENT), seccomp_notify=refused(EINVAL)), "off (EINVAL)"),
        (without_userns(EPERM), "off (no user namespaces)"),
    ],
)
def test_the_report_says_how_much_of_root_is_emulated(facts: Facts, line: str) -> None:
    report = doctor.report(facts)
    assert report["root_emulation"] == line
    assert f"  root emulation           {line}\n" in report["text"]
