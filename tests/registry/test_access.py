"""Who may: Basic, tokens, TLS; `login`, `logout`, and where credentials are kept and found."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Run
from registry.between import Between, Passed, Trouble
from registry.publish import Published
from registry.server import RegistryServer
from registry.tokens import PASSWORD, REFRESH_TOKEN, USER, TokenServer

HELPER = """#!/usr/bin/env python3
import json, os, sys
kept = os.environ["HELPER_FILE"]
known = json.load(open(kept)) if os.path.exists(kept) else {}
text = sys.stdin.read()
if sys.argv[1] == "store":
    one = json.loads(text)
    known[one["ServerURL"]] = one
elif sys.argv[1] == "erase":
    known.pop(text.strip(), None)
elif text.strip() in known:
    print(json.dumps(known[text.strip()]))
else:
    print("credentials not found in native keychain")
    sys.exit(1)
json.dump(known, open(kept, "w"))
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The directory of Docker's config.json, empty."""
    path = tmp_path / "docker-config"
    path.mkdir()
    return path


@pytest.fixture
def client(fresh: Run, config: Path, busybox_here: None) -> Run:
    """`duckweed` with that configuration."""

    def run(
        *words: str, env: dict[str, str] | None = None, **more: object
    ) -> subprocess.CompletedProcess[str]:
        return fresh(*words, env={"DOCKER_CONFIG": str(config), **(env or {})}, **more)

    return run


