"""Work in a user namespace: what the store must do to files that other ids of ours own.

The runtime helper enters the namespace and does it (`within`, docs/contracts.md §7); Python never changes
its own ids.
"""

from __future__ import annotations

import os

from duckweed.errors import StoreError

RUNTIME = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_bin", "duckweed-runtime"
)
_ERROR_LIMIT = 4096


def run(uid_map: str, gid_map: str, verb: str, *arguments: str) -> bytes:
    """Runs one verb in a namespace of these maps and returns its stdout. Raises StoreError with the
    helper's own line.
    """
    argv = [RUNTIME, "within", "--uid-map", uid_map, "--gid-map", gid_map, verb, *arguments]
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_write, 1),
            (os.POSIX_SPAWN_DUP2, err_write, 2),
        ]
        try:
            pid = os.posix_spawn(RUNTIME, argv, os.environ, file_actions=actions)
        finally:
            os.close(out_write)
            os.close(err_write)
        out, err = _drain(out_read, err_read)
        _, status = os.waitpid(pid, 0)
    except OSError as error:
        raise StoreError(f"cannot run `{RUNTIME}`: {(error.strerror or str(error)).lower()}") from None
    finally:
        os.close(out_read)
        os.close(err_read)
    if status != 0:
        words = err.decode(errors="replace").strip().splitlines()
        line = words[-1] if words else f"the helper ended with status {status}"
        raise StoreError(line[len("duckweed: ") :] if line.startswith("duckweed: ") else line)
    return out


def _drain(out: int, err: int) -> tuple[bytes, bytes]:
    """Both pipes to their ends; only the beginning of stderr is kept."""
    import select

    poll = select.poll()
    pieces: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
    for fd in pieces:
        poll.register(fd, select.POLLIN)
    left = 2
    while left:
        for fd, _ in poll.poll():
            chunk = os.read(fd, 65536)
            if not chunk:
                poll.unregister(fd)
                left -= 1
            elif fd == out or len(pieces[fd]) < _ERROR_LIMIT:
                pieces[fd] += chunk
    return bytes(pieces[out]), bytes(pieces[err])
