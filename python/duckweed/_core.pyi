"""Contract of the extension; change this first, then the Rust (docs/contracts.md §8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

__version__: str

@final
class RunResult:
    """The end of an ephemeral container."""

    exit_code: int
    error: str
    """Empty, or a StartError as JSON."""
    stdout: bytes
    stderr: bytes
    timed_out: bool

@final
class LayerReport:
    """What one layer was found to be."""

    diff_id: str
    blob_digest: str
    blob_size: int
    blob_media_type: str
    size: int
    """Bytes of the uncompressed tar."""
    entries: int
    skipped: list[str]

@final
class Gate:
    """What a layer waits for that is extracted beside the ones below it: closed at first."""

    def open(self) -> None:
        """Lets everybody through; for good."""

    def wait(self, cancel: Cancel) -> bool:
        """Waits until it is open; False when `cancel` was raised before."""

@final
class Cancel:
    """Ends extractions that run on other threads."""

    def cancel(self) -> None:
        """Raises the flag; for good."""

    def is_cancelled(self) -> bool:
        """Whether it is raised."""

@final
class Standbys:
    """Supervisors that wait for a container, at most `most`; they end when this object does."""

    def __init__(self, argv: Sequence[str | bytes], fds: Sequence[tuple[int, int]], most: int) -> None: ...
    def close(self) -> None:
        """Ends those that wait."""

def spawn(argv: Sequence[str | bytes], fds: Sequence[tuple[int, int]]) -> int:
    """Starts a program with `fds` as (source, target); returns its pid. Raises OSError."""

def run_inherit(
    argv: Sequence[str | bytes],
    *,
    channel_fd: int = 3,
    stdin: bytes | None = None,
    capture: bool = True,
    timeout_s: float | None = None,
    fds: Sequence[tuple[int, int]] = (),
    standbys: tuple[Standbys, bytes, bytes, bytes] | None = None,
) -> RunResult:
    """Runs `supervise --inherit` to its end.

    `fds` are more (source, target) for it; with `standbys`, a pool, one of that runs the container
    instead: its path, the bytes of container.json and of config.json. Raises OSError when the helper
    cannot be started.
    """

def settle() -> None:
    """Waits for runtimes that have answered and are still removing their containers."""

def channel() -> tuple[int, int]:
    """A SEQPACKET pair; the caller owns both numbers."""

def connect(path: str) -> int:
    """Connects to a supervisor's socket. Raises OSError (ENOENT, ECONNREFUSED)."""

def send(fd: int, kind: bytes, payload: bytes, fds: Sequence[int] = ()) -> None:
    """Sends one message. Raises OSError (EPIPE: the other side is gone)."""

def receive(fd: int, timeout_s: float | None = None) -> tuple[bytes, bytes, list[int]] | None:
    """One message; None when the time is up; (b"", b"", []) when the other side has closed."""

def render_template(template: str, data: str) -> str:
    """Renders a Go template over a JSON document. Raises ValueError with one line."""

def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none."""

def boot_id() -> str:
    """The kernel's id of this boot."""

