"""The Python API on real containers: what `import duckweed` promises to programs."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import duckweed

PATIENCE_S = 20


@pytest.fixture(scope="module")
def engine(root: Path, busybox: str) -> duckweed.Engine:
    return duckweed.Engine(root=str(root))


@pytest.fixture
def box(engine: duckweed.Engine) -> Iterator[duckweed.Container]:
    """A container that sleeps until it is told to stop."""
    with engine.containers.run(
        "busybox", ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"]
    ) as one:
        next(iter(one.logs(follow=True)))
        yield one


def eventually(claim: Any) -> None:
    """Waits until `claim()` is true: for what the kernel does in its own time."""
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def present(engine: duckweed.Engine) -> set[str]:
    """Every container and name in the store, which other tests use too."""
    return {*os.listdir(engine.layout.containers), *os.listdir(engine.layout.names)}


def test_run_gives_exit_code_and_both_streams(engine: duckweed.Engine) -> None:
    result = engine.run("busybox", ["sh", "-c", "cat; echo no >&2; exit 3"], input=b"yes")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"yes", b"no\n")


def test_run_feeds_and_collects_more_than_a_pipe_holds(engine: duckweed.Engine) -> None:
    data = os.urandom(1 << 20)
    assert engine.run("busybox", ["cat"], input=io.BytesIO(data)).stdout == data


def test_run_leaves_nothing(engine: duckweed.Engine) -> None:
    before = set(os.listdir(engine.layout.containers)), set(os.listdir(engine.layout.volumes))
    engine.run("busybox", ["touch", "/data/x"], volume="/data", name="short-lived")
    with pytest.raises(duckweed.StartError):
        engine.run("busybox", ["no-such-program"])
    assert (set(os.listdir(engine.layout.containers)), set(os.listdir(engine.layout.volumes))) == before
    assert "short-lived" not in os.listdir(engine.layout.names)


def test_check_raises_with_the_result(engine: duckweed.Engine) -> None:
    with pytest.raises(duckweed.CommandFailed, match="`sh` exited with 4") as caught:
        engine.run("busybox", ["sh", "-c", "echo why; exit 4"], check=True)
    assert (caught.value.exit_code, caught.value.result.stdout) == (4, b"why\n")


@pytest.mark.parametrize(
    ("command", "exit_code", "code"),
    [(["no-such"], 127, "command-not-found"), (["/etc"], 126, "command-not-executable")],
)
def test_a_command_that_cannot_start_is_an_error_with_dockers_code(
    engine: duckweed.Engine, command: list[str], exit_code: int, code: str
) -> None:
    with pytest.raises(duckweed.StartError) as caught:
        engine.run("busybox", command)
    assert (caught.value.exit_code, caught.value.code) == (exit_code, code)
    assert "\n" not in caught.value.message and caught.value.hint


def test_a_timeout_kills_the_container(engine: duckweed.Engine) -> None:
    before = present(engine)
    start = time.monotonic()
    result = engine.run("busybox", ["sh", "-c", "echo begun; sleep 100"], timeout=0.3)
    assert (result.exit_code, result.timed_out) == (137, True)
    assert time.monotonic() - start < PATIENCE_S
    eventually(lambda: not present(engine) - before)


def test_a_missing_image_says_so_in_dockers_words(engine: duckweed.Engine) -> None:
    with pytest.raises(duckweed.NoSuchImage, match="Unable to find image 'missing:latest' locally"):
        engine.run("missing", ["true"], pull="never")
    with pytest.raises(duckweed.NoSuchImage, match="locally: cannot reach registry `127.0.0.1:1`"):
        engine.run("127.0.0.1:1/missing", ["true"])


def test_a_hundred_threads_run_at_once(engine: duckweed.Engine) -> None:
    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(lambda n: engine.run("busybox", ["echo", str(n)]).stdout, range(100)))
    assert results == [b"%d\n" % n for n in range(100)]


def test_asyncio_runs_many_without_threads_and_cancelling_kills(engine: duckweed.Engine) -> None:
    async def one(n: int) -> bool:
        result = await engine.run_async("busybox", ["sh", "-c", f"cat; exit {n % 5}"], input=b"%d" % n)
        return (result.exit_code, result.stdout) == (n % 5, b"%d" % n)

    async def scenario() -> None:
        assert all(await asyncio.gather(*(one(n) for n in range(60))))
        assert (await engine.run_async("busybox", ["sleep", "100"], timeout=0.2)).timed_out
        with pytest.raises(duckweed.StartError):
            await engine.run_async("busybox", ["no-such"])
        task = asyncio.create_task(engine.run_async("busybox", ["sleep", "100"]))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = present(engine)
    asyncio.run(scenario())
    eventually(lambda: not present(engine) - before)


def test_a_container_goes_through_its_life(engine: duckweed.Engine) -> None:
    made = engine.containers.create(
        "busybox", ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"], name="life"
    )
    try:
        assert (made.status, made.wait(), made.summary["Status"]) == ("created", 0, "Created")
        made.start()
        made.start()
        assert made.status == "running" and made.summary["Status"].startswith("Up ")
        with pytest.raises(duckweed.WrongState, match="container is running"):
            made.remove()
        assert next(iter(made.logs(follow=True))) == (
            "stdout",
            b"ready\n",
        )  # before that, TERM would be ignored
        made.stop()
        assert (made.status, made.wait()) == ("exited", 7)
        assert made.summary["Status"].startswith("Exited (7) ")
        made.restart()
        made.kill()
        assert made.wait() == 137
        with pytest.raises(duckweed.WrongState, match="is not running"):
            made.kill()
    finally:
        made.remove(force=True)
    with pytest.raises(duckweed.NoSuchContainer, match="No such container: life"):
        engine.containers.get("life")


def test_two_starts_at_once_start_one(engine: duckweed.Engine) -> None:
    with engine.containers.create("busybox", ["sleep", "100"], stop_timeout=0) as made:
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(
                    lambda _: duckweed.Engine(root=engine.root).containers.get(made.id).start(), range(8)
                )
            )
        pids = [row[1] for row in made.top()["Processes"]]
        assert pids == [str(made.attrs["State"]["Pid"])]


def test_a_name_belongs_to_one_and_can_be_changed(engine: duckweed.Engine) -> None:
    with (
        engine.containers.create("busybox", name="one") as one,
        engine.containers.create("busybox", name="two"),
    ):
        with pytest.raises(
            duckweed.NameInUse, match=f'The container name "/one" is already in use by container "{one.id}"'
        ):
            engine.containers.create("busybox", name="one")
        with pytest.raises(duckweed.NameInUse):
            one.rename("two")
        one.rename("three")
        assert engine.containers.get("three").id == one.id == engine.containers.get(one.short_id).id
        assert engine.containers.get("three").attrs["Name"] == "/three"
        engine.containers.create("busybox", name="one").remove()


def test_exec_has_its_own_streams_user_and_terminal(box: duckweed.Container) -> None:
    result = box.exec(
        ["sh", "-c", "cat; echo $A >&2; pwd; exit 9"], input="in\n", env={"A": "b"}, workdir="/tmp"
    )
    assert (result.exit_code, result.stdout, result.stderr) == (9, b"in\n/tmp\n", b"b\n")
    assert box.exec("tty", tty=True).stdout.strip().startswith(b"/dev/pts/")
    assert box.exec(["true"], detach=True).exit_code == 0
    with pytest.raises(duckweed.StartError) as caught:
        box.exec(["no-such"])
    assert caught.value.exit_code == 127
    with pytest.raises(TimeoutError):
        box.exec(["sleep", "100"], timeout=0.2)


def test_exec_in_a_stopped_container_is_refused(engine: duckweed.Engine) -> None:
    with (
        engine.containers.create("busybox") as made,
        pytest.raises(duckweed.WrongState, match=f"container {made.id} is not running"),
    ):
        made.exec(["true"])


def test_logs_are_followed_to_the_last_line(engine: duckweed.Engine) -> None:
    command = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; echo last >&2"
    with engine.containers.run(
        "busybox", ["sh", "-c", command], log_opt={"max-size": "8k", "max-file": "50"}
    ) as made:
        pieces = list(made.logs(follow=True))
        assert pieces == [("stdout", b"line %d\n" % n) for n in range(400)] + [
            ("stderr", b"last\n")
        ] or sorted(pieces) == sorted(
            [("stdout", b"line %d\n" % n) for n in range(400)] + [("stderr", b"last\n")]
        )
        assert len(list(made.logs(tail=7))) == 7
        assert os.path.exists(f"{made.directory}/container.log.1")


def test_volumes_outlive_containers_and_are_filled_from_the_image(
    engine: duckweed.Engine, tmp_path: Path
) -> None:
    archive = tmp_path / "rootfs.tar"
    with tarfile.open(archive, "w") as tar:
        for name, body in (("data/hello", b"from the image\n"), ("real/deep", b"behind a link\n")):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
        link = tarfile.TarInfo("alias")
        link.type, link.linkname = tarfile.SYMTYPE, "/real"
        tar.addfile(link)
        escape = tarfile.TarInfo("escape")
        escape.type, escape.linkname = tarfile.SYMTYPE, "../../../../../../../etc"
        tar.addfile(escape)
    engine.images.import_(str(archive), "volumes-test", changes=["VOLUME /data", 'CMD ["none"]'])
    try:
        with engine.containers.create(
            "volumes-test", volume=["kept:/data", "alias:/alias", "escape:/escape"]
        ):
            assert Path(engine.volumes.get("kept").mountpoint, "hello").read_text() == "from the image\n"
            assert Path(engine.volumes.get("alias").mountpoint, "deep").read_text() == "behind a link\n"
            assert os.listdir(engine.volumes.get("escape").mountpoint) == []
            with pytest.raises(duckweed.InUse):
                engine.volumes.remove("kept")
        engine.run("busybox", ["sh", "-c", "echo more >> /d/hello"], volume="kept:/d", check=True)
        assert (
            engine.run("busybox", ["cat", "/d/hello"], volume="kept:/d:ro").stdout
            == b"from the image\nmore\n"
        )
        with engine.containers.create("volumes-test") as made:
            (point,) = made.attrs["Mounts"]
            assert (point["Destination"], len(point["Name"])) == ("/data", 64)
            anonymous = point["Name"]
            assert Path(point["Source"], "hello").exists()
        assert anonymous not in [volume.name for volume in engine.volumes.list()]
        with engine.containers.create("volumes-test", volume="nocopy:/data:nocopy"):
            assert os.listdir(engine.volumes.get("nocopy").mountpoint) == []
    finally:
        for name in ("kept", "alias", "escape", "nocopy"):
            engine.volumes.remove(name, force=True)
        engine.images.remove("volumes-test")


def test_bind_mounts_are_made_for_v_and_demanded_by_mount(engine: duckweed.Engine, tmp_path: Path) -> None:
    engine.run("busybox", ["touch", "/b/made"], volume=f"{tmp_path}/new:/b", check=True)
    assert (tmp_path / "new" / "made").exists()
    assert engine.run("busybox", ["touch", "/b/x"], volume=f"{tmp_path}/new:/b:ro").exit_code == 1
    with pytest.raises(duckweed.UsageError, match="bind source path does not exist"):
        engine.run("busybox", ["true"], mount=f"type=bind,src={tmp_path}/none,dst=/b")


def test_list_filters_as_docker_does(engine: duckweed.Engine) -> None:
    with (
        engine.containers.run(
            "busybox", ["sleep", "100"], stop_timeout=0, name="web-1", label=["tier=web", "x=1"]
        ) as web,
        engine.containers.create("busybox", name="db-1", label="tier=db") as db,
    ):

        def names(**filters: object) -> list[str]:
            return [one.name for one in engine.containers.list(all=True, filters=filters)]

        assert [one.id for one in engine.containers.list() if one.id in (web.id, db.id)] == [web.id]
        assert names(label="tier=web") == ["web-1"] and names(label=["tier=web", "x=2"]) == []
        assert names(name="^db-") == ["db-1"] and names(status="created", name="-1") == ["db-1"]
        assert names(id=web.id[:10]) == ["web-1"] and names(since="web-1", name="-1") == ["db-1"]
        assert "web-1" in names(ancestor="busybox") and names(ancestor="other") == []
        with pytest.raises(duckweed.UsageError, match="invalid filter 'bogus'"):
            names(bogus="1")


def test_inspect_says_what_was_asked_for(engine: duckweed.Engine) -> None:
    options: dict[str, Any] = {
        "env": ["A=b"],
        "workdir": "/w",
        "user": "1",
        "cap_drop": "ALL",
        "hostname": "h",
        "read_only": True,
    }
    with engine.containers.create("busybox", ["echo", "a b"], **options) as made:
        attrs = made.attrs
        assert (attrs["Path"], attrs["Args"], attrs["State"]["Status"]) == ("echo", ["a b"], "created")
        config, host = attrs["Config"], attrs["HostConfig"]
        assert (config["Hostname"], config["WorkingDir"], config["User"]) == (
            "h",
            "/w",
            "1",
        ) and "A=b" in config["Env"]
        assert host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"] and host["NetworkMode"] == "bridge"
        assert attrs["Duckweed"]["IdMap"] in ("full", "single")


def test_a_killed_supervisor_is_noticed_and_its_container_is_dead(box: duckweed.Container) -> None:
    state = box.state()
    os.kill(state.supervisor_pid, signal.SIGKILL)
    eventually(lambda: box.status == "exited")
    assert box.wait() == 137
    eventually(lambda: not os.path.exists(f"/proc/{state.pid}"))
    box.start()
    assert box.status == "running"


def test_a_killed_supervisor_of_a_container_that_removes_itself_leaves_nothing(
    engine: duckweed.Engine,
) -> None:
    made = engine.containers.run("busybox", ["sleep", "100"], rm=True, name="gone", volume="/data")
    os.kill(made.state().supervisor_pid, signal.SIGKILL)
    eventually(lambda: "gone" not in [one.name for one in engine.containers.list(all=True)])
    assert not os.path.exists(made.directory) and "gone" not in os.listdir(engine.layout.names)


def start_a_caller(engine: duckweed.Engine, **options: Any) -> int:
    """A process that is in `engine.run` of something endless; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            engine.run("busybox", ["sh", "-c", "touch /b/up; sleep 100"], **options)
        finally:
            os._exit(0)
    return pid


