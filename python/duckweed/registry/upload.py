"""Uploads: blobs into a repository (distribution-spec, "Push").

A blob that the registry has under another name of ours is mounted and not sent. Small ones go in one
request; large ones are streamed into an upload that is asked how far it came when the connection breaks,
and goes on from there. A registry that does not take pieces that large gets smaller ones.
"""

from __future__ import annotations

import os
import time

from duckweed.errors import AccessDenied, RegistryError, StoreError, TransferError
from duckweed.registry.connection import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckweed._core import Counter, Reply
    from duckweed.registry.connection import Connection

_CREATED, _ACCEPTED, _NO_CONTENT, _OK = 201, 202, 204, 200
_TOO_LARGE = 413
_SMALL_BYTES = 1 << 20
_PIECE_BYTES = 16 << 20
_ATTEMPTS = 5
_PAUSE_S = 0.5
_STREAM = ("Content-Type", "application/octet-stream")
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))


class Uploader:
    """Brings blobs to one repository."""

    def __init__(self, connection: Connection, repository: str) -> None:
        self._connection = connection
        self._path = f"/v2/{repository}/blobs"
        self._repository = repository
        self.scopes = (f"repository:{repository}:pull,push",)

    def has(self, digest: str) -> bool:
        """Whether the repository has the blob."""
        return self._connection.send("HEAD", f"{self._path}/{digest}", self.scopes).status == _OK

    def bring(self, digest: str, path: str, sent: Counter, sources: Sequence[str]) -> str:
        """Makes the blob, which the file at `path` holds, the repository's.

        Returns the repository it was mounted from, or "". `sources` are repositories of this registry that
        may have it. Raises AccessDenied, RegistryError, StoreError.
        """
        address = ""
        for source in sources:
            address = self._mount(digest, source)
            if not address:
                return source
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"cannot read blob `{digest}`: {(error.strerror or '').lower()}") from None
        try:
            self._send(digest, fd, os.fstat(fd).st_size, sent, address)
        finally:
            os.close(fd)
        return ""

    def _mount(self, digest: str, source: str) -> str:
        """Asks for a mount: "" when it was done, else the address of the upload that was begun instead."""
        scopes = (*self.scopes, f"repository:{source}:pull")
        try:
            query = f"{self._path}/uploads/?mount={digest}&from={source}"
            reply = self._connection.send("POST", query, scopes)
        except AccessDenied:
            return self._begin()
        if reply.status == _CREATED:
            return ""
        return self._location(reply) if reply.status == _ACCEPTED else self._begin()

    def _begin(self) -> str:
        reply = self._connection.send("POST", f"{self._path}/uploads/", self.scopes)
        if reply.status != _ACCEPTED:
            raise push_refusal(self._repository, reply)
        return self._location(reply)

    def _location(self, reply: Reply) -> str:
        from urllib.parse import urljoin

        location = reply.header("location")
        if not location:
            raise RegistryError(f"{self._repository}: the registry does not say where to upload to")
        return urljoin(reply.url, location)

    def _send(self, digest: str, fd: int, size: int, sent: Counter, address: str) -> None:
        upload = _Upload(address, size)
        failed = 0
        while True:
            try:
                self._attempt(digest, fd, size, sent, upload)
                return
            except TransferError as error:
                failure = self._connection.sentence(error)
                if error.kind not in ("network", "unreachable"):
                    raise failure from None
            except _TooLarge as refused:
                # Smaller pieces, once.
                if upload.piece <= _PIECE_BYTES:
                    raise refused.error from None
                upload = _Upload("", _PIECE_BYTES)
                continue
            except _Busy as busy:
                failure = busy.error
            failed += 1
            if failed == _ATTEMPTS:
                raise failure from None
            time.sleep(_PAUSE_S * 2 ** (failed - 1))

    def _attempt(self, digest: str, fd: int, size: int, sent: Counter, upload: _Upload) -> None:
        """Sends what the upload does not have yet, and closes it."""
        begin = self._find_begin(upload)
        upload.is_begun = True
        if size <= _SMALL_BYTES and not begin:
            reply = self._put(upload.address, digest, (fd, 0, size), sent)
        else:
            while begin < size:
                length = min(upload.piece, size - begin)
                headers = [_STREAM]
                if begin or length < size:
                    headers.append(("Content-Range", f"{begin}-{begin + length - 1}"))
                part = (fd, begin, length)
                reply = self._connection.upload("PATCH", upload.address, self.scopes, headers, part, sent)
                if reply.status not in (_ACCEPTED, _NO_CONTENT, _CREATED):
                    raise self._failed(reply)
                upload.address = self._location(reply)
                begin += length
            reply = self._put(upload.address, digest, (fd, 0, 0), sent)
        if reply.status not in (_CREATED, _NO_CONTENT, _ACCEPTED):
            raise self._failed(reply)

    def _put(self, address: str, digest: str, piece: tuple[int, int, int], sent: Counter) -> Reply:
        mark = "&" if "?" in address else "?"
        whole = f"{address}{mark}digest={digest.replace(':', '%3A')}"
        return self._connection.upload("PUT", whole, self.scopes, [_STREAM], piece, sent)

    def _find_begin(self, upload: _Upload) -> int:
        """Where the upload goes on: from nothing when it is a new one, or the registry does not say."""
        if upload.is_begun:
            reply = self._connection.send("GET", upload.address, self.scopes)
            end = (reply.header("range") or "").rpartition("-")[2]
            is_known = reply.status in (_NO_CONTENT, _OK, _ACCEPTED) and reply.header("location")
            # `0-0` means nothing, or one byte: registries do not tell.
            if is_known and end.isdigit() and int(end):
                upload.address = self._location(reply)
                return int(end) + 1
            upload.address = ""
        upload.address = upload.address or self._begin()
        return 0

    def _failed(self, reply: Reply) -> Exception:
        error = push_refusal(self._repository, reply)
        if reply.status == _TOO_LARGE:
            return _TooLarge(error)
        return _Busy(error) if reply.status in _TRANSIENT else error


class _Upload:
    """An upload under way: where it goes on, in pieces of which size, and whether anything was sent to it."""

    __slots__ = ("address", "is_begun", "piece")

    def __init__(self, address: str, piece: int) -> None:
        self.address = address
        self.piece = piece
        self.is_begun = False


class _Busy(Exception):
    """Worth another try."""

    def __init__(self, error: RegistryError) -> None:
        super().__init__(error.message)
        self.error = error


class _TooLarge(_Busy):
    """Worth another try in smaller pieces."""


def push_refusal(repository: str, reply: Reply) -> RegistryError:
    """The error for an upload that was refused."""
    error = refusal(reply.status, reply.body, repository)
    if isinstance(error, AccessDenied):
        said = error.message[len(repository) + 2 :]
        return denied(repository, said)
    return error


def denied(repository: str, said: str) -> AccessDenied:
    """In Docker's words, which scripts look for."""
    return AccessDenied(
        f"push access denied for {repository}, repository does not exist"
        f" or may require authorization: {said}",
        "log in with `duckweed login`",
    )
