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
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        try:
            pid = spawn(uid_map, gid_map, verb, *arguments, out=out_write, err=err_write)
        finally:
            os.close(out_write)
            os.close(err_write)
        out, err = _drain(out_read, err_read)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(out_read)
        os.close(err_read)
    if status != 0:
        raise StoreError(own_words(err, status))
    return out


def spawn(
    uid_map: str, gid_map: str, verb: str, *arguments: str, out: int, err: int, input: int | None = None
) -> int:
    """Starts one verb with these descriptors as stdout and stderr (and stdin, else /dev/null); returns the
    pid, which the caller waits for.

    Raises StoreError.
    """
    argv = [RUNTIME, "within", "--uid-map", uid_map, "--gid-map", gid_map, verb, *arguments]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        if input is None
        else (os.POSIX_SPAWN_DUP2, input, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2),
    ]
    try:
        return os.posix_spawn(RUNTIME, argv, os.environ, file_actions=actions)
    except OSError as error:
        raise StoreError(f"cannot run `{RUNTIME}`: {(error.strerror or str(error)).lower()}") from None


def own_words(err: bytes, status: int) -> str:
    """The helper's last line on stderr, without its name before it."""
    words = err.decode(errors="replace").strip().splitlines()
    line = words[-1] if words else f"the helper ended with status {status}"
    return line[len("duckweed: ") :] if line.startswith("duckweed: ") else line


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
