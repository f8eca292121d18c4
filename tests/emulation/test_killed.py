"""Supervisor, emulator or container killed at any moment, or the power gone: what was set is there, and the index is whole.

DUCKWEED_TEST_ROUNDS=500 kills more often than a test run has time for.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from pathlib import Path

import pytest

from conftest import Run

ROUNDS = int(os.environ.get("DUCKWEED_TEST_ROUNDS", "24"))

#: Shows what is remembered; then gives one file after the other to somebody, telling outside what is done and what is on disk.
SCRIPT = """
mkdir -p /d /moving; cd /d
for f in /moving/*; do [ -e "$f" ] && mv "$f" .; done
stat -c '%n %u %g' * > /out/seen.new 2> /dev/null; mv /out/seen.new /out/seen
i=$(ls | wc -l)
while :; do
    i=$((i + 1)); : > $i; chown $i:$((i + 1)) $i 2>> /out/refused && echo done $i >> /out/progress
    [ $((i % 3)) = 0 ] && { n=$((i - 1)); chown 5:5 $n; mv $n /moving; chown $n:$i /moving/$n; mv /moving/$n .; }
    [ $((i % 7)) = 0 ] && { dd if=/dev/null of=$i conv=fsync 2> /dev/null; echo synced $i >> /out/progress; }
done
"""


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _processes(inner: int) -> list[int]:
    """The container's first process, its supervisor, and the emulator."""
    status = Path(f"/proc/{inner}/status").read_text()
    supervisor = int(status.split("PPid:")[1].split()[0])
    return [inner, supervisor, *(pid for pid in _children(supervisor) if pid != inner)]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _last(progress: Path, word: str) -> int:
    """The last number that was told with a word; a line that was cut short tells nothing."""
    lines = progress.read_text().split("\n")[:-1] if progress.exists() else []
    return max((int(line.split()[1]) for line in lines if line.startswith(word)), default=0)


def _ends(log: bytes) -> list[tuple[int, int]]:
    """Of each record that a log sets: the uid, and where in the file it ends."""
    found, at = [], 16
    while at + 8 <= len(log):
        (length,) = struct.unpack_from("<I", log, at)
        if log[at + 8] == 1:
            found.append((struct.unpack_from("<I", log, at + 8 + 37)[0], at + 8 + length))
        at += 8 + length
    return found


def _story(run: Run, name: str, out: Path, log: Path, number: int) -> str:
    """What is known of a file whose owner was lost."""
    records = [uid for uid, _ in _ends(log.read_bytes())]
    now = run("exec", name, "stat", "-c", "%u %g %i %w", f"/d/{number}").stdout.strip()
    told = (out / "refused").read_text()[-300:]
    places = [place for place, uid in enumerate(records) if uid == number]
    return f"{number}: {now}; in the log at {places} of {len(records)}; refused: {told}"


def _cut_power(log: Path, synced: int, chance: random.Random) -> None:
    """Leaves what the disk is bound to have, and of the rest some, with garbage where the next would be."""
    whole = log.read_bytes()
    kept = max((end for uid, end in _ends(whole) if uid <= synced), default=16)
    cut = chance.randint(kept, len(whole))
    log.write_bytes(whole[:cut] + chance.randbytes(chance.randint(0, 60)))


@pytest.mark.timeout(120 + 3 * ROUNDS)
def test_what_was_set_survives_whoever_is_killed(alone: Run, root: Path, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    out = tmp_path / "out"
    out.mkdir()
    name = alone("create", "-v", f"{out}:/out", "users", "sh", "-c", SCRIPT, check=True).stdout.strip()
    log = root / "containers" / name / "owners"
    uncertain: set[int] = set()
    lost = 0
    try:
        for _ in range(ROUNDS):
            before = _last(out / "progress", "done")
            (out / "seen").unlink(missing_ok=True)
            alone("start", name, check=True)
            inner = int(alone("inspect", "-f", "{{.State.Pid}}", name, check=True).stdout)
            victims = _processes(inner)
            deadline = time.monotonic() + 30
            while not (out / "seen").exists():
                assert time.monotonic() < deadline
            lines = (out / "seen").read_text().splitlines()
            owners = {int(number): (int(uid), int(gid)) for number, uid, gid in map(str.split, lines)}
            for number in set(range(1, before + 1)) - uncertain:
                expected = (number, number + 1)
                assert owners[number] == expected, _story(alone, name, out, log, number)
            lost += sum(owners.get(number) == (0, 0) for number in uncertain)
            time.sleep(chance.random() * 0.12)
            for pid in chance.sample(victims, chance.randint(1, len(victims))):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            while any(map(_lives, victims)):
                assert time.monotonic() < deadline
            assert alone("inspect", "-f", "{{.State.Running}}", name).stdout == "false\n"
            # The one that was given away for a moment has either owner.
            after = _last(out / "progress", "done")
            uncertain |= {after - 1, after, after + 1}
            if chance.random() < 0.5 and log.exists():
                synced = _last(out / "progress", "synced")
                _cut_power(log, synced, chance)
                uncertain |= set(range(synced + 1, after + 2))
        assert _last(out / "progress", "synced") > 0
        print(f"{ROUNDS} rounds, {after} owners, {lost} times one was lost that was not synced")
    finally:
        alone("rm", "-f", name)
