"""Digests: `sha256:` and 64 hexadecimal digits, the only names that bytes have in the store.

Also the two digests that are computed and not stored: chain ids (image-spec, config.md, "Layer ChainID").
"""

from __future__ import annotations

import re

from duckweed.errors import BadImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")


def is_digest(text: object) -> bool:
    """Whether this is a SHA-256 digest in its one canonical spelling."""
    return isinstance(text, str) and _DIGEST.match(text) is not None


def is_hex(text: str) -> bool:
    """Whether this is a whole id: 64 lower-case hexadecimal digits."""
    return _HEX.match(text) is not None


def check_digest(text: object, what: str) -> str:
    """The digest itself; BadImage naming `what` unless it is one."""
    if not is_digest(text):
        raise BadImage(f"{what}: `{str(text)[:80]}` is not a sha256 digest")
    assert isinstance(text, str)
    return text


def digest_hex(digest: str) -> str:
    """The 64 digits of a checked digest."""
    return digest[7:]


def digest_of(content: bytes) -> str:
    """The digest of these bytes."""
    import hashlib  # 2.5 ms of start-up that a run of a loaded image does not need

    return "sha256:" + hashlib.sha256(content).hexdigest()


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """The chain id of each layer, bottom first: what a layer is on top of what it lies on."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(next_chain_id(chain, diff_id))
    return chain


def next_chain_id(below: list[str], diff_id: str) -> str:
    """The chain id of one more layer on those `below` (their chain ids, bottom first)."""
    return digest_of(f"{below[-1]} {diff_id}".encode()) if below else diff_id
