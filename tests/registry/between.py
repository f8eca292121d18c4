"""A server between us and a registry: counts what passes, and breaks it as a test wants."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length"))


class Passed:
    """One request that passed: method, path, headers, and how many bytes of the answer's body went on."""

    def __init__(self, method: str, path: str, headers: dict[str, str]) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.sent = 0


class Trouble:
    """What to do to one answer: cut after so many bytes, say something else, or hold on before a byte."""

    def __init__(
        self,
        *,
        cut: int | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        change: Callable[[bytes], bytes] | None = None,
        hold: tuple[int, threading.Event] | None = None,
    ) -> None:
        self.cut = cut
        self.status = status
        self.headers = headers or {}
        self.change = change
        self.hold = hold


class Between:
    """Listens on loopback and passes everything on to `upstream` (`host:port`).

    `decide` is asked for each request and may return a Trouble.
    """

    def __init__(self, upstream: str, decide: Callable[[Passed], Trouble | None] = lambda _: None) -> None:
        self.passed: list[Passed] = []
        self.decide = decide
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                outer._pass(self, upstream)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.name = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def blobs(self) -> list[Passed]:
        """The blob downloads that passed."""
        return [one for one in self.passed if one.method == "GET" and "/blobs/sha256:" in one.path]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _pass(self, handler: BaseHTTPRequestHandler, upstream: str) -> None:
        passed = Passed(handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()})
        self.passed.append(passed)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        trouble = self.decide(passed) or Trouble()
        if trouble.status is not None:
            self._refuse(handler, trouble)
            return
        onward = http.client.HTTPConnection(upstream, timeout=30)
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in _HOP}
        onward.request(handler.command, handler.path, body or None, headers)
        answer = onward.getresponse()
        content = answer.read()
        if trouble.change is not None:
            content = trouble.change(content)
        handler.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in _HOP:
                handler.send_header(key, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else str(len(content))
        handler.send_header("Content-Length", length or "0")
        handler.end_headers()
        if handler.command != "HEAD":
            self._send(handler, passed, content, trouble)
        onward.close()

    def _send(
        self, handler: BaseHTTPRequestHandler, passed: Passed, content: bytes, trouble: Trouble
    ) -> None:
        end = len(content) if trouble.cut is None else min(trouble.cut, len(content))
        if trouble.hold is not None:
            at, event = trouble.hold
            handler.wfile.write(content[:at])
            handler.wfile.flush()
            passed.sent = at
            event.wait(60)
        try:
            handler.wfile.write(content[passed.sent : end])
        except OSError:
            handler.close_connection = True
            return
        passed.sent = end
        if end < len(content):
            handler.close_connection = True

    @staticmethod
    def _refuse(handler: BaseHTTPRequestHandler, trouble: Trouble) -> None:
        handler.send_response(trouble.status or 500)
        for key, value in trouble.headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
