"""The build cache: each kind of change invalidates exactly what Docker's rules say, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from build.conftest import Build
from conftest import Run

STEPS = """\
FROM busybox
ARG UNIQUE={unique}
ENV A=1
RUN echo one > /one
COPY file /file
RUN cat /file > /two
LABEL l=1
RUN echo three > /three
CMD ["x"]
"""


@pytest.fixture
def steps(context: Path, build: Build) -> str:
    """A Dockerfile of four steps, built once; nobody else's cache knows it."""
    (context / "file").write_text("1\n")
    text = STEPS.format(unique=os.urandom(8).hex())
    first = build(text)
    assert (len(first.done), first.cached) == (4, [])
    return text


def test_the_same_again_is_all_cached_and_the_same_image(steps: str, build: Build) -> None:
    again = build(steps)
    assert (len(again.cached), again.done) == (4, [])
    assert build(steps).image == again.image


def test_times_never_matter(steps: str, build: Build, context: Path) -> None:
    os.utime(context / "file", (1, 1))
    assert build(steps).done == []


def test_changed_contents_matter_from_their_copy_on(steps: str, build: Build, context: Path) -> None:
    (context / "file").write_text("2\n")
    changed = build(steps)
    assert changed.cached == ["RUN echo one > /one"]
    assert len(changed.done) == 3


