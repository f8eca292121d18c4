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
        self.body_bytes = 0
        self.sent = 0


class Trouble:
    """What to do to one exchange: cut the answer after so many bytes, say something else, hold on before a
    byte, or lose the request on its way.
    """

    def __init__(
        self,
        *,
        cut: int | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        change: Callable[[bytes], bytes] | None = None,
        hold: tuple[int, threading.Event] | None = None,
        swallow: int | None = None,
    ) -> None:
        self.cut = cut
        self.status = status
        self.headers = headers or {}
        self.change = change
        self.hold = hold
        # So many bytes of the request's body reach the registry, then our connection ends.
        self.swallow = swallow


class Between:
    """Listens on loopback and passes everything on to `upstream` (`host:port`).

    `decide` is asked for each request and may return a Trouble.
    """

    def __init__(self, upstream: str, decide: Callable[[Passed], Trouble | None] = lambda _: None) -> None:
        self.passed: list[Passed] = []
        self.decide = decide
        self._uploads: dict[str, str] = {}
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
        trouble = self.decide(passed) or Trouble()
        length = int(handler.headers.get("Content-Length") or 0)
        if trouble.swallow is not None:
            self._lose(handler, upstream, length, trouble.swallow)
            return
        body = handler.rfile.read(length)
        passed.body_bytes = len(body)
        if trouble.status is not None:
            self._refuse(handler, trouble)
            return
        onward = http.client.HTTPConnection(upstream, timeout=30)
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in _HOP}
        path = handler.path
        if handler.command == "GET":
            path = self._uploads.get(path.partition("?")[0], path)
        onward.request(handler.command, path, body or None, headers)
        answer = onward.getresponse()
        content = answer.read()
        if trouble.change is not None:
            content = trouble.change(content)
        handler.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in _HOP:
                handler.send_header(key, value)
        said = answer.getheader("Content-Length") if handler.command == "HEAD" else str(len(content))
        handler.send_header("Content-Length", said or "0")
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

    def _lose(self, handler: BaseHTTPRequestHandler, upstream: str, length: int, keep: int) -> None:
        """The first `keep` bytes of the body reach the registry; then our connection breaks.

        Debian's registry keeps how far an upload came in its address and so cannot be asked by the old one;
        others keep it themselves, as this does here.
        """
        body = handler.rfile.read(min(keep, length))
        onward = http.client.HTTPConnection(upstream, timeout=30)
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in (*_HOP, "content-range")}
        onward.request(handler.command, handler.path, body, headers)
        answer = onward.getresponse()
        answer.read()
        self._uploads[handler.path.partition("?")[0]] = answer.getheader("Location") or ""
        onward.close()
        handler.close_connection = True

    @staticmethod
    def _refuse(handler: BaseHTTPRequestHandler, trouble: Trouble) -> None:
        handler.send_response(trouble.status or 500)
        for key, value in trouble.headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