@pytest.fixture
def busybox_here(fresh: Run, archives: Path) -> None:
    fresh("load", "-q", "-i", str(archives / "busybox.oci.tar"), check=True)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with htpasswd."""
    program = shutil.which("htpasswd")
    if program is None:
        pytest.skip("htpasswd is not installed (Debian: apache2-utils)")
    directory = tmp_path_factory.mktemp("guarded")
    line = subprocess.run([program, "-Bbn", USER, PASSWORD], capture_output=True, text=True, check=True)
    (directory / "htpasswd").write_text(line.stdout)
    auth = {"htpasswd": {"realm": "guarded", "path": str(directory / "htpasswd")}}
    server = RegistryServer(directory, auth=auth)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    server = TokenServer(tmp_path_factory.mktemp("tokens"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tokened(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[RegistryServer]:
    """A registry that believes the token server."""
    server = RegistryServer(tmp_path_factory.mktemp("tokened"), auth=tokens.auth())
    yield server
    server.stop()


def log_in(client: Run, name: str, **more: object) -> None:
    done = client("login", "-u", USER, "--password-stdin", name, input=PASSWORD + "\n", check=True, **more)
    assert done.stdout == "Login Succeeded\n"


def test_a_guarded_registry_wants_a_login(client: Run, guarded: RegistryServer, config: Path) -> None:
    target = f"{guarded.name}/team/app:1"
    client("tag", "example/busybox:oci", target, check=True)
    refused = client("push", target)
    assert refused.returncode == 1
    assert "push access denied" in refused.stderr and "duckweed login" in refused.stderr
    log_in(client, guarded.name)
    kept = json.loads((config / "config.json").read_text())
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert kept["auths"][guarded.name] == {"auth": packed}
    assert stat.S_IMODE((config / "config.json").stat().st_mode) == 0o600
    client("push", target, check=True)
    client("rmi", target, check=True)
    client("pull", target, check=True)
    assert client("logout", guarded.name).stdout == f"Removing login credentials for {guarded.name}\n"
    assert client("logout", guarded.name).stdout == f"Not logged in to {guarded.name}\n"
    refused = client("pull", target)
    assert refused.returncode == 1 and "pull access denied for" in refused.stderr


def test_a_wrong_password_is_refused_and_not_kept(client: Run, guarded: RegistryServer, config: Path) -> None:
    done = client("login", "-u", USER, "-p", "wrong", guarded.name)
    assert done.returncode == 1
    assert "WARNING! Using --password via the CLI is insecure" in done.stderr
    assert "unauthorized" in done.stderr and "Login Succeeded" not in done.stdout
    assert not (config / "config.json").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["-u", "x"], "Cannot perform an interactive login from a non TTY device"),
        (["--password-stdin"], "requires --username"),
        (["-u", "x", "-p", "y", "--password-stdin"], "mutually exclusive"),
    ],
)
def test_login_says_what_is_missing(
    client: Run, guarded: RegistryServer, words: list[str], told: str
) -> None:
    done = client("login", *words, guarded.name)
    assert done.returncode == 1 and told in done.stderr


def test_other_settings_in_config_json_stay(client: Run, guarded: RegistryServer, config: Path) -> None:
    settings = {"psFormat": "table {{.ID}}", "auths": {"elsewhere.example": {"auth": "eDp5"}}}
    (config / "config.json").write_text(json.dumps(settings))
    log_in(client, guarded.name)
    kept = json.loads((config / "config.json").read_text())
    assert kept["psFormat"] == settings["psFormat"] and "elsewhere.example" in kept["auths"]
    (config / "config.json").write_text("{")
    done = client("login", "-u", USER, "-p", PASSWORD, guarded.name)
    assert done.returncode == 125 and "config.json" in done.stderr and "not JSON" in done.stderr
    assert (config / "config.json").read_text() == "{"


@pytest.mark.parametrize("member", ["credsStore", "credHelpers"])
def test_credential_helpers_are_asked_and_told(
    client: Run, guarded: RegistryServer, config: Path, tmp_path: Path, member: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker-credential-kept").write_text(HELPER)
    (programs / "docker-credential-kept").chmod(0o755)
    value = "kept" if member == "credsStore" else {guarded.name: "kept"}
    (config / "config.json").write_text(json.dumps({member: value}))
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "HELPER_FILE": str(tmp_path / "kept.json")}
    log_in(client, guarded.name, env=env)
    assert PASSWORD not in (config / "config.json").read_text()
    assert json.loads((tmp_path / "kept.json").read_text())[guarded.name]["Secret"] == PASSWORD
    target = f"{guarded.name}/team/helped-{member.lower()}"
    client("tag", "example/busybox:oci", target, check=True)
    client("push", target, check=True, env=env)
    client("logout", guarded.name, check=True, env=env)
    assert json.loads((tmp_path / "kept.json").read_text()) == {}
    assert client("push", target, env={**env, "PATH": os.environ["PATH"]}).returncode == 1


def test_podmans_auth_json_is_read(client: Run, guarded: RegistryServer, tmp_path: Path) -> None:
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {f"{guarded.name}/team": {"auth": packed}}}))
    target = f"{guarded.name}/team/podman"
    client("tag", "example/busybox:oci", target, check=True)
    client("push", target, check=True, env={"REGISTRY_AUTH_FILE": str(path)})
    client("tag", "example/busybox:oci", f"{guarded.name}/else/podman", check=True)
    assert (
        client("push", f"{guarded.name}/else/podman", env={"REGISTRY_AUTH_FILE": str(path)}).returncode == 1
    )


def test_tokens_are_asked_for_what_is_done(client: Run, tokened: RegistryServer, tokens: TokenServer) -> None:
    log_in(client, tokened.name)
    tokens.asked.clear()
    target = f"{tokened.name}/public/app"
    client("tag", "example/busybox:oci", target, check=True)
    client("push", target, check=True)
    assert tokens.asked == [("GET", USER, ["repository:public/app:pull,push"])]
    client("logout", tokened.name, check=True)
    client("rmi", target, check=True)
    tokens.asked.clear()
    client("pull", target, check=True)
    assert tokens.asked == [("GET", "", ["repository:public/app:pull"])]
    client("tag", target, f"{tokened.name}/private/app", check=True)
    for words in (["push", f"{tokened.name}/private/app"], ["pull", f"{tokened.name}/private/app"]):
        done = client(*words)
        assert done.returncode == 1 and "access denied for" in done.stderr


def test_a_wrong_password_at_the_token_server_is_said(client: Run, tokened: RegistryServer) -> None:
    done = client("login", "-u", USER, "-p", "wrong", tokened.name)
    assert done.returncode == 1 and "incorrect username or password" in done.stderr


def test_identity_tokens_are_exchanged(
    client: Run, tokened: RegistryServer, tokens: TokenServer, config: Path
) -> None:
    auths = {tokened.name: {"identitytoken": REFRESH_TOKEN, "auth": base64.b64encode(b"x:").decode()}}
    (config / "config.json").write_text(json.dumps({"auths": auths}))
    tokens.asked.clear()
    target = f"{tokened.name}/private/identity"
    client("tag", "example/busybox:oci", target, check=True)
    client("push", target, check=True)
    assert {(method, user) for method, user, _ in tokens.asked} == {("POST", USER)}


def test_a_token_that_ends_on_the_way_is_renewed(client: Run, tmp_path: Path, archives: Path) -> None:
    tokens = TokenServer(tmp_path, life_s=1)
    server = RegistryServer(tmp_path / "short", auth=tokens.auth())
    try:
        target = f"{server.name}/public/short"
        client("tag", "example/busybox:oci", target, check=True)
        log_in(client, server.name)
        client("push", target, check=True)
    finally:
        server.stop()
        tokens.stop()


def test_a_mount_asks_for_both_repositories(
    client: Run, tokened: RegistryServer, tokens: TokenServer
) -> None:
    log_in(client, tokened.name)
    first, second = f"{tokened.name}/private/first", f"{tokened.name}/private/second"
    for target in (first, second):
        client("tag", "example/busybox:oci", target, check=True)
    client("push", first, check=True)
    tokens.asked.clear()
    assert "Mounted from private/first" in client("push", second, check=True).stdout
    assert ["repository:private/second:pull,push", "repository:private/first:pull"] in [
        scopes for _, _, scopes in tokens.asked
    ]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.crt, server.crt and server.key."""
    trustme = pytest.importorskip("trustme")
    directory = tmp_path_factory.mktemp("authority")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(directory / "ca.crt"))
    issued = ca.issue_cert("127.0.0.1", "localhost")
    issued.private_key_pem.write_to_path(str(directory / "server.key"))
    for n, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(str(directory / "server.crt"), append=n > 0)
    user = ca.issue_cert("alice@test")
    user.private_key_pem.write_to_path(str(directory / "client.key"))
    user.cert_chain_pems[0].write_to_path(str(directory / "client.cert"))
    return directory


