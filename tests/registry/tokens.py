"""A token server as the distribution project describes it (docs/spec/auth/token.md), for docker-registry.

`alice` with the password `wonder land` may do everything; anonymous may pull from `public/...`.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

USER, PASSWORD = "alice", "wonder land"
REFRESH_TOKEN = "an identity token"


def _packed(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class TokenServer:
    """Signs tokens; `asked` are the requests that came: (method, user or "", scopes)."""

    def __init__(self, directory: Path, life_s: int = 300) -> None:
        trustme = pytest.importorskip("trustme")
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        authority = trustme.CA()
        issued = authority.issue_cert("token.test")
        self._key: Any = load_pem_private_key(issued.private_key_pem.bytes(), None)
        self._certificate = issued.cert_chain_pems[0].bytes()
        self.bundle = directory / "token-ca.pem"
        authority.cert_pem.write_to_path(str(self.bundle))
        self.asked: list[tuple[str, str, list[str]]] = []
        self.life_s = life_s
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer._answer(self, outer._user(self.headers.get("Authorization")), query.get("scope", []))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                is_known = form.get("refresh_token") == [REFRESH_TOKEN]
                outer._answer(self, USER if is_known else None, form.get("scope", [""])[0].split())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self.server.server_port}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def auth(self) -> dict[str, Any]:
        """The registry's `auth` section."""
        options = {"realm": self.realm, "service": "test registry", "issuer": "test"}
        return {"token": {**options, "rootcertbundle": str(self.bundle)}}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def _user(header: str | None) -> str | None:
        """The user; "" for anonymous, None for a wrong password."""
        if header is None:
            return ""
        given = base64.b64decode(header.split()[1]).decode()
        return USER if given == f"{USER}:{PASSWORD}" else None

    def _answer(self, handler: BaseHTTPRequestHandler, user: str | None, scopes: list[str]) -> None:
        self.asked.append((handler.command, user or "", scopes))
        if user is None:
            body = b'{"details":"incorrect username or password"}'
            handler.send_response(401)
        else:
            document = {"token": self._token(user, scopes), "expires_in": self.life_s}
            body = json.dumps(document).encode()
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _token(self, user: str, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = {"pull", "push", "*"} if user else {"pull"} if name.startswith("public/") else set()
            access.append({"type": kind, "name": name, "actions": sorted(allowed & set(actions.split(",")))})
        now = int(time.time())
        claims = {
            "iss": "test",
            "sub": user,
            "aud": "test registry",
            "access": access,
            "jti": str(len(self.asked)),
        }
        claims.update({"nbf": now - 60, "iat": now, "exp": now + max(self.life_s, 120)})
        return self._sign(claims)

    def _sign(self, claims: dict[str, Any]) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.x509 import load_pem_x509_certificate

        der = load_pem_x509_certificate(self._certificate).public_bytes(Encoding.DER)
        is_ec = isinstance(self._key, ec.EllipticCurvePrivateKey)
        header = {"typ": "JWT", "alg": "ES256" if is_ec else "RS256", "x5c": [base64.b64encode(der).decode()]}
        text = ".".join(_packed(json.dumps(part).encode()) for part in (header, claims))
        if is_ec:
            r, s = utils.decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        else:
            signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_packed(signature)}"
