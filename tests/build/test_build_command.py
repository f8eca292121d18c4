"""`duckweed build`: contexts, outputs, progress, failures, and what must never be kept."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from build.conftest import Build
from conftest import Run, command

SIMPLE = "FROM busybox\nCOPY a /a\n"


def test_quiet_says_the_id_alone(build: Build, context: Path, duckweed: Run) -> None:
    (context / "a").write_text("1")
    (context / "Dockerfile").write_text(SIMPLE)
    done = duckweed("build", "-q", "-t", "quiet:1", str(context), check=True)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)
    assert done.stderr == ""
    assert duckweed("images", "-q", "--no-trunc", "quiet:1").stdout == done.stdout


def test_several_tags(build: Build, context: Path, duckweed: Run) -> None:
    (context / "a").write_text("1")
    built = build(SIMPLE, "-t", "one:1", "-t", "example.org/two:2")
    assert "naming to docker.io/library/one:1 done" in built.stderr
    for name in ("one:1", "example.org/two:2"):
        assert duckweed("image", "inspect", "-f", "{{.Id}}", name, check=True).stdout.strip() == built.image


def test_a_bad_tag_is_refused_before_anything(build: Build) -> None:
    failed = build("FROM busybox", "-t", "UPPER", check=False)
    assert failed.returncode == 1
    assert 'invalid tag "UPPER"' in failed.stderr


def test_iidfile_and_metadata(build: Build, context: Path) -> None:
    (context / "a").write_text("1")
    built = build(SIMPLE, f"--iidfile={context}/iid", f"--metadata-file={context}/meta", "-t", "m:1")
    assert (context / "iid").read_text() == built.image
    document = json.loads((context / "meta").read_text())
    assert document["containerimage.config.digest"] == built.image
    assert document["image.name"] == "docker.io/library/m:1"


def test_dockerfile_on_stdin(busybox: str, duckweed: Run) -> None:
    done = duckweed("build", "--progress=plain", "-", input="FROM busybox\nRUN echo hi > /f\n")
    assert (done.returncode, "RUN echo hi" in done.stderr) == (0, True)


def test_dockerfile_on_stdin_with_a_context(build: Build, context: Path, duckweed: Run) -> None:
    (context / "a").write_text("1")
    done = duckweed("build", "-q", "-f", "-", str(context), input=SIMPLE)
    assert done.returncode == 0


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
def test_tar_on_stdin(packing: str, busybox: str, root: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{packing}") as tar:
        for name, text in (("Dockerfile", SIMPLE), ("a", packing)):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    done = subprocess.run(
        [*command(), "build", "-q", "-"],
        input=out.getvalue(),
        capture_output=True,
        env={**os.environ, "DUCKWEED_ROOT": str(root)},
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(root / "tmp") == []


def test_a_tar_that_leads_outside_is_refused(busybox: str, root: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../evil"), None)
    done = subprocess.run(
        [*command(), "build", "-"],
        input=out.getvalue(),
        capture_output=True,
        env={**os.environ, "DUCKWEED_ROOT": str(root)},
    )
    assert done.returncode == 1
    assert b"leads outside" in done.stderr


def test_named_contexts(build: Build, context: Path, duckweed: Run) -> None:
    other = context.parent / "other"
    other.mkdir()
    (other / "f").write_text("named\n")
    built = build(
        "FROM base AS x\nCOPY --from=more /f /f\nRUN --mount=from=more,target=/m cat /m/f >> /f",
        f"--build-context=more={other}",
        "--build-context=base=docker-image://busybox",
    )
    assert duckweed("run", "--rm", built.image, "cat", "/f").stdout == "named\nnamed\n"


def test_git_context(build: Build, context: Path, duckweed: Run, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "sub").mkdir(parents=True)
    (repository / "sub" / "Dockerfile").write_text("FROM busybox\nCOPY a /a\n")
    (repository / "sub" / "a").write_text("from git\n")
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    try:
        subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repository), str(bare)], check=True)
    daemon = f"file://{bare}"
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{daemon}.insteadOf"}
    env["GIT_CONFIG_VALUE_0"] = "https://example.org/x.git"
    done = duckweed("build", "-q", "https://example.org/x.git#main:sub", env=env)
    assert done.returncode == 0, done.stderr
    assert duckweed("run", "--rm", done.stdout.strip(), "cat", "/a").stdout == "from git\n"
    text = "FROM scratch\nADD https://example.org/x.git#main:sub /got\n"
    built = build(text, f"--output={tmp_path}/out", env=env)
    assert built.returncode == 0
    assert (tmp_path / "out" / "got" / "a").read_text() == "from git\n"
    # A link of the repository leads to nothing of this machine.
    (repository / "away").symlink_to("/etc")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "away"], check=True)
    subprocess.run([*git, "push", "-q", str(bare), "main"], check=True)
    refused = build("FROM scratch\nADD https://example.org/x.git#main:away /got\n", env=env, check=False)
    assert "no directory `away`" in refused.stderr


def test_local_and_tar_outputs(build: Build, context: Path, duckweed: Run, tmp_path: Path) -> None:
    (context / "a").write_text("1")
    text = "FROM scratch\nCOPY --chmod=750 a /d/a\n"
    build(text, "-o", str(tmp_path / "local"))
    assert (tmp_path / "local" / "d" / "a").read_text() == "1"
    assert (tmp_path / "local" / "d" / "a").stat().st_mode & 0o777 == 0o750
    build(text, f"--output=type=tar,dest={tmp_path}/out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getnames() == ["d", "d/a"]


def test_tar_on_stdout(build: Build, context: Path, root: Path, busybox: str) -> None:
    (context / "a").write_text("1")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    done = subprocess.run(
        [*command(), "build", "-o", "-", str(context)],
        capture_output=True,
        env={**os.environ, "DUCKWEED_ROOT": str(root)},
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["a"]


def test_a_failed_step_shows_output_and_place(build: Build) -> None:
    failed = build("FROM busybox\n# why\nRUN echo the reason; exit 3\n", check=False)
    assert failed.returncode == 1
    assert " > [2/2] RUN echo the reason; exit 3:" in failed.stderr
    assert re.search(r"^\d\.\d{3} the reason$", failed.stderr, re.MULTILINE)
    assert "   3 | >>> RUN echo the reason; exit 3" in failed.stderr
    assert "did not complete successfully: exit code: 3" in failed.stderr
    assert "--debug-shell" in failed.stderr


def test_a_bad_dockerfile_shows_the_line(build: Build) -> None:
    failed = build("FROM busybox\nRUM x\n", check=False)
    assert failed.returncode == 1
    assert "duckweed: Dockerfile:2:1: unknown instruction: RUM\nhint: did you mean `RUN`?" in failed.stderr
    assert "   2 | >>> RUM x" in failed.stderr


def test_no_dockerfile(tmp_path: Path, duckweed: Run) -> None:
    done = duckweed("build", str(tmp_path))
    assert done.returncode == 1
    assert "failed to read dockerfile: open Dockerfile: no such file or directory" in done.stderr


def test_no_context(duckweed: Run, tmp_path: Path) -> None:
    done = duckweed("build", str(tmp_path / "nothing"))
    assert (done.returncode, "not found" in done.stderr) == (1, True)


def test_containerfile_is_found(tmp_path: Path, duckweed: Run, busybox: str) -> None:
    (tmp_path / "Containerfile").write_text("FROM busybox\n")
    assert duckweed("build", "-q", str(tmp_path)).returncode == 0


def test_the_dockerfiles_own_ignore_file_wins(tmp_path: Path, duckweed: Run, busybox: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("a\n")
    (tmp_path / "My.Dockerfile").write_text("FROM scratch\nCOPY [ab] /\n")
    (tmp_path / "My.Dockerfile.dockerignore").write_text("b\n")
    out = tmp_path / "out"
    duckweed("build", "-f", str(tmp_path / "My.Dockerfile"), "-o", str(out), str(tmp_path), check=True)
    assert os.listdir(out) == ["a"]


def test_an_ignored_source_says_so(build: Build, context: Path) -> None:
    (context / "a").write_text("1")
    (context / ".dockerignore").write_text("a\n")
    failed = build(SIMPLE, check=False)
    assert "hint: `.dockerignore` leaves it out" in failed.stderr


def test_check_finds_and_builds_nothing(context: Path, build: Build, duckweed: Run) -> None:
    (context / "Dockerfile").write_text("FROM busybox as x\nMAINTAINER me\nRUN false\n")
    done = duckweed("build", "--check", str(context))
    assert done.returncode == 1
    assert "2 warnings have been found" in done.stdout
    assert "WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/" in done.stdout
    (context / "Dockerfile").write_text("FROM busybox\n")
    done = duckweed("build", "--check", str(context))
    assert (done.returncode, done.stdout) == (0, "Check complete, no warnings found.\n")


def test_a_build_mentions_findings_and_can_refuse_them(build: Build) -> None:
    assert "1 warning found" in build("FROM busybox\nMAINTAINER me\n").stderr
    failed = build("# check=error=true\nFROM busybox\nMAINTAINER me\n", check=False)
    assert failed.returncode == 1
    assert "lint violation found for rules: MaintainerDeprecated" in failed.stderr


def test_raw_json_progress(build: Build) -> None:
    built = build("FROM busybox\nRUN echo out\n", "--progress=rawjson", "--no-cache")
    documents = [json.loads(line) for line in built.stderr.splitlines()]
    names = {vertex["name"] for document in documents for vertex in document.get("vertexes", ())}
    assert "[2/2] RUN echo out" in names
    assert any(document.get("logs") for document in documents)


def test_a_secret_for_another_user(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    build(
        "FROM busybox\nUSER user\nRUN --mount=type=secret,id=f,uid=1000,gid=1000,mode=0440 cat /run/secrets/f\n",
        f"--secret=id=f,src={tmp_path}/file",
    )


def test_source_date_epoch_gives_the_same_image_again(context: Path, build: Build) -> None:
    (context / "a").write_text("1")
    text = "FROM busybox\nRUN date +%s%N > /dev/null; mkdir /d; touch /d/x\nWORKDIR /w\nCOPY a /w/\nCOPY <<E /e\nx\nE\n"
    flags = ("--build-arg=SOURCE_DATE_EPOCH=1700000000", "--no-cache")
    first = build(text, *flags)
    os.utime(context / "a")
    assert build(text, *flags).image == first.image


def test_layers_made_without_source_date_epoch_do_not_count_with_it(context: Path, build: Build) -> None:
    (context / "a").write_text("1")
    text = f"FROM busybox\nRUN echo {os.urandom(4).hex()} > /x\nWORKDIR /w\nCOPY a /w/\n"
    build(text)
    flag = "--build-arg=SOURCE_DATE_EPOCH=1700000000"
    first = build(text, flag)
    assert first.cached == []
    assert build(text, flag).image == first.image
    assert build(text, flag, "--no-cache").image == first.image


def test_triggers_of_an_image_run_in_the_build_that_is_from_it(build: Build, context: Path) -> None:
    (context / "a").write_text("a\n")
    base = "FROM busybox\nONBUILD COPY --from=tools /x /x\nONBUILD RUN --mount=from=tools,target=/m cat /m/x > /y"
    build(base + "\nONBUILD COPY a /a\n", "-t", "triggers:1")
    text = "FROM busybox AS tools\nRUN echo hi > /x\nFROM triggers:1 AS mid\nRUN cat /x /y /a > /all\n"
    built = build(text + "FROM mid\nRUN test \"$(cat /all | tr '\\n' ' ')\" = 'hi hi a '\n")
    assert "[mid 2/5] ONBUILD COPY --from=tools /x /x" in built.stderr
    assert len(built.done) + len(built.cached) == 6
    later = "FROM triggers:1 AS one\nFROM one AS tools\nFROM busybox\nCOPY --from=one /x /x\n"
    failed = build(later, check=False)
    assert 'cannot copy from stage "tools"' in failed.stderr


def test_independent_stages_run_side_by_side(build: Build, tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    text = (
        "FROM busybox AS one\nRUN --mount=type=cache,id={0},target=/c touch /c/1;"
        " for i in $(seq 200); do test -e /c/2 && exit 0; sleep 0.1; done; exit 1\n"
        "FROM busybox AS two\nRUN --mount=type=cache,id={0},target=/c touch /c/2;"
        " for i in $(seq 200); do test -e /c/1 && exit 0; sleep 0.1; done; exit 1\n"
        "FROM scratch\nCOPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"
    )
    build(text.format(os.urandom(8).hex()))


def test_a_locked_cache_is_used_by_one_at_a_time(build: Build, tmp_path: Path) -> None:
    step = (
        "RUN --mount=type=cache,id={0},target=/c,sharing=locked mkdir /c/l && sleep 0.2 && rmdir /c/l # {1}\n"
    )
    text = f"FROM busybox AS one\n{step}FROM busybox AS two\n{step}"
    text += "FROM scratch\nCOPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"
    name = os.urandom(8).hex()
    build(text.replace("{0}", name).replace("{1}", "a", 1).replace("{1}", "b"))


def test_the_python_api_builds(root: Path, busybox: str) -> None:
    import duckweed

    engine = duckweed.Engine(root)
    seen: list[str] = []
    image = engine.build(
        os.path.dirname(__file__),
        dockerfile="FROM busybox\nRUN echo 42 > /f\n",
        tag="api:1",
        progress=lambda kind, vertex, data: seen.append(kind),
    )
    assert image is not None
    assert engine.run("api:1", ["cat", "/f"]).stdout == b"42\n"
    assert "begin" in seen


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_archives_load_again(kind: str, build: Build, context: Path, duckweed: Run, tmp_path: Path) -> None:
    (context / "a").write_text(kind)
    built = build(SIMPLE, "-t", f"{kind}out:1", f"--output=type={kind},dest={tmp_path}/out.tar")
    duckweed("rmi", f"{kind}out:1", check=True)
    duckweed("load", "-q", "-i", str(tmp_path / "out.tar"), check=True)
    assert duckweed("run", "--rm", f"{kind}out:1", "cat", "/a", check=True).stdout == kind
    assert duckweed("images", "-q", "--no-trunc", f"{kind}out:1").stdout.strip() == built.image


def test_an_oci_layout_is_a_directory_and_a_base(build: Build, context: Path, tmp_path: Path) -> None:
    (context / "a").write_text("1")
    build(SIMPLE, "-t", "layout:1", f"--output=type=oci,tar=false,dest={tmp_path}/layout")
    assert (tmp_path / "layout" / "index.json").exists()
    build("FROM base\nRUN test -e /a\n", f"--build-context=base=oci-layout://{tmp_path}/layout")


class Site:
    """A small server on the loopback; `asked` are the requests it had."""

    def __init__(self, files: dict[str, bytes]) -> None:
        import http.server
        import threading

        asked = self.asked = []  # type: ignore[var-annotated]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers.get("If-None-Match")))
                body = files.get(self.path)
                unchanged = self.headers.get("If-None-Match") == '"1"'
                self.send_response(404 if body is None else 304 if unchanged else 200)
                self.send_header("ETag", '"1"')
                self.send_header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
                self.end_headers()
                if body is not None and not unchanged:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_add_of_a_url(build: Build, tmp_path: Path) -> None:
    import hashlib

    body = os.urandom(16)
    site = Site({"/d/file.bin": body})
    try:
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        text = f"FROM scratch\nADD --checksum={digest} {site.url}/d/file.bin /got/\n"
        build(text, "-o", str(tmp_path / "out"))
        got = tmp_path / "out" / "got" / "file.bin"
        assert (got.read_bytes(), got.stat().st_mode & 0o777) == (body, 0o600)
        assert got.stat().st_mtime == 1700000000
        assert build(text, "-o", str(tmp_path / "out")).done == []
        assert len(site.asked) == 1, "with a checksum, what is there is not asked for again"
        plain = f"FROM scratch\nADD {site.url}/d/file.bin /x\n"
        build(plain, "-o", str(tmp_path / "two"))
        assert site.asked[-1][1] == '"1"'
        wrong = build(text.replace(digest, "sha256:" + "0" * 64), check=False)
        assert "digest mismatch" in wrong.stderr
        missing = build(plain.replace("file.bin", "no.bin"), check=False)
        assert "invalid response status 404" in missing.stderr
    finally:
        site.server.shutdown()
        site.server.server_close()


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz", "zst"])
def test_add_unpacks_archives_by_their_contents(
    packing: str, build: Build, context: Path, duckweed: Run
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{packing if packing != 'zst' else ''}") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE), ("linked/g", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = kind, 0o755, 5, 6
            info.size = 2 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"1\n"))
    content = out.getvalue()
    if packing == "zst":
        try:
            content = subprocess.run(["zstd", "-c"], input=content, capture_output=True, check=True).stdout
        except FileNotFoundError:
            pytest.skip("zstd is not installed")
    (context / "archive.dat").write_bytes(content)
    text = (
        "FROM busybox\nRUN mkdir -p /x /real && ln -s /real /x/linked\nADD archive.dat /x\n"
        'RUN test "$(stat -c %u:%g:%a /x/d/f)" = 5:6:755 && test -L /x/linked && test -e /real/g\n'
        "ADD --unpack=false archive.dat /y/\nRUN test -f /y/archive.dat\n"
        'ADD --chown=7:8 archive.dat /z/\nRUN test "$(stat -c %u:%g /z/d/f)" = 7:8\n'
        "COPY archive.dat /c/\nRUN test -f /c/archive.dat\n"
    )
    build(text)