def tls_server(directory: Path, authority: Path, **more: object) -> RegistryServer:
    tls = {"certificate": str(authority / "server.crt"), "key": str(authority / "server.key"), **more}
    return RegistryServer(directory, http={"tls": tls})


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[RegistryServer]:
    server = tls_server(tmp_path_factory.mktemp("secure"), authority)
    yield server
    server.stop()


def test_tls_is_verified_with_the_users_ca(
    client: Run, secure: RegistryServer, authority: Path, config: Path
) -> None:
    target = f"{secure.name}/team/app"
    client("tag", "example/busybox:oci", target, check=True)
    # Loopback is insecure by default: https, and any certificate.
    client("push", target, check=True)
    refused = client("pull", "--tls-verify", target)
    assert refused.returncode == 1
    assert f"cannot trust registry `{secure.name}`" in refused.stderr and "ca.crt" in refused.stderr
    folder = config / "certs.d" / secure.name
    folder.mkdir(parents=True)
    shutil.copy(authority / "ca.crt", folder / "ca.crt")
    client("pull", "--tls-verify", target, check=True)
    shutil.rmtree(folder)
    client("pull", "--tls-verify", target, check=True, env={"SSL_CERT_FILE": str(authority / "ca.crt")})


def test_plain_http_is_not_spoken_when_tls_is_asked_for(
    client: Run, registry: RegistryServer, image: Published
) -> None:
    done = client("pull", "--tls-verify", f"{registry.name}/team/app")
    assert done.returncode == 1 and "cannot trust registry" in done.stderr


def test_a_client_certificate_is_shown(client: Run, tmp_path: Path, authority: Path, config: Path) -> None:
    server = tls_server(tmp_path / "mutual", authority, clientcas=[str(authority / "ca.crt")])
    try:
        target = f"{server.name}/team/app"
        client("tag", "example/busybox:oci", target, check=True)
        assert client("push", "--tls-verify", target).returncode == 1
        folder = config / "certs.d" / server.name
        folder.mkdir(parents=True)
        for name in ("ca.crt", "client.cert", "client.key"):
            shutil.copy(authority / name, folder / name)
        client("push", "--tls-verify", target, check=True)
    finally:
        server.stop()


def test_a_redirect_to_another_host_gets_no_credentials(
    client: Run,
    guarded: RegistryServer,
    registry: RegistryServer,
    image: Published,
    between: Callable[..., Between],
) -> None:
    storage = between()

    def decide(passed: Passed) -> Trouble | None:
        if "authorization" not in passed.headers:
            return Trouble(status=401, headers={"WWW-Authenticate": 'Basic realm="front"'})
        if "/blobs/sha256:" in passed.path:
            return Trouble(status=307, headers={"Location": f"http://{storage.name}{passed.path}"})
        return None

    front = Between(registry.name, decide)
    try:
        log_in(client, front.name)
        client("pull", f"{front.name}/team/app", check=True)
    finally:
        front.stop()
    assert len(front.blobs()) >= len(storage.blobs()) == len(image.blobs)
    assert all("authorization" not in one.headers for one in storage.passed)
