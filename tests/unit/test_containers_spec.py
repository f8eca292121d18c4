"""config.json from image and options, and the rules around it: names, capabilities, claims, image trees."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from duckweed.containers import spec
from duckweed.containers.capabilities import ALL, DEFAULT, effective_set
from duckweed.containers.claim import Claim
from duckweed.containers.environment import merge
from duckweed.containers.image_tree import sources_of
from duckweed.containers.names import ADJECTIVES, PLANTS, check_name, random_name
from duckweed.containers.network import hosts_file, resolver_file
from duckweed.containers.options import parse
from duckweed.containers.seccomp import linux_seccomp
from duckweed.errors import NoSuchContainer, UsageError
from duckweed.store import scratch

NAMESPACES = ("user", "mount", "pid", "ipc", "uts", "network", "cgroup")


def composed(
    config: dict[str, Any] | None = None, command: list[str] | None = None, **given: Any
) -> dict[str, Any]:
    return spec.compose(
        parse(command, given),
        {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=image"]} if config is None else config,
        container_id="c" * 64,
        directory="/store/containers/c",
        hostname="host",
        rootfs={"kind": "dir", "path": "/"},
        uid_map=[],
        gid_map=[],
        namespaces=NAMESPACES,
    )


def block(document: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(document["annotations"]["io.duckweed.container"])
    return loaded


@pytest.mark.parametrize(
    ("config", "command", "entrypoint", "expected"),
    [
        ({"Cmd": ["a"]}, None, None, ["a"]),
        ({"Cmd": ["a"], "Entrypoint": ["e"]}, None, None, ["e", "a"]),
        ({"Cmd": ["a"], "Entrypoint": ["e"]}, ["b"], None, ["e", "b"]),
        ({"Cmd": ["a"], "Entrypoint": ["e"]}, None, "x", ["x"]),
        ({"Cmd": ["a"], "Entrypoint": ["e"]}, ["b"], "", ["b"]),
    ],
)
def test_entrypoint_and_command_join_as_in_docker(
    config: dict[str, Any], command: list[str] | None, entrypoint: str | None, expected: list[str]
) -> None:
    options = parse(command, {"entrypoint": entrypoint})
    assert spec.process_args(config, options) == expected


def test_an_image_without_a_command_needs_one() -> None:
    with pytest.raises(UsageError, match="no command specified"):
        composed(config={})


def test_the_users_environment_hides_the_images() -> None:
    assert composed(env=["A=mine", "B=2"])["process"]["env"] == [
        "PATH=/bin",
        "HOSTNAME=host",
        "A=mine",
        "B=2",
    ]
    assert "TERM=xterm" in composed(tty=True)["process"]["env"]
    assert spec.configured_environment({"Env": ["A=1"]}, parse(None, {})) == ["A=1"]
    assert merge(["A=1", "B=2"], ["A=3"]) == ["A=3", "B=2"]


def test_capabilities_are_dockers_unless_asked_otherwise() -> None:
    assert len(DEFAULT) == 14 and set(effective_set([], [])) == set(DEFAULT)
    assert effective_set([], ["ALL"]) == ()
    assert effective_set(["CAP_CHOWN"], ["ALL"]) == ("CAP_CHOWN",)
    assert set(effective_set(["ALL"], ["CAP_SYS_ADMIN"])) == set(ALL) - {"CAP_SYS_ADMIN"}
    assert effective_set([], [], privileged=True) == ALL
    sets = composed()["process"]["capabilities"]
    assert sets["inheritable"] == sets["ambient"] == [] and set(sets["bounding"]) == set(DEFAULT)


def test_privileged_masks_nothing_and_filters_nothing() -> None:
    plain, privileged = composed(), composed(privileged=True)
    assert "/proc/kcore" in plain["linux"]["maskedPaths"] and "/proc/sys" in plain["linux"]["readonlyPaths"]
    assert "maskedPaths" not in privileged["linux"] and block(privileged)["seccomp"] == "unconfined"


def test_the_hosts_network_is_the_absence_of_a_namespace() -> None:
    def kinds(document: dict[str, Any]) -> list[str]:
        return [entry["type"] for entry in document["linux"]["namespaces"]]

    assert "network" in kinds(composed()) and "network" not in kinds(composed(network="host"))


def test_mount_points_inside_others_come_after_them() -> None:
    points = [
        {
            "Type": "tmpfs",
            "Destination": path,
            "Source": "",
            "RW": True,
            "Options": [],
            "Propagation": "",
            "IsDirectory": True,
            "Recursive": True,
        }
        for path in ("/a/b/c", "/a", "/a/b")
    ]
    assert [mount["destination"] for mount in spec.user_mounts(points)] == ["/a", "/a/b", "/a/b/c"]


def test_what_the_supervisor_must_know_is_in_the_annotation() -> None:
    document = block(
        composed(
            interactive=True,
            stop_signal="INT",
            stop_timeout=3,
            init=True,
            user="me:us",
            log_opt={"max-size": "1m", "max-file": "3"},
        )
    )
    assert (document["stdin"], document["stop_signal"], document["stop_timeout_s"]) == ("once", 2, 3)
    assert (document["init"], document["user"]) == (True, "me:us")
    assert (document["log"]["max_size"], document["log"]["max_file"]) == (1 << 20, 3)
    assert block(composed(interactive=True, detach=True))["stdin"] == "open"
    assert block(composed(config={"Cmd": ["x"], "StopSignal": "nonsense"}))["stop_signal"] == 15


def test_hosts_and_resolver_files() -> None:
    hosts = hosts_file("web", "lan", "none", [("db", "10.0.0.1")])
    assert "127.0.0.1\tlocalhost\n" in hosts and "127.0.0.1\tweb.lan web\n" in hosts
    assert hosts.endswith("10.0.0.1\tdb\n")
    resolver = resolver_file("none", ["1.1.1.1"], ["lan"], ["ndots:2"])
    assert resolver == "nameserver 1.1.1.1\nsearch lan\noptions ndots:2\n"
    assert resolver_file("none", [], [], []) == ""


def test_a_seccomp_profile_of_dockers_is_decided_for_this_machine() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["never"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["pdp11"]}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        ],
    }

    def names(capabilities: list[str]) -> list[str]:
        rules = linux_seccomp(profile, capabilities)["syscalls"]
        return [name for rule in rules for name in rule["names"]]

    assert names([]) == ["read", "clone"]
    assert names(["CAP_SYS_ADMIN"]) == ["read", "mount"]


def test_names_follow_dockers_rule() -> None:
    assert check_name("/web-1.x_y") == "web-1.x_y"
    for bad in ("", "a", "-a", "a b", "a/b", "ä1", "a" * 300):
        with pytest.raises(UsageError):
            check_name(bad)
    assert check_name(random_name())
    assert len(set(ADJECTIVES)) * len(set(PLANTS)) > 5000


def test_a_claim_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    first, second = Claim(str(tmp_path)), Claim(str(tmp_path))
    assert first.attempt() and not second.attempt()
    first.release()
    assert second.attempt()
    second.release()
    assert os.listdir(tmp_path) == []


def test_the_claim_of_a_dead_process_is_swept(tmp_path: Path) -> None:
    boot = scratch.owner().partition(".")[0]
    for dead in (
        f"claim.{boot}.{2**22 - 1}.1.aa",
        "claim.00000000.1.1.bb",
        f"claim.{boot}.{os.getpid()}.1.cc",
    ):
        (tmp_path / dead).touch()
    with Claim(str(tmp_path)):
        assert len(os.listdir(tmp_path)) == 1


def test_a_claim_on_a_removed_container_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoSuchContainer):
        Claim(str(tmp_path / ("0" * 64))).attempt()


def test_an_images_directory_is_found_through_its_links_and_never_outside(tmp_path: Path) -> None:
    top, middle, bottom = (tmp_path / name for name in ("top", "middle", "bottom"))
    for path in (top / "data", middle / "data", middle / "real" / "deep", bottom / "data", bottom / "real"):
        path.mkdir(parents=True)
    (top / "alias").symlink_to("real/../real/deep/..")
    (top / "out").symlink_to("../" * 30 + str(tmp_path)[1:])
    (top / "loop").symlink_to("/loop")
    (middle / "covered").write_text("a file hides what is below")
    (bottom / "covered").mkdir()
    lower = [str(top), str(middle), str(bottom)]
    assert sources_of(lower, "/data") == [f"{tree}/data" for tree in lower]
    assert sources_of(lower, "/alias") == [f"{middle}/real", f"{bottom}/real"]
    assert sources_of(lower, "/alias/deep") == [f"{middle}/real/deep"]
    for nothing in ("/out", "/loop", "/covered", "/none", "/data/none"):
        assert sources_of(lower, nothing) == []
    os.setxattr(middle / "data", "user.overlay.opaque", b"y")
    assert sources_of(lower, "/data") == [f"{top}/data", f"{middle}/data"]
