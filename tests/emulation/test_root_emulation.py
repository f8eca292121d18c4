"""Root with one uid: users, owners and permissions as programs of a container find them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, runner

Shell = Callable[..., str]


def test_owners_of_the_image_are_seen(shell: Shell) -> None:
    shown = shell("stat -c '%n %u %g %a' /etc/shadow /var/mail /home/ann /home/ann/notes /etc/passwd")
    assert shown.splitlines() == [
        "/etc/shadow 0 42 640",
        "/var/mail 0 50 2775",
        "/home/ann 1000 1000 700",
        "/home/ann/notes 1000 1000 600",
        "/etc/passwd 0 0 644",
    ]


def test_a_device_of_the_image_is_a_device_and_works(shell: Shell) -> None:
    shown = shell("stat -c '%F %t %T %u %g %a' /data; head -c 3 /data | od -An -tx1")
    assert shown.splitlines() == ["character special file 1 5 0 6 660", " 00 00 00"]


def test_what_chown_sets_is_seen_under_every_name(shell: Shell) -> None:
    shown = shell("""
        touch a; chown 12:34 a; ln a b; mv a c; ln -s c d; chown -h 5:6 d
        stat -c '%n %u %g' b c d; stat -L -c '%u %g' d; stat -L -c '%u %g' /dev/stdin < c""")
    assert shown.splitlines() == ["b 12 34", "c 12 34", "d 5 6", "12 34", "12 34"]


def test_an_owner_is_found_under_names_older_and_newer_than_it(shell: Shell) -> None:
    shown = shell("""
        stat -c %u /etc/twice.link /etc/twice; ln /etc/twice.link /third; stat -c %u /third
        touch a; ln a b; chown 12 a; stat -c %u b; mv b c; stat -c %u c; ln c d; rm c a; stat -c %u d; stat -c %u ./d
        mkdir e; chown 13 e; mkdir f; mv e f/; stat -c %u f/e f/e/ f/e/.; mv f/e g; stat -c %u g; cd g; stat -c %u .
        su ann -c 'touch /tmp/h; mv /tmp/h /tmp/i; ln /tmp/i /tmp/j'; stat -c %u /tmp/i /tmp/j""")
    assert shown.split() == ["7"] * 3 + ["12"] * 4 + ["13"] * 5 + ["1000"] * 2


def test_what_is_made_through_a_dangling_link_is_its_makers(shell: Shell) -> None:
    shown = shell("""su ann -c 'cd /tmp; mkdir d; ln -s l l2; ln -s d/f l; echo x > l2; ln -s /etc/f m; echo x > m'
        stat -c '%u %g' /tmp/d/f; ls /etc/f; ln -s mail/f /var/l; echo x > /var/l; stat -c '%u %g' /var/mail/f""")
    assert [line for line in shown.splitlines() if line[0].isdigit()] == ["1000 1000", "0 50"]
    assert "Permission denied" in shown and "No such file" in shown


def test_files_of_layers_keep_their_owner_when_they_are_changed(shell: Shell) -> None:
    shown = shell("""
        echo more >> /etc/shadow; chmod 600 /etc/shadow; mv /etc/shadow /etc/s; touch -d @5 /home/ann/notes
        stat -c '%u %g %a' /etc/s; stat -c '%u %g' /home/ann/notes
        touch /var/mail/x; stat -c '%n %u %g %a' /var/mail /var/mail/x
        chown 9 /etc/twice; stat -c '%n %u %g' /etc/twice""")
    assert shown.splitlines() == [
        "0 42 600",
        "1000 1000",
        "/var/mail 0 50 2775",
        "/var/mail/x 0 50 644",
        "/etc/twice 9 8",
    ]


def test_a_removed_files_owner_is_not_the_next_ones(shell: Shell) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do touch x; chown 77 x; rm x; touch x; stat -c %u x; mv x y; touch z; chown 66 z; mv z y; done; stat -c %u y"
    assert shell(script).split() == ["0"] * 9 + ["66"]


def test_a_changed_root_holds_for_links_and_dots_too(shell: Shell) -> None:
    shown = shell("""
        mkdir -p /c/bin /c/etc /c/tmp; cp /bin/busybox /c/bin/busybox; echo a > /c/etc/f; echo b > /etc/f; chmod 1777 /c/tmp
        ln -s busybox /c/bin/sh; ln -s /etc/f /c/etc/link; ln -s ../../../../etc/f /c/etc/up; cp /etc/passwd /etc/group /c/etc
        chroot /c /bin/busybox sh -c 'chown 5:6 /etc/link; stat -L -c "%u %g" /etc/link; chown 7:6 /etc/up; cd /etc; chown -h 8 link;
            stat -c "%u %g" link f; mkdir -m 700 /tmp/d; echo x > /tmp/d/f; ln -s /tmp/d/f /tmp/l
            busybox su ann -c "busybox stat -L -c %u /etc/link; busybox cat /tmp/l; echo mine > /tmp/g; busybox ln -s /tmp/g /tmp/h; echo more >> /tmp/h"'
        stat -c "%n %u %g" /etc/f /c/etc/f /c/tmp/g; cat /c/tmp/g""")
    assert shown.splitlines() == [
        *("5 6", "8 0", "7 6", "7", "cat: can't open '/tmp/l': Permission denied"),
        *("/etc/f 0 0", "/c/etc/f 7 6", "/c/tmp/g 1000 1000", "mine", "more"),
    ]


def test_a_user_is_that_user_and_so_is_what_it_makes(shell: Shell) -> None:
    shown = shell("""su ann -c 'id -u; id -g; id -G; cd; touch f; mkdir d; ln -s f l; mkfifo p; stat -c "%n %u %g" f d l p;
        grep -E "^(Uid|Gid|CapEff)" /proc/self/status; stat -L -c %u /proc/self'""")
    assert shown.splitlines() == [
        "1000",
        "1000",
        "1000 50",
        *[f"{name} 1000 1000" for name in "fdlp"],
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t1000\t1000\t1000\t1000",
        "CapEff:\t0000000000000000",
        "1000",
    ]


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("cat /etc/shadow", "Permission denied"),
        ("cat /home/ann/notes", "Permission denied"),
        ("ls /home/ann", "Permission denied"),
        ("cd /home/ann", "Permission denied"),
        ("echo x > /etc/passwd", "Permission denied"),
        ("touch /etc/new", "Permission denied"),
        ("mkdir /etc/new", "Permission denied"),
        ("ln -s x /etc/new", "Permission denied"),
        ("mv /etc/passwd /etc/p", "Permission denied"),
        ("rm -f /etc/passwd", "Permission denied"),
        ("chmod 777 /etc/passwd", "Operation not permitted"),
        ("chown bob /etc/passwd", "Operation not permitted"),
        ("chown ann /tmp/mine", "Operation not permitted"),
        ("rm -f /tmp/roots", "Operation not permitted"),
        ("mknod /tmp/n c 1 3", "Operation not permitted"),
        ("kill -9 1", "Operation not permitted"),
        ("chroot / true", "Operation not permitted"),
    ],
)
def test_a_user_is_refused_what_a_user_is_refused(shell: Shell, command: str, refusal: str) -> None:
    shown = shell(f"touch /tmp/roots; su bob -c 'touch /tmp/mine; {command}'; true")
    assert refusal in shown


