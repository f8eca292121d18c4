"""The live picture of a build on a terminal: a line for each step, the running ones with their last output.

It is drawn anew ten times a second over what was drawn before; when the build is over the last picture stays.
"""

from __future__ import annotations

import os
import threading
import time

from duckweed.cli.build_progress import Display

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from duckweed.build.progress import Vertex

_PERIOD_S = 0.1
_LOG_LINES = 6
_BAR = 20
_BLUE, _RED, _GREY, _PLAIN = "\x1b[34m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


class Terminal(Display):
    """Draws on `out`, in a thread of its own."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._vertices: list[Vertex] = []
        self._lines: dict[int, list[str]] = {}
        self._partial: dict[int, str] = {}
        self._lock = threading.Lock()
        self._started = time.time()
        self._drawn = 0
        self._is_paused = False
        self._over = threading.Event()
        self._colour = "NO_COLOR" not in os.environ
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def show(self, kind: str, vertex: Vertex, data: bytes) -> None:
        with self._lock:
            if kind == "begin":
                self._vertices.append(vertex)
            elif kind == "log":
                text = self._partial.pop(vertex.number, "") + data.decode("utf-8", "replace")
                *lines, rest = text.replace("\r\n", "\n").split("\n")
                self._partial[vertex.number] = rest
                kept = self._lines.setdefault(vertex.number, [])
                kept += [line.rpartition("\r")[2] for line in lines]
                del kept[:-_LOG_LINES]
            elif kind == "status":
                self._lines.setdefault(-vertex.number, []).append(data.decode())

    def _run(self) -> None:
        while not self._over.wait(_PERIOD_S):
            with self._lock:
                if not self._is_paused:
                    self._draw(final=False)

    def pause(self) -> None:
        with self._lock:
            self._is_paused = True
            self._draw(final=True)
            self._drawn = 0

    def resume(self) -> None:
        with self._lock:
            self._is_paused = False

    def close(self) -> None:
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        self._draw(final=True)

    def _draw(self, *, final: bool) -> None:
        from shutil import get_terminal_size

        size = get_terminal_size((80, 24))
        ended = sum(bool(vertex.ended) for vertex in self._vertices)
        failed = any(vertex.error for vertex in self._vertices)
        word = "" if not final or self._is_paused else " ERROR" if failed else " FINISHED"
        head = f"[+] Building {time.time() - self._started:.1f}s ({ended}/{len(self._vertices)}){word}"
        lines = [(head, "")]
        for vertex in self._vertices:
            lines += self._vertex(vertex, size.columns)
        if not final and len(lines) > size.lines - 1:
            lines = [lines[0], *lines[-(size.lines - 2) :]]
        text = f"\x1b[{self._drawn}A" if self._drawn else ""
        for line, colour in lines:
            shown = line[: size.columns]
            if self._colour and colour:
                shown = f"{colour}{shown}{_PLAIN}"
            text += f"\r{shown}\x1b[K\n"
        self._out.write(text + "\x1b[J")
        self._out.flush()
        self._drawn = len(lines)

    def _vertex(self, vertex: Vertex, columns: int) -> list[tuple[str, str]]:
        colour = _RED if vertex.error else _BLUE if vertex.ended else ""
        state = "CACHED " if vertex.is_cached else "ERROR " if vertex.error else ""
        lines = [(_timed(f" => {state}{vertex.name}", vertex.seconds, columns), colour)]
        for status in self._lines.get(-vertex.number, ()):
            lines.append((_timed(f" => => {status}", vertex.seconds, columns), colour))
        for name, ask in list(vertex.transfers.items()):
            here, whole = ask()
            bar = ("=" * (here * _BAR // max(whole, 1))).ljust(_BAR)
            text = f" => => {name[:19]} [{bar}] {here / 1e6:.2f}MB / {whole / 1e6:.2f}MB"
            lines.append((_timed(text, vertex.seconds, columns), colour))
        if not vertex.ended:
            for line in self._lines.get(vertex.number, ()):
                lines.append((f" => => # {_printable(line)}", _GREY))
        return lines


def _timed(text: str, seconds: float, columns: int) -> str:
    timer = f"{seconds:.1f}s"
    room = columns - len(timer) - 1
    text = _printable(text)
    text = text if len(text) <= room else text[: room - 3] + "..."
    return f"{text.ljust(room)} {timer}"


def _printable(text: str) -> str:
    """No control characters: a step's output must not move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
