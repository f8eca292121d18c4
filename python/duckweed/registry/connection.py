"""A connection: one endpoint, spoken to as one user, with its refusals turned into errors.

The first request finds out by which scheme the endpoint can be spoken to. A 401 is answered once with what
its challenge asks for; tokens are kept and renewed by `authorization`.
"""

from __future__ import annotations

import threading

from duckweed import _core
from duckweed.errors import AccessDenied, NotInRegistry, RegistryError, TransferError
from duckweed.registry.authorization import Authorizer
from duckweed.registry.complaint import complaint_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from duckweed._core import Counter, Part, Reply
    from duckweed.registry.credentials import Credential
    from duckweed.registry.endpoint import Endpoint
    from duckweed.registry.settings import Settings

    Headers = Sequence[tuple[str, str]]
    Result = TypeVar("Result")

_NO_SUCH_SCHEME = frozenset(("tls", "unreachable", "network"))
UNAUTHORIZED = 401
_FORBIDDEN = 403
_NOT_FOUND = 404
_BUSY = 429


class Connection:
    """An open way to one endpoint. Shared by threads; `cancel` ends what they have under way."""

    def __init__(self, endpoint: Endpoint, settings: Settings, credential: Credential | None) -> None:
        authorities, client = settings.certificates(endpoint.authority)
        self.endpoint = endpoint
        self.transport = _core.Transport(
            endpoint.authority,
            f"duckweed/{_core.__version__}",
            plain_http=any(base.startswith("http://") for base in endpoint.bases),
            verify=endpoint.verify,
            ca_files=authorities,
            client_certificate=client,
        )
        self._authorizer = Authorizer(self.transport, credential)
        self._base = endpoint.bases[0] if len(endpoint.bases) == 1 else ""
        self._lock = threading.Lock()

    @property
    def credential(self) -> Credential | None:
        """Who the user is here."""
        return self._authorizer.credential

    @property
    def base(self) -> str:
        """The address that this endpoint answers at, found by asking it."""
        with self._lock:
            if not self._base:
                self._base = self._find_base()
            return self._base

    def _find_base(self) -> str:
        for base in self.endpoint.bases[:-1]:
            try:
                self.transport.request("GET", base + "/v2/")
            except TransferError as error:
                if error.kind not in _NO_SUCH_SCHEME:
                    raise
            else:
                return base
        return self.endpoint.bases[-1]

    def send(
        self,
        method: str,
        path: str,
        scopes: tuple[str, ...] = (),
        headers: Headers = (),
        body: bytes | None = None,
        *,
        limit: int = 4 << 20,
    ) -> Reply:
        """One answer of whatever status but 401. `path` begins with a slash, or is a whole address that the
        registry gave. Raises RegistryError, AccessDenied.
        """

        def once(authorization: Headers) -> Reply:
            whole = [*headers, *authorization]
            return self.transport.request(method, self._address(path), whole, body, limit=limit)

        return self._authorized(once, scopes)

    def upload(
        self,
        method: str,
        address: str,
        scopes: tuple[str, ...],
        headers: Headers,
        piece: tuple[int, int, int],
        sent: Counter,
    ) -> Reply:
        """Sends `(fd, offset, length)`. Raises TransferError when the connection breaks: what has gone
        through is the caller's to find out.
        """
        used = self._authorizer.headers(scopes)
        reply = self.transport.upload(method, address, [*headers, *used], *piece, sent)
        if reply.status == UNAUTHORIZED and self._authorizer.answer(reply, scopes, used):
            raise TransferError("the authorization has ended on the way", "network")
        return reply

    def download(self, path: str, scopes: tuple[str, ...], part: Part) -> None:
        """Brings a blob down. Raises TransferError, OSError."""
        attempts = 3
        while True:
            used = self._authorizer.headers(scopes)
            try:
                self.transport.download(self._address(path), used, part)
                return
            except TransferError as error:
                attempts -= 1
                if error.status != UNAUTHORIZED or not attempts:
                    raise
                # A token can end while a large blob is under way; the next one goes on where it was.
                if not self._authorizer.answer(error, scopes, used):
                    raise

    def _authorized(self, once: Callable[[Headers], Reply], scopes: tuple[str, ...]) -> Reply:
        used = self._plainly(lambda: self._authorizer.headers(scopes))
        reply = self._plainly(lambda: once(used))
        if reply.status == UNAUTHORIZED and self._authorizer.answer(reply, scopes, used):
            used = self._plainly(lambda: self._authorizer.headers(scopes))
            reply = self._plainly(lambda: once(used))
        if reply.status == UNAUTHORIZED:
            raise AccessDenied(complaint_of(reply.body) or "unauthorized: authentication required")
        return reply

    def _plainly(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except TransferError as error:
            raise self.sentence(error) from None

    def _address(self, path: str) -> str:
        return path if "://" in path else self.base + path

    def sentence(self, error: TransferError) -> RegistryError:
        """What a failed exchange means, for people."""
        name = self.endpoint.authority
        words = error.message.removeprefix(f"{name}: ")
        if error.kind == "tls":
            return RegistryError(
                f"cannot trust registry `{name}`: {error.message}",
                f"put its CA into `~/.docker/certs.d/{name}/ca.crt`,"
                " or name the registry in `DUCKWEED_INSECURE_REGISTRIES`",
            )
        if error.kind == "plain-http":
            return RegistryError(f"registry `{name}` sends us to plain http: {error.message}")
        if error.kind == "status":
            return refusal(error.status, error.body, f"registry `{name}`")
        if error.kind == "unreachable":
            return RegistryError(
                f"cannot reach registry `{name}`: {words}",
                "check the name and the network (HTTPS_PROXY); `DUCKWEED_MIRRORS` names stand-ins",
            )
        return RegistryError(f"registry `{name}`: {words}")

    def cancel(self) -> None:
        """Ends every request under way."""
        self.transport.cancel()


def refusal(status: int, body: bytes, what: str) -> RegistryError:
    """The error for an answer that is no success; `what` was asked for."""
    said = complaint_of(body)
    if status in (UNAUTHORIZED, _FORBIDDEN):
        return AccessDenied(f"{what}: {said or 'denied'}")
    if status == _NOT_FOUND:
        return NotInRegistry(f"{what}: {said or 'not found'}")
    if status == _BUSY:
        return RegistryError(
            f"{what}: {said or 'toomanyrequests'}", "try again a little later, or `duckweed login`"
        )
    return RegistryError(f"{what}: {said or 'the registry answered'} (status {status})")
