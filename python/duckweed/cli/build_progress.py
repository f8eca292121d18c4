"""How a build's progress is shown: lines for a log, a live picture on a terminal, JSON, or nothing.

The words and the layout are those that people know from BuildKit, and that tools parse.
"""

from __future__ import annotations

import sys
import time

from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from duckweed.build.progress import Vertex

_KINDS = ("auto", "plain", "tty", "rawjson", "quiet", "none")


def open_display(kind: str) -> Display:
    """The display of this name; `auto` is `tty` on a terminal. Raises UsageError."""
    if kind not in _KINDS:
        raise UsageError(f"unknown progress `{kind}`", "it is auto, plain, tty, rawjson or quiet")
    if kind in ("quiet", "none"):
        return Display()
    if kind == "rawjson":
        return RawJson(sys.stderr)
    if kind == "tty" or (kind == "auto" and sys.stderr.isatty()):
        from duckweed.cli.build_terminal import Terminal

        return Terminal(sys.stderr)
    return Plain(sys.stderr)


class Display:
    """Shows nothing; `show` is called with what happens, one at a time."""

    def show(self, kind: str, vertex: Vertex, data: bytes) -> None:
        """One event: begin, log, status, end."""

    def pause(self) -> None:
        """Leaves the terminal to somebody else."""

    def resume(self) -> None:
        """Takes it back."""

    def close(self) -> None:
        """The build is over."""


class Plain(Display):
    """A line for everything, each with its step's number."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._current: Vertex | None = None
        self._shown: set[int] = set()
        self._rest: dict[int, bytes] = {}

    def show(self, kind: str, vertex: Vertex, data: bytes) -> None:
        if kind == "begin":
            return  # its name may still change; it is shown with what comes first
        self._turn_to(vertex)
        if kind == "status":
            self._write(vertex, data.decode())
        elif kind == "log":
            self._log(vertex, data)
        else:
            self._end(vertex)

    def _turn_to(self, vertex: Vertex) -> None:
        if self._current is vertex:
            return
        if self._current is not None and not self._current.ended:
            self._out.write(f"#{self._current.number} ...\n\n")
        self._current = vertex
        self._write(vertex, vertex.name)

    def _write(self, vertex: Vertex, text: str) -> None:
        text = text.encode("utf-8", "replace").decode()
        self._out.write(f"#{vertex.number} {text}\n")
        self._out.flush()

    def _log(self, vertex: Vertex, data: bytes) -> None:
        data = self._rest.pop(vertex.number, b"") + data
        *lines, rest = data.split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r")
            self._write(vertex, f"{vertex.seconds:.3f} {text}".rstrip())
        if rest:
            self._rest[vertex.number] = rest

    def _end(self, vertex: Vertex) -> None:
        if self._rest.get(vertex.number):
            self._log(vertex, b"\n")
        if vertex.error:
            self._write(vertex, f"ERROR: {vertex.error}")
        elif vertex.is_cached:
            self._write(vertex, "CACHED")
        else:
            self._write(vertex, f"DONE {vertex.seconds:.1f}s")
        self._out.write("\n")
        self._out.flush()
        self._current = None


class RawJson(Display):
    """A JSON object a line, as BuildKit's client writes its status."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, kind: str, vertex: Vertex, data: bytes) -> None:
        import hashlib
        import json

        from duckweed.oci import timestamp

        def stamp(seconds: float) -> str:
            return timestamp.from_unix_ns(int(seconds * 10**9))

        digest = "sha256:" + hashlib.sha256(f"{vertex.number}\0{vertex.started}".encode()).hexdigest()
        document: dict[str, object]
        if kind == "log":
            import base64

            entry = {"vertex": digest, "stream": 1, "data": base64.b64encode(data).decode()}
            document = {"logs": [{**entry, "timestamp": stamp(time.time())}]}
        elif kind == "status":
            words = data.decode()
            document = {"statuses": [{"id": words, "vertex": digest, "timestamp": stamp(time.time())}]}
        else:
            state: dict[str, object] = {
                "digest": digest,
                "name": vertex.name,
                "started": stamp(vertex.started),
            }
            if vertex.ended:
                state["completed"] = stamp(vertex.ended)
            if vertex.is_cached:
                state["cached"] = True
            if vertex.error:
                state["error"] = vertex.error
            document = {"vertexes": [state]}
        self._out.write(json.dumps(document, separators=(",", ":")) + "\n")
        self._out.flush()
