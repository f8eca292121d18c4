"""Busy call sites: what a program is told must not change when the tracer hands its calls over to the program itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Run, runner

from .conftest import runner_in

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sites.c`, compiled; on a machine without a compiler there is nothing to run."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    made = tmp_path_factory.mktemp("sites") / "sites"
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", str(made), str(HERE / "sites.c")], check=True)
    made.parent.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def image(trap_root: Path, archives: Path) -> str:
    """An image with `/layer` in a layer, made in a user namespace."""
    run = runner(trap_root)
    run("load", "-i", str(archives / "busybox.tar"), check=True)
    script = 'mkdir /layer /own; printf "layer\'s" > /layer/file; ln -s file /layer/link'
    run("run", "--name", "sites", "--network", "none", "busybox", "sh", "-c", script, check=True)
    run("commit", "sites", "sites:1", check=True)
    run("rm", "sites", check=True)
    return "sites:1"


@pytest.fixture(scope="module")
def expected(trap_root: Path, image: str, program: Path) -> str:
    """What the kernel's overlay says."""
    words = [
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{program}:/sites:ro",
        image,
        "/sites",
        "/layer",
        "/own",
    ]
    done = runner(trap_root)(*words, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("handler", ["on", "off"])
def test_answers_stay_the_same_when_a_site_is_replaced(
    trap_root: Path, image: str, program: Path, expected: str, handler: str
) -> None:
    run = runner_in("pod", trap_root, {"DUCKWEED_SITES": "off"} if handler == "off" else None)
    done = run("run", "--rm", "-v", f"{program}:/sites:ro", image, "/sites", "/layer", "/own")
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_the_handler_is_there(pod: Run, archives: Path) -> None:
    script = "for i in 1 2 3 4 5 6; do test -e /bin/sh; done; grep -c ^5660 /proc/$$/maps"
    assert int(pod("run", "--rm", "busybox", "sh", "-c", script).stdout) == 3


def test_what_was_written_by_the_programs_themselves_is_in_the_layer(trap_root: Path, image: str) -> None:
    script = (
        "cd /own; for i in 1 2 3 4 5 6 7 8 9; do echo $i > f$i; mkdir d$i; echo $i > d$i/x; ln -s x d$i/l; done;"
        " rm f3 d4/x; mv f5 g; rmdir d6 2>/dev/null; rm -r d6; chmod 600 f7; chmod 700 d7; echo more >> /layer/file;"
        " for i in 1 2 3 4 5 6; do echo $i > /layer/n$i; done; rm /layer/link; touch -d 202001010000 /own/f9"
    )
    layers = {}
    for name, run in {"kernel": runner(trap_root), "trap": runner_in("pod", trap_root)}.items():
        run("run", "--name", f"sites-{name}", "--network", "none", image, "sh", "-c", script, check=True)
        try:
            layers[name] = run("diff", f"sites-{name}").stdout
            run("commit", f"sites-{name}", f"sites:{name}", check=True)
            look = "cd /; ls -lnR --full-time /own /layer | awk '{print $1, $3, $4, $5, $9, $10, $11}'; cat /own/*/x /layer/*"
            layers[name] += run("run", "--rm", "--network", "none", f"sites:{name}", "sh", "-c", look).stdout
        finally:
            run("rm", "-f", f"sites-{name}")
    assert layers["kernel"] == layers["trap"] and "C /layer/file" in layers["kernel"]
