"""What every test stands on: an ordinary user, the installed command, a store with a real image in it.

The unit tests (tests/unit) need none of this. Everything else drives the
installed `duckweed` in a store of its own, in each *place* that this machine can
be or can pretend to be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import hypothesis
import pytest

import accounts
import images

# On a busy machine making examples may take long, and that says nothing about what is tested.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """As root: gives stdout and stderr back from pytest's capture and becomes an ordinary user."""
    if os.geteuid() == 0:
        capture = config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.stop_global_capturing()
        accounts.become_ordinary()


Run = Callable[..., "subprocess.CompletedProcess[str]"]

#: Poorer places that any machine can play, by what DUCKWEED_PRETEND takes away.
PLACES = {
    "full": "",
    "single-uid": "no-subid",
    "no-overlay": "no-overlay",
    "single-uid-no-overlay": "no-subid,no-overlay",
}


def command() -> list[str]:
    """The installed command line: the console script beside this interpreter, or the module."""
    script = os.path.join(os.path.dirname(sys.executable), "duckweed")
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "duckweed"]


def runner(root: Path, extra: Mapping[str, str] | None = None, before: Sequence[str] = ()) -> Run:
    """A callable that runs `duckweed ARGS` on the store `root` and returns the CompletedProcess (text); `before`
    is a command that runs it.
    """
    base = {**os.environ, "DUCKWEED_ROOT": str(root), "PYTHONWARNINGS": "error", **(extra or {})}

    def run(
        *args: str,
        input: str | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        stdin = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(
            [*before, *command(), *args],
            text=True,
            capture_output=True,
            env={**base, **(env or {})},
            timeout=timeout,
            **stdin,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"duckweed {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    return run


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with busybox.tar (docker-archive) and busybox.oci.tar, made once."""
    return images.make_archives(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The store that most tests share; every container in it is removed at the end."""
    store = tmp_path_factory.mktemp("store")
    yield store
    run = runner(store)
    ids = run("ps", "-aq").stdout.split()
    if ids:
        run("rm", "-f", "-v", *ids)


@pytest.fixture(scope="session")
def duckweed(root: Path) -> Run:
    """`duckweed(*args, input=None, check=False, env=None)` on the shared store."""
    return runner(root)


@pytest.fixture(scope="session")
def busybox(duckweed: Run, archives: Path) -> str:
    """The name of an image that is loaded in the shared store: one static busybox and its links."""
    duckweed("load", "-i", str(archives / "busybox.tar"), check=True)
    return "busybox"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Run]:
    """A runner on an empty store of this test's own; its `root` attribute is the path."""
    run = runner(tmp_path / "store")
    run.root = tmp_path / "store"  # type: ignore[attr-defined]
    yield run
    ids = run("ps", "-aq").stdout.split()
    if ids:
        run("rm", "-f", "-v", *ids)


@pytest.fixture(scope="session", params=list(PLACES))
def place(request: pytest.FixtureRequest, root: Path, archives: Path) -> Run:
    """A runner in each place of PLACES, busybox loaded; `place.name` says which."""
    name: str = request.param
    run = runner(root, {"DUCKWEED_PRETEND": PLACES[name]})
    if name == "full" and run("info", "--format", "{{.IdMap}}").stdout.strip() != "full":
        pytest.skip("this account has no subordinate ids: the place `full` cannot be made here")
    run("load", "-i", str(archives / "busybox.tar"), check=True)
    run.name = name  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="session")
def debian(root: Path, duckweed: Run) -> str:
    """A real Debian image of several layers, as `debian-python`; made with mmdebstrap unless DUCKWEED_TEST_IMAGES has it."""
    archive = images.debian_archive()
    duckweed("load", "-i", str(archive), check=True, timeout=300)
    return "debian-python"