def test_run_and_exec_as_a_user_of_the_image(alone: Run) -> None:
    name = alone("run", "-d", "-u", "ann", "users", "sleep", "100", check=True).stdout.strip()
    try:
        assert alone("exec", name, "id", "-u").stdout == "1000\n"
        assert alone("exec", "-u", "bob:50", name, "id").stdout.startswith("uid=1001(bob) gid=50(staff)")
        assert alone("exec", "-u", "root", name, "sh", "-c", "touch /r; chown ann /r").returncode == 0
        assert alone("exec", name, "stat", "-c", "%U", "/r").stdout == "ann\n"
        assert alone("exec", name, "kill", "-9", "1").returncode == 0
    finally:
        alone("rm", "-f", name)


def test_a_working_directory_that_is_made_belongs_to_the_user(shell: Shell) -> None:
    assert shell("stat -c %u . ; touch x", "-u", "ann", "-w", "/new/place").split() == ["1000"]


def test_owners_outlive_a_restart_and_a_killed_supervisor(alone: Run) -> None:
    script = "[ -e /f ] || { touch /f; chown 3:4 /f; chown 5 /etc/twice; chgrp 9 /var/mail; }; stat -c '%u %g' /f /etc/twice /var/mail; sleep 100"
    name = alone("run", "-d", "users", "sh", "-c", script, check=True).stdout.strip()
    try:
        for _ in range(2):
            shown = alone("exec", name, "stat", "-c", "%u %g", "/f", "/etc/twice", "/var/mail")
            while shown.returncode or not shown.stdout.startswith("3 4"):
                shown = alone("exec", name, "stat", "-c", "%u %g", "/f", "/etc/twice", "/var/mail")
            assert shown.stdout.splitlines() == ["3 4", "5 8", "0 9"]
            alone("kill", name, check=True)
            alone("start", name, check=True)
    finally:
        alone("rm", "-f", name)


def test_modes_are_shown_and_each_does_what_it_says(alone: Run, shell: Shell) -> None:
    seen = json.loads(alone("info", "--format", "json").stdout)
    assert seen["RootEmulation"] == "full"
    assert "nobody" not in shell("touch /f; chown 5 /f && stat -c %u /f; id -u", "--root-emulation", "owners")
    assert "not permitted" in shell("touch /f; chown 5 /f", "--root-emulation", "off") or "Invalid" in shell(
        "touch /f; chown 5 /f", "--root-emulation", "off"
    )
    name = alone("create", "users", check=True).stdout.strip()
    try:
        assert alone("inspect", "-f", "{{.Duckweed.RootEmulation}}", name).stdout == "full\n"
    finally:
        alone("rm", name)


def test_it_is_off_under_a_full_range(root: Path) -> None:
    run = runner(root)
    info = json.loads(run("info", "--format", "json").stdout)
    if info["IdMap"] != "full":
        pytest.skip("this account has no subordinate ids")
    assert info["RootEmulation"] == "off"


def test_no_path_leads_through_the_emulators_own_view_of_the_host(shell: Shell) -> None:
    """The emulator walks relative paths from the host's /proc; what a caller adds must not lead back there."""
    own = os.getpid()
    secret = f"{own}/root{os.path.abspath(__file__)}"
    climbs = [
        "/dev/fd/../../",
        "/dev/fd/0/../../../",
        "/proc/self/fd/../../",
        "../../../../../",
        "/proc/self/cwd/../",
    ]
    for climb in climbs:
        shown = shell(
            f"cd /proc/self; stat '{climb}{secret}'; chown 5 '{climb}{secret}'; : > '{climb}{own}/cwd/made'"
        )
        assert ("No such file" in shown or "Not a directory" in shown) and "Size" not in shown
    assert not os.path.exists("made")
