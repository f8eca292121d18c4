"""The one tree of exceptions; each has a stable code, a one-line message and a hint.

    DuckweedError
    ├── UsageError             the request makes no sense (bad flag value, bad reference)
    ├── NotFound               NoSuchImage, NoSuchContainer, NoSuchVolume, NoSuchNetwork
    ├── Conflict               NameInUse, InUse, WrongState
    ├── CommandFailed          the command ran and its exit code is not 0 (`check=True`)
    ├── StartError             the runtime could not start the command (126, 127 or 125)
    ├── Unsupported            this place, or this release, cannot do it
    ├── RegistryError          a registry said no (AccessDenied, NotInRegistry), or could not be spoken to
    ├── TransferError          below the registry client: what an HTTP exchange ended with
    ├── BadImage               an archive, manifest, config or layer that is not what it claims
    ├── BuildError             a build that failed; DockerfileError: its Dockerfile cannot be read
    └── StoreError             the disk: full, unreadable, not ours

A message names operation, object and cause, in lower case and without a full
stop, except where scripts match Docker's own words: those come first, verbatim.
The hint is something the person can do without privilege.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckweed.engine import Result


class DuckweedError(Exception):
    """Base of all errors raised by duckweed.

    `code` is stable and meant for programs; `message` is one line for people; `hint` may be empty;
    `exit_code` is what the command line exits with (Docker's numbers).
    """

    code = "error"
    exit_code = 1

    def __init__(
        self, message: str, hint: str = "", *, code: str | None = None, exit_code: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(DuckweedError):
    """The request itself is wrong."""

    code = "usage"
    exit_code = 125


class NotFound(DuckweedError):
    """A name that means nothing here."""

    code = "not-found"


class NoSuchImage(NotFound):
    """No image of that name or id is in the store."""

    code = "no-such-image"


class NoSuchContainer(NotFound):
    """No container of that name or id."""

    code = "no-such-container"


class NoSuchVolume(NotFound):
    """No volume of that name."""

    code = "no-such-volume"


class NoSuchNetwork(NotFound):
    """No network of that name."""

    code = "no-such-network"


class Conflict(DuckweedError):
    """The object is in a state that forbids the operation."""

    code = "conflict"


class NameInUse(Conflict):
    """The container name is taken."""

    code = "name-in-use"
    exit_code = 125


class InUse(Conflict):
    """An image or volume that something still refers to."""

    code = "in-use"


class WrongState(Conflict):
    """The container is running, or is not."""

    code = "wrong-state"


class StartError(DuckweedError):
    """The runtime could not start the command; `exit_code` is 125, 126 or 127."""

    code = "start"
    exit_code = 125


class CommandFailed(DuckweedError):
    """The command ran and failed; only raised when asked for by `check=True`. `result` has its output."""

    code = "command-failed"

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message, exit_code=result.exit_code)
        self.result = result


class Unsupported(DuckweedError):
    """This place, or this release, cannot do it."""

    code = "unsupported"
    exit_code = 125


class BadImage(DuckweedError):
    """An archive, manifest, config or layer is not what it claims to be."""

    code = "bad-image"


class BuildError(DuckweedError):
    """A build failed. `excerpt` shows where in the Dockerfile, as lines for people; it may be empty."""

    code = "build"

    def __init__(
        self, message: str, hint: str = "", *, excerpt: str = "", exit_code: int | None = None
    ) -> None:
        super().__init__(message, hint, exit_code=exit_code)
        self.excerpt = excerpt


class DockerfileError(BuildError):
    """A Dockerfile that cannot be read. `line` and `column` count from 1; 0 where there is none to name."""

    code = "dockerfile"

    def __init__(
        self, message: str, hint: str = "", *, excerpt: str = "", line: int = 0, column: int = 0
    ) -> None:
        super().__init__(message, hint, excerpt=excerpt)
        self.line = line
        self.column = column


class RegistryError(DuckweedError):
    """A registry refused, or could not be spoken to."""

    code = "registry"


class AccessDenied(RegistryError):
    """The registry wants other credentials than it was given."""

    code = "access-denied"


class NotInRegistry(RegistryError):
    """The registry has no such repository, tag, digest or blob, or does not show it."""

    code = "not-in-registry"


class TransferError(DuckweedError):
    """An HTTP exchange that did not succeed, as `_core` tells it; the registry client makes sentences of it.

    `kind` is `status`, `unreachable`, `network`, `tls`, `digest`, `cancelled` and the like; with `status`
    the answer's status, headers and body are there.
    """

    code = "transfer"

    def __init__(
        self,
        message: str,
        kind: str = "transfer",
        status: int = 0,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[int] = b"",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.headers = list(headers)
        self.body = bytes(body)


class StoreError(DuckweedError):
    """The store cannot be read or written."""

    code = "store"
