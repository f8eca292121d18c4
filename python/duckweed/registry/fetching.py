"""Fetching what a user names by its address: `import URL`."""

from __future__ import annotations

import os

from duckweed import _core
from duckweed.errors import NotInRegistry, RegistryError, TransferError
from duckweed.registry.settings import Settings
from duckweed.store import scratch
from duckweed.store.layout import cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.store.layout import Layout

_OK = 200


def fetch(layout: Layout, url: str) -> int:
    """A descriptor of a nameless file in the store with what the address has, at its beginning.

    Raises RegistryError, StoreError.
    """
    authority = url.split("://", 1)[1].split("/", 1)[0]
    authorities, client = Settings().certificates(authority)
    transport = _core.Transport(
        authority,
        f"duckweed/{_core.__version__}",
        # The user has typed it: nobody else decides about plain http here.
        plain_http=url.startswith("http://"),
        ca_files=authorities,
        client_certificate=client,
    )
    path = scratch.new_path(layout, "fetched")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot("write in", layout.tmp, error) from None
    try:
        reply = transport.fetch(url, [], fd)
        if reply.status != _OK:
            kind = NotInRegistry if reply.status in (404, 410) else RegistryError
            raise kind(f"cannot fetch `{url}`: status {reply.status}")
        os.lseek(fd, 0, os.SEEK_SET)
        return fd
    except TransferError as error:
        os.close(fd)
        raise RegistryError(f"cannot fetch `{url}`: {error.message}") from None
    except OSError as error:
        os.close(fd)
        raise cannot("write in", layout.tmp, error) from None
    except BaseException:
        os.close(fd)
        raise
    finally:
        scratch.discard_file(path)