@final
class Reply:
    """What a registry answered; header names are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    url: str
    """The address that answered, after redirects."""

    def header(self, name: str) -> str | None:
        """The first header of this name."""

@final
class Counter:
    """Bytes that went up, readable while they go."""

    def __init__(self) -> None: ...
    @property
    def value(self) -> int: ...

@final
class Part:
    """A blob on its way to the file at `path`; what that holds already is not asked for again.

    Raises OSError.
    """

    def __init__(self, path: str, digest: str, size: int) -> None: ...
    @property
    def received(self) -> int:
        """Bytes that are there."""
    @property
    def resumed(self) -> int:
        """Bytes that were there when it was opened."""
    @property
    def size(self) -> int: ...
    @property
    def is_whole(self) -> bool:
        """Whether all bytes came and have the digest."""
    def fail(self, reason: str) -> None:
        """Ends an extraction that reads behind the download, with this reason; nothing when it is whole."""

@final
class Transport:
    """Connections to one registry (`home` is `host[:port]`), shared by threads. Every call raises
    TransferError, and after `cancel` only that. Ctrl-C in any call cancels.
    """

    def __init__(
        self,
        home: str,
        user_agent: str,
        *,
        plain_http: bool = False,
        verify: bool = True,
        ca_files: Sequence[str] = (),
        client_certificate: tuple[str, str] | None = None,
        attempts: int = 6,
        pause_s: float = 0.5,
        idle_timeout_s: float = 120.0,
    ) -> None: ...
    def request(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        limit: int = 4194304,
        follow: bool = True,
    ) -> Reply:
        """One answer, whatever its status, of at most `limit` bytes; patient with busy registries."""
    def download(self, url: str, headers: Sequence[tuple[str, str]], part: Part) -> None:
        """Brings `part` to its end and checks its digest. Raises OSError too; the part stays then."""
    def fetch(self, url: str, headers: Sequence[tuple[str, str]], fd: int) -> Reply:
        """Writes what an address has to a file; the reply has no body then. Raises OSError too."""
    def upload(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        fd: int,
        offset: int,
        length: int,
        sent: Counter,
    ) -> Reply:
        """Sends a stretch of a file, once."""
    def cancel(self) -> None:
        """Ends what other threads have under way."""

def extract_layer(
    source: int | Part,
    dest: str,
    *,
    parents: Sequence[str] = (),
    offset: int = 0,
    length: int | None = None,
    expected_diff_id: str | None = None,
    expected_blob: str | None = None,
    blob_out: str | None = None,
    parents_ready: Gate | None = None,
    cancel: Cancel | None = None,
) -> LayerReport:
    """Extracts into dest/fs and dest/index.json, from a descriptor or behind a blob's download.

    Raises BadImage, StoreError; dest is gone then.
    """

def archive_tree(request: str, out_fd: int) -> tuple[int, int]:
    """Writes the plain tar that a request (JSON, docs/contracts.md §8) describes to a descriptor.

    Returns its members and its bytes. Raises ValueError (bad request), StoreError; BrokenPipeError when
    nobody reads. What was written then has no end mark.
    """

def tree_changes(request: str) -> list[tuple[str, bytes]]:
    """What an `upper` or `copy` request changes: ("A" | "C" | "D", path), sorted. Raises as
    `archive_tree`.
    """

def write_layer(
    request: str, blob_out: str, *, compression: str = "zstd", level: int | None = None
) -> LayerReport:
    """Writes a layer's blob (compression "none", "gzip" or "zstd") to a new file, both digests taken in one
    pass.

    Raises ValueError, StoreError; blob_out is gone then.
    """

def pack_layer(
    fd: int,
    blob_out: str,
    *,
    compression: str = "zstd",
    level: int | None = None,
    offset: int = 0,
    length: int | None = None,
) -> LayerReport:
    """Packs a layer's tar (plain, gzip or zstd) anew into a new file; `entries` is 0. Raises BadImage,
    StoreError.
    """

def write_archive(out_fd: int, parts: Sequence[tuple[str, bytes | str, int, bool]]) -> None:
    """Writes a tar of parts: (name, its bytes or the path of a file, size, whether the file is to be
    unpacked); a name that ends with a slash is a directory.

    Raises StoreError (a file is missing, or not of its size); BrokenPipeError when nobody reads.
    """

def send_path(path: str, follow: bool, out_fd: int) -> int:
    """Writes what stands at an absolute path of this machine as a tar in which it is called `.`; its bytes.

    Raises FileNotFoundError, NotADirectoryError (`x/` is a file), StoreError; BrokenPipeError when nobody
    reads.
    """

def receive_path(fd: int, path: str, name: bytes, contents: bool) -> tuple[int, list[str]]:
    """Puts such a tar to an absolute path by Docker's rules for `cp`, no link beneath it followed; bytes read
    and what was left out. `name` is the source's own, `contents` that it was written `SRC/.`.

    Raises FileNotFoundError, NotADirectoryError, IsADirectoryError (a directory onto a file), StoreError.
    """

def archive_index(fd: int) -> list[tuple[str, str, int, int, str]]:
    """The members of an uncompressed tar: (name, kind, size, offset, link). Raises BadImage."""

def decompress(fd: int, out_fd: int) -> str:
    """Inflates fd to out_fd; says "gzip", "zstd", or "none" (nothing written). Raises BadImage."""

def digest_file(fd: int) -> tuple[str, int]:
    """SHA-256 digest and size of what fd holds. Raises OSError."""