def test_changed_contents_of_the_same_size_and_time_matter(steps: str, build: Build, context: Path) -> None:
    facts = (context / "file").stat()
    (context / "file").write_text("2\n")
    os.utime(context / "file", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert len(build(steps).done) == 3


def test_a_changed_mode_matters(steps: str, build: Build, context: Path) -> None:
    (context / "file").chmod(0o755)
    assert len(build(steps).done) == 3


def test_a_file_that_nobody_copies_does_not_matter(steps: str, build: Build, context: Path) -> None:
    (context / "other").write_text("x")
    assert build(steps).done == []


def test_an_ignored_file_does_not_matter(build: Build, context: Path) -> None:
    (context / ".dockerignore").write_text("junk\n.dockerignore\nDockerfile\n")
    text = f"FROM busybox\nARG U={os.urandom(8).hex()}\nRUN true\nCOPY . /c/\n"
    (context / "kept").write_text("1")
    build(text)
    (context / "junk").write_text("x")
    assert build(text).done == []


def test_a_changed_command_matters_from_there_on(steps: str, build: Build) -> None:
    changed = build(steps.replace("cat /file", "cat  /file"))
    assert len(changed.cached) == 2
    assert len(changed.done) == 2


def test_an_equal_result_below_is_found_again(steps: str, build: Build) -> None:
    # The second command makes the same layer as before, so what stands on it is known.
    changed = build(steps.replace("echo three", "true; echo three"))
    assert len(changed.done) == 1


def test_env_matters_for_run_alone(steps: str, build: Build) -> None:
    changed = build(steps.replace("ENV A=1", "ENV A=2"))
    assert "RUN echo one > /one" in changed.done


def test_label_and_cmd_matter_for_no_step(steps: str, build: Build) -> None:
    before = build(steps)
    changed = build(steps.replace("LABEL l=1", "LABEL l=2").replace('CMD ["x"]', 'CMD ["y"]'))
    assert changed.done == []
    assert changed.image != before.image


def test_comments_and_spelling_do_not_matter(steps: str, build: Build) -> None:
    assert build("# hello\n" + steps.replace("COPY", "copy").replace("\nCMD", "\n\n# x\nCMD")).done == []


def test_build_args_matter_from_their_use_on(build: Build) -> None:
    text = f"FROM busybox\nARG U={os.urandom(8).hex()}\nRUN echo 1\nARG V\nRUN echo 2\n"
    build(text, "--build-arg=V=1")
    changed = build(text, "--build-arg=V=2")
    assert (changed.cached, changed.done) == (["RUN echo 1"], ["RUN echo 2"])
    assert build(text, "--build-arg=V=1").done == []


def test_proxies_matter_for_nothing(build: Build, duckweed: Run) -> None:
    text = f"FROM busybox\nARG U={os.urandom(8).hex()}\nRUN echo $HTTP_PROXY > /p\n"
    first = build(text, "--build-arg=HTTP_PROXY=http://secret:1")
    assert build(text, "--build-arg=HTTP_PROXY=http://other:2").done == []
    history = duckweed("history", "--no-trunc", first.image, check=True).stdout
    assert "secret" not in history


def test_no_cache_does_everything_anew(steps: str, build: Build) -> None:
    assert len(build(steps, "--no-cache").done) == 4


def test_no_cache_filter_is_for_stages(build: Build) -> None:
    text = (
        f"FROM busybox AS one\nARG U={os.urandom(8).hex()}\nRUN echo 1 > /f\n"
        "FROM busybox AS two\nCOPY --from=one /f /f\nRUN echo 2 > /g\n"
    )
    build(text)
    again = build(text, "--no-cache-filter=two")
    assert again.cached == ["RUN echo 1 > /f"]
    assert len(again.done) == 2


def test_a_stage_built_anew_with_the_same_files_changes_nothing_after(build: Build) -> None:
    text = (
        "FROM busybox AS one\nARG U={}\nRUN echo $U > /other; echo same > /f\n"
        "FROM busybox\nARG W={}\nRUN true\nCOPY --from=one /f /f\nRUN cat /f > /g\n"
    )
    salt = os.urandom(8).hex()
    build(text.format(1, salt))
    again = build(text.format(2, salt))
    assert again.done == ["RUN echo 2 > /other; echo same > /f"]


def test_a_bind_mount_matters_by_its_contents(build: Build, context: Path) -> None:
    (context / "d").mkdir()
    (context / "d" / "f").write_text("1")
    text = f"FROM busybox\nARG U={os.urandom(8).hex()}\nRUN --mount=source=d,target=/m cat /m/f > /g\n"
    build(text)
    (context / "unrelated").write_text("x")
    assert build(text).done == []
    (context / "d" / "f").write_text("2")
    assert len(build(text).done) == 1


def test_secrets_matter_for_nothing(build: Build, context: Path) -> None:
    secret = context.parent / "secret"
    secret.write_text("1")
    text = f"FROM busybox\nARG U={os.urandom(8).hex()}\nRUN --mount=type=secret,id=s cat /run/secrets/s\n"
    build(text, f"--secret=id=s,src={secret}")
    secret.write_text("2")
    assert build(text, f"--secret=id=s,src={secret}").done == []


def test_the_cache_serves_another_context_and_file_name(
    steps: str, build: Build, duckweed: Run, context: Path
) -> None:
    other = context.parent / "elsewhere"
    other.mkdir()
    (other / "file").write_text("1\n")
    (other / "My.file").write_text(steps)
    done = duckweed("build", "--progress=plain", "-f", str(other / "My.file"), str(other), check=True)
    assert done.stderr.count("CACHED") == 5


def test_equal_steps_of_two_stages_run_once(build: Build) -> None:
    salt = os.urandom(8).hex()
    stage = f"FROM busybox AS {{}}\nARG U={salt}\nRUN cat /proc/sys/kernel/random/uuid > /u\n"
    text = stage.format("a") + stage.format("b") + "FROM scratch\nCOPY --from=a /u /a\nCOPY --from=b /u /b\n"
    built = build(text, "-o", "type=local,dest=" + os.path.join(os.environ.get("TMPDIR", "/tmp"), f"o{salt}"))
    place = Path(os.environ.get("TMPDIR", "/tmp")) / f"o{salt}"
    try:
        assert built.returncode == 0
        assert (place / "a").read_text() == (place / "b").read_text()
    finally:
        for name in ("a", "b"):
            (place / name).unlink()
        place.rmdir()


def test_a_killed_build_leaves_a_store_that_the_next_repairs(
    build: Build, context: Path, root: Path, duckweed: Run
) -> None:
    text = f"FROM busybox\nARG U={os.urandom(8).hex()}\nRUN echo begun && sleep 60\n"
    (context / "Dockerfile").write_text(text)
    code = "import sys; from duckweed.cli.main import run; sys.exit(run(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "build", "--progress=plain", str(context)],
        env={**os.environ, "DUCKWEED_ROOT": str(root)},
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if b"begun" in line and b"echo" not in line:
            break
    child.kill()
    child.wait()
    child.stderr.close()
    assert build("FROM busybox\nRUN true\n").returncode == 0
    assert [entry for entry in os.listdir(root / "tmp") if f".{child.pid}." in entry] == []
    assert duckweed("ps", "-aq").stdout == ""


def test_prune_forgets_what_no_image_has(fresh: Run, archives: Path, tmp_path: Path) -> None:
    fresh("load", "-i", str(archives / "busybox.tar"), check=True)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo 1 > /f\n")
    fresh("build", "-q", "-t", "kept", str(tmp_path), check=True)
    fresh("build", "-q", "--target=0", "-t", "gone", str(tmp_path), "--label=x=y", check=True)
    assert fresh("builder", "prune", "-f", check=True).stdout == "Total reclaimed space: 0B\n"
    layers = len(os.listdir(tmp_path / "store" / "layers"))
    fresh("rmi", "kept", "gone", check=True)
    assert len(os.listdir(tmp_path / "store" / "layers")) == layers, "the cache keeps its layer"
    assert "RUN" in fresh("builder", "du", "-v", check=True).stdout
    assert fresh("builder", "prune", "-f", check=True).stdout.startswith("ID\n")
    assert len(os.listdir(tmp_path / "store" / "layers")) == layers - 1
