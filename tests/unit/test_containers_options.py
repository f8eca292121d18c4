"""What users type, as `containers.options` understands or refuses it. The refusals are Docker's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from duckweed.containers.options import parse
from duckweed.errors import DuckweedError, UsageError


def test_asking_for_nothing_gives_dockers_defaults() -> None:
    options = parse(None, {})
    assert (options.network, options.shm_size, options.seccomp, options.pull) == (
        "default",
        64 << 20,
        "default",
        "missing",
    )
    assert options.mounts == [] and options.command is None and options.entrypoint is None


def test_a_string_command_is_split_like_a_shell_does() -> None:
    assert parse("sh -c 'echo a b'", {}).command == ["sh", "-c", "echo a b"]


def test_an_empty_entrypoint_resets_and_a_string_is_one_word() -> None:
    assert parse(None, {"entrypoint": ""}).entrypoint == []
    assert parse(None, {"entrypoint": "/my program"}).entrypoint == ["/my program"]


def test_none_and_false_mean_not_given() -> None:
    options = parse(None, {"user": None, "privileged": False, "volume": None})
    assert (options.user, options.privileged, list(options.volume)) == ("", False, [])


def test_environment_comes_from_pairs_mappings_and_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FROM_US", "here")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert parse(None, {"env": ["A=1", "FROM_US", "NOT_SET", "E="]}).env == ["A=1", "FROM_US=here", "E="]
    assert parse(None, {"env": {"A": 1, "FROM_US": None}}).env == ["A=1", "FROM_US=here"]
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=1\nFROM_US\nNOT_SET\nB= spaced # kept\n")
    assert parse(None, {"env_file": str(file)}).env_file == ["A=1", "FROM_US=here", "B= spaced # kept"]


def test_mounts_are_reduced_to_one_form() -> None:
    options = parse(
        None,
        {
            "volume": ["/a:/b:ro", "data:/c", "/d", "/e:/f:rslave,z"],
            "mount": ["type=bind,src=/x,dst=/y,readonly", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"],
            "tmpfs": "/run:size=8m,exec",
        },
    )
    seen = [(mount.kind, mount.source, mount.target, mount.read_only) for mount in options.mounts]
    assert seen == [
        ("bind", "/a", "/b", True),
        ("volume", "data", "/c", False),
        ("volume", "", "/d", False),
        ("bind", "/e", "/f", False),
        ("bind", "/x", "/y", True),
        ("tmpfs", "", "/t", False),
        ("tmpfs", "", "/run", False),
    ]
    assert options.volume[3].propagation == "rslave"
    assert options.mount[1].options == ["noexec", "nosuid", "nodev", f"size={1 << 20}", "mode=700"]
    assert options.tmpfs[0].options == ["nosuid", "nodev", "size=8m", "exec"]


def test_relative_and_home_sources_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    options = parse(None, {"volume": ["./src:/app", "~/x:/y"]})
    assert [mount.source for mount in options.volume] == [f"{tmp_path}/src", "/home/me/x"]


def test_capabilities_are_known_with_and_without_prefix() -> None:
    options = parse(None, {"cap_add": ["net_admin", "ALL"], "cap_drop": "CAP_CHOWN"})
    assert (options.cap_add, options.cap_drop) == (["CAP_NET_ADMIN", "ALL"], ["CAP_CHOWN"])


def test_limits_sizes_signals_and_labels() -> None:
    options = parse(
        None,
        {
            "ulimit": ["nofile=100:200", "core=-1", "nofile=5"],
            "shm_size": "8m",
            "stop_signal": "SIGINT",
            "label": ["a=b", "flag"],
        },
    )
    assert options.ulimit == [("nofile", 5, 5), ("core", -1, -1)]
    assert (options.shm_size, options.stop_signal, options.label) == (8 << 20, 2, {"a": "b", "flag": ""})


def test_published_ports_are_discarded_on_the_hosts_network() -> None:
    options = parse(
        None,
        {"network": "host", "publish": ["127.0.0.1:8080:80/tcp", "53:53/udp", "80", "8000-8010:9000-9010"]},
    )
    assert list(options.publish) == []
    assert options.notes == ["published ports are discarded when using host network mode"]


def test_no_new_privileges_and_harmless_security_options() -> None:
    options = parse(None, {"security_opt": ["no-new-privileges", "seccomp=unconfined", "label=disable"]})
    assert options.no_new_privileges and options.seccomp == "unconfined"
    assert "label" in options.notes[0]
    assert not parse(None, {"security_opt": "no-new-privileges:false"}).no_new_privileges


REFUSED = [
    ({"volume": ":/foo"}, "invalid spec: :/foo: empty section between colons"),
    ({"volume": "a:b:c:d"}, "invalid volume specification: 'a:b:c:d'"),
    ({"volume": "/a:rel"}, "invalid mount path: 'rel' mount path must be absolute"),
    ({"volume": "/a:/"}, "destination can't be '/'"),
    ({"volume": "/a:/b:nope"}, "invalid mode: nope"),
    ({"volume": "/a:/b:ro,rw"}, "invalid mode: ro,rw"),
    ({"volume": "/a:/b:nocopy"}, "invalid mode: nocopy"),
    ({"volume": "!:/b"}, 'volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed'),
    ({"volume": ["/a:/b", "/c:/b/"]}, "duplicate mount point: /b"),
    ({"mount": "type=bind,src=/a"}, "target is required"),
    ({"mount": "type=bind,dst=/a"}, "field Source must not be empty"),
    ({"mount": "type=magic,dst=/a"}, "mount type unknown: 'magic'"),
    ({"mount": "dst=/a,nonsense=1"}, "unexpected key 'nonsense' in 'nonsense=1'"),
    ({"mount": "dst=/a,src"}, "invalid field 'src' must be a key=value pair"),
    ({"mount": "dst=/a,readonly=maybe"}, "invalid value for readonly: maybe"),
    ({"mount": "type=bind,src=/a,dst=/b,tmpfs-size=1"}, "cannot mix 'tmpfs-size' with mount type 'bind'"),
    ({"tmpfs": "/a:nonsense"}, 'invalid tmpfs option ["nonsense"]'),
    ({"env": "=x"}, "invalid environment variable: =x"),
    ({"env_file": "/does/not/exist"}, "open /does/not/exist: no such file or directory"),
    ({"cap_add": "FLY"}, 'invalid CapAdd: unknown capability: "CAP_FLY"'),
    ({"ulimit": "nofile"}, "invalid ulimit argument: nofile"),
    ({"ulimit": "bogus=1"}, "invalid ulimit type: bogus"),
    ({"ulimit": "nofile=3:2"}, "ulimit soft limit must be less than or equal to hard limit: 3 > 2"),
    ({"shm_size": "big"}, "invalid size: 'big'"),
    ({"add_host": "name"}, 'bad format for add-host: "name"'),
    ({"add_host": "a:1.2.3.400"}, 'invalid IP address in add-host: "1.2.3.400"'),
    ({"dns": "resolver"}, "resolver is not an ip address"),
    ({"stop_signal": "NOPE"}, "invalid signal: NOPE"),
    ({"workdir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
    ({"security_opt": "bogus"}, 'invalid --security-opt: "bogus"'),
    ({"security_opt": "seccomp=/no/file"}, "opening seccomp profile (/no/file) failed: open /no/file"),
    ({"name": "a b"}, "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ({"publish": "a:b"}, "invalid containerPort: a:b"),
    ({"rm": True, "restart": "always"}, "restart policy `always`"),
    ({"restart": "sometimes"}, "invalid restart policy: unknown policy 'sometimes'"),
    ({"attach": "everything"}, "valid streams are STDIN, STDOUT and STDERR"),
    ({"pull": "perhaps"}, 'invalid argument "perhaps" for "--pull" flag'),
    ({"frobnicate": 1}, "unknown flag: --frobnicate"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=[str(given) for given, _ in REFUSED])
def test_nonsense_is_refused_in_one_line(given: dict[str, object], words: str) -> None:
    with pytest.raises(DuckweedError) as caught:
        _ = parse(None, given).mounts
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 125


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", "default"),
        ("slirp", "bridge"),
        ("pasta", "bridge"),
        ("host", "host"),
        ("container:web", "container:web"),
    ],
)
def test_networks_have_one_word_each(text: str, mode: str) -> None:
    assert parse(None, {"network": text}).network == mode


def test_networks_that_were_made_can_be_combined_and_no_others() -> None:
    options = parse(None, {"network": ["name=web,alias=www,ip=10.89.0.9", "db"]})
    assert (options.network, list(options.more_networks)) == ("web", ["db"])
    assert (options.network_alias, options.ip) == (["www"], "10.89.0.9")
    for networks in (["host", "web"], ["web", "bridge"], "web,ip=x", "name=web,color=red", "a b"):
        with pytest.raises(UsageError):
            parse(None, {"network": networks})


def test_env_file_lines_without_a_good_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "env"
    for text, words in (
        ("=x\n", "no variable name on line '=x'"),
        ("a b=c\n", "variable 'a b' contains whitespaces"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=words):
            parse(None, {"env_file": [str(file)]})
