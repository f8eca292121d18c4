"""Authorization: from a registry's challenge to a header, with tokens kept as long as they last.

Bearer tokens come from the realm that the challenge names, for the scopes that are needed: by GET with a
user's password, or by POST with an identity token (distribution: docs/spec/auth/token.md, oauth.md).
Anonymous tokens are asked for in the same way. The password goes to the registry itself and to its realm,
nowhere else.
"""

from __future__ import annotations

import threading
import time

from duckweed.errors import AccessDenied, RegistryError
from duckweed.registry.challenge import best_challenge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from duckweed._core import Reply, Transport
    from duckweed.errors import TransferError
    from duckweed.registry.challenge import Challenge
    from duckweed.registry.credentials import Credential

_CLIENT_ID = "duckweed"
# token.md: a token without `expires_in` lasts 60 s.
_DEFAULT_LIFE_S = 60.0
# Asked for anew so long before its end that it outlives one request's headers.
_MARGIN_S = 10.0
_BUSY = 429


class Authorizer:
    """Makes `Authorization` headers for one registry; shared by threads."""

    def __init__(self, transport: Transport, credential: Credential | None) -> None:
        self.credential = credential
        self._transport = transport
        self._challenge: Challenge | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def headers(self, scopes: tuple[str, ...]) -> list[tuple[str, str]]:
        """What to send along for these scopes, as far as the registry has said what it wants."""
        with self._lock:
            challenge = self._challenge
            if challenge is None:
                return []
            if challenge.scheme == "basic":
                password = self.credential.basic() if self.credential and self.credential.username else ""
                return [("Authorization", password)] if password else []
            return [("Authorization", "Bearer " + self._token(challenge, scopes))]

    def answer(
        self, reply: Reply | TransferError, scopes: tuple[str, ...], used: Sequence[tuple[str, str]]
    ) -> bool:
        """Learns from a 401 to a request that went with the headers `used`; whether it is worth sending
        again.
        """
        challenge = best_challenge([value for name, value in reply.headers if name == "www-authenticate"])
        if challenge is None:
            return False
        with self._lock:
            self._challenge = challenge
            if challenge.scheme == "basic":
                return not used and self.credential is not None and bool(self.credential.username)
            # The token that was used is not good any more: a new one is asked for, unless another thread did.
            key = " ".join(scopes)
            if used and ("Authorization", "Bearer " + self._tokens.get(key, ("", 0.0))[0]) in used:
                del self._tokens[key]
            return True

    def _token(self, challenge: Challenge, scopes: tuple[str, ...]) -> str:
        key = " ".join(scopes)
        token, end = self._tokens.get(key, ("", 0.0))
        if not token or time.monotonic() > end:
            token, life = self._fetch(challenge, scopes or _challenged(challenge))
            # A life shorter than the margin is used all the same, once.
            self._tokens[key] = (token, time.monotonic() + max(life - _MARGIN_S, life / 2))
        return token

    def _fetch(self, challenge: Challenge, scopes: tuple[str, ...]) -> tuple[str, float]:
        from urllib.parse import urlencode

        realm = challenge.parameters["realm"]
        service = challenge.parameters.get("service", "")
        credential = self.credential
        if credential is not None and credential.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
            form.update(service=service, client_id=_CLIENT_ID, scope=" ".join(scopes))
            headers = [("Content-Type", "application/x-www-form-urlencoded")]
            reply = self._transport.request("POST", realm, headers, urlencode(form).encode())
        else:
            query = [("service", service)] if service else []
            query += [("scope", scope) for scope in scopes]
            headers = []
            if credential is not None and credential.username:
                query.append(("account", credential.username))
                headers = [("Authorization", credential.basic())]
            mark = "&" if "?" in realm else "?"
            reply = self._transport.request("GET", realm + mark + urlencode(query), headers)
        return _read_token(reply, realm)


def _challenged(challenge: Challenge) -> tuple[str, ...]:
    scope = challenge.parameters.get("scope")
    return (scope,) if scope else ()


def _read_token(reply: Reply, realm: str) -> tuple[str, float]:
    import json

    if reply.status in (400, 401, 403):
        raise AccessDenied(f"{_said(reply) or 'unauthorized: incorrect username or password'}")
    if reply.status == _BUSY:
        raise RegistryError(f"toomanyrequests: `{realm}` asks us to wait", "try again a little later")
    try:
        document: Any = json.loads(reply.body) if reply.status == 200 else None
    except ValueError:
        document = None
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    if not isinstance(token, str) or not token:
        raise RegistryError(f"cannot get a token from `{realm}`: status {reply.status}")
    life = document.get("expires_in")
    is_life = isinstance(life, (int, float)) and not isinstance(life, bool) and life > 0
    return token, float(life) if is_life else _DEFAULT_LIFE_S


def _said(reply: Reply) -> str:
    from duckweed.registry.complaint import complaint_of

    return complaint_of(reply.body)
