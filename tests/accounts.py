"""Running as an ordinary user even when started as root.

Root proves nothing here: every name is writable, every capability held. So when
pytest starts as root it makes two accounts, one with a subordinate id range and
one without, copies the tests where they can be read, and becomes the account
that DUCKWEED_TEST_USER names (default: the one with a range).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

WITH_RANGE = "duckweed-test"
WITHOUT_RANGE = "duckweed-single"
FIRST_SUBID = 1_500_000_000


def become_ordinary() -> None:
    """Runs the same pytest as an ordinary user and ends with its exit code; returns only when we are one already."""
    if os.geteuid() != 0:
        return
    name = os.environ.get("DUCKWEED_TEST_USER", WITH_RANGE)
    for account in {WITH_RANGE, WITHOUT_RANGE, name}:
        _make_account(account)
    entry = pwd.getpwnam(name)
    if not _can_read(entry, sys.executable, sys.prefix):
        pytest.exit(
            f"{name} cannot read {sys.prefix}; make the environment from /usr/bin/python3 where others can read it",
            returncode=2,
        )
    home = tempfile.mkdtemp(prefix="duckweed-tests-", dir="/var/tmp")
    os.chmod(home, 0o755)
    tests = os.path.join(home, "tests")
    here = os.path.dirname(os.path.abspath(__file__))
    shutil.copytree(here, tests, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(os.path.join(os.path.dirname(here), "pyproject.toml"), home)
    for path, _, files in os.walk(home):
        for each in (path, *(os.path.join(path, file) for file in files)):
            os.chown(each, entry.pw_uid, entry.pw_gid)
    keep = {
        k: v for k, v in os.environ.items() if k.startswith(("DUCKWEED_", "CI", "PYTEST_", "LANG", "LC_"))
    }
    env = {**keep, "HOME": entry.pw_dir, "USER": name, "LOGNAME": name, "TERM": "xterm"}
    env["PATH"] = os.path.join(sys.prefix, "bin") + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    args = [arg.replace(here, tests) for arg in sys.argv[1:]]
    os._exit(_run_and_clean([sys.executable, "-m", "pytest", *args], home, entry, env))


def _run_and_clean(argv: list[str], home: str, entry: pwd.struct_passwd, env: dict[str, str]) -> int:
    """Runs the tests in `home` as that account, and takes `home` away when they have ended."""
    # Ctrl-C reaches both by the terminal; how the tests end is theirs to say.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(
            argv,
            cwd=home,
            env=env,
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            preexec_fn=lambda: signal.signal(signal.SIGINT, before),
        )
        code = child.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _make_account(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    for path in ("/etc/subuid", "/etc/subgid"):
        _set_range(path, name, None if name == WITHOUT_RANGE else FIRST_SUBID)


def _set_range(path: str, name: str, first: int | None) -> None:
    """Gives `name` exactly one line in a subordinate id file, or none."""
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    wanted = [line for line in lines if not line.startswith(name + ":")]
    if first is not None:
        wanted.append(f"{name}:{first}:65536")
    if wanted != lines:
        with open(path, "w") as file:
            file.write("\n".join(wanted) + "\n")


def _can_read(entry: pwd.struct_passwd, *paths: str) -> bool:
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        os._exit(0 if all(os.access(os.path.realpath(path), os.R_OK | os.X_OK) for path in paths) else 1)
    return os.waitpid(child, 0)[1] == 0
