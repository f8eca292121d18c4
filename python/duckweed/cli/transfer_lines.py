"""Transfer lines: one line for each layer, as Docker's client shows them.

On a terminal the lines stay in place and are painted ten times a second, with a bar while bytes move; the
painting thread only reads counters, so it costs the transfer nothing. Elsewhere each change is one line and
bars are left out.
"""

from __future__ import annotations

import os
import sys
import threading

from duckweed.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    Measure = Callable[[], "tuple[int, int]"]

_PAUSE_S = 0.1
_BAR = 50
_NARROW = 20


class TransferLines:
    """Lines by id, in the order of their first mention. Called from several threads."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._is_terminal = self._out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._lock = threading.Lock()
        self._words: dict[str, str] = {}
        self._measures: dict[str, Measure] = {}
        self._painted = 0
        self._ended = threading.Event()
        self._painter: threading.Thread | None = None

    def begin(self, title: str) -> None:
        """A new block of lines under this title."""
        with self._lock:
            self._finish_block()
            self._out.write(title + "\n")
            self._out.flush()
        if self._is_terminal and self._painter is None:
            self._painter = threading.Thread(target=self._paint_on, name="paint", daemon=True)
            self._painter.start()

    def has(self, name: str) -> bool:
        """Whether a line of this id is there."""
        return name in self._words

    def say(self, name: str, words: str) -> None:
        """Sets a line's words."""
        with self._lock:
            self._measures.pop(name, None)
            if self._words.get(name) == words:
                return
            self._words[name] = words
            if not self._is_terminal:
                self._out.write(f"{name}: {words}\n")
                self._out.flush()

    def follow(self, name: str, words: str, measure: Measure) -> None:
        """Shows a bar behind the words while bytes move; `measure` tells how many of how many."""
        with self._lock:
            self._words[name] = words
            self._measures[name] = measure

    def end(self, text: str) -> None:
        """Closes the block with these lines."""
        with self._lock:
            self._finish_block()
            self._out.write(text + "\n")
            self._out.flush()

    def close(self) -> None:
        """Paints for the last time."""
        self._ended.set()
        if self._painter is not None:
            self._painter.join()
        with self._lock:
            self._finish_block()

    def _finish_block(self) -> None:
        if self._is_terminal:
            self._paint()
        self._painted = 0
        self._words.clear()
        self._measures.clear()

    def _paint_on(self) -> None:
        while not self._ended.wait(_PAUSE_S):
            with self._lock:
                self._paint()

    def _paint(self) -> None:
        if not self._words:
            return
        try:
            size = os.get_terminal_size(self._out.fileno())
            columns, rows = size.columns or 80, size.lines or 24
        except OSError:
            columns, rows = 80, 24
        # Lines that have scrolled out of the window cannot be reached any more: only the last ones are kept.
        shown = list(self._words.items())[-max(rows - 2, 1) :]
        text = f"\x1b[{self._painted}A" if self._painted else ""
        for name, words in shown:
            text += f"\r\x1b[2K{self._line(name, words, columns)[: columns - 1]}\n"
        self._painted = len(shown)
        self._out.write(text)
        self._out.flush()

    def _line(self, name: str, words: str, columns: int) -> str:
        measure = self._measures.get(name)
        if measure is None:
            return f"{name}: {words}"
        done, whole = measure()
        amount = f"{human_size(done)}/{human_size(whole)}"
        width = min(_BAR, columns - len(name) - len(words) - len(amount) - 8)
        if width < _NARROW or not whole:
            return f"{name}: {words} {amount}"
        filled = min(width, done * width // whole)
        bar = ("=" * filled + ">")[:width].ljust(width)
        return f"{name}: {words} [{bar}]  {amount}"