def test_the_end_of_the_calling_process_is_the_end_of_its_run(
    engine: duckweed.Engine, tmp_path: Path
) -> None:
    before = present(engine)
    pid = start_a_caller(engine, volume=f"{tmp_path}:/b")
    eventually((tmp_path / "up").exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    eventually(lambda: not present(engine) - before)


def test_a_caller_killed_before_it_has_a_supervisor_leaves_what_the_next_command_removes(
    engine: duckweed.Engine, tmp_path: Path
) -> None:
    before = present(engine)
    for _ in range(10):
        pid = start_a_caller(engine, volume=f"{tmp_path}:/b")
        eventually(lambda: present(engine) - before)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

        def gone_after_a_command() -> bool:
            duckweed.Engine(root=engine.root).containers.list(all=True)
            return not present(engine) - before

        eventually(gone_after_a_command)


def test_what_a_killed_maker_left_half_made_is_swept_by_the_next_command(engine: duckweed.Engine) -> None:
    boot = engine.info()["ID"][:8]
    for half_made in (f"{boot}.{2**22 - 1}.1-container-x", f"{boot}.{os.getpid()}.1-file-y"):
        os.makedirs(f"{engine.layout.tmp}/{half_made}/upper")
    duckweed.Engine(root=engine.root).containers.list()
    assert [entry for entry in os.listdir(engine.layout.tmp) if entry.endswith(("-x", "-y"))] == []


def test_prune_removes_what_is_stopped(engine: duckweed.Engine) -> None:
    with engine.containers.run("busybox", ["sleep", "100"], stop_timeout=0) as running:
        stopped = engine.containers.create("busybox")
        report = engine.containers.prune()
        assert stopped.id in report["ContainersDeleted"] and running.id not in report["ContainersDeleted"]


def test_info_and_version_have_dockers_keys(engine: duckweed.Engine) -> None:
    info = engine.info()
    assert (
        info["DockerRootDir"] == engine.root and info["Driver"] in ("overlay", "copy") and info["NCPU"] >= 1
    )
    assert engine.version()["Client"]["Version"] == duckweed.__version__
