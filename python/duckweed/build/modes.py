"""`--chmod`: an octal number, or chmod(1)'s symbols such as `u=rwX,go=rX`."""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)\Z")
_ACTION = re.compile(r"([-+=])([rwxXst]*|[ugo])")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_SHIFT = {"u": 6, "g": 3, "o": 0}


class Chmod:
    """`number` for the octal form, else None; `apply` gives the new permission bits of an old mode."""

    __slots__ = ("_clauses", "number")

    def __init__(self, text: str) -> None:
        self.number: int | None = None
        self._clauses: list[tuple[str, str]] = []
        if re.fullmatch(r"[0-7]+", text) and int(text, 8) <= 0o7777:
            self.number = int(text, 8)
            return
        for clause in text.split(","):
            match = _CLAUSE.match(clause)
            if match is None:
                raise ValueError(
                    f"invalid chmod parameter: '{text}'."
                    " it should be octal string and between 0 and 07777, or symbols such as u=rwX,go=rX"
                )
            self._clauses.append((match[1] or "a", match[2]))

    @property
    def for_directories_made(self) -> int:
        """The mode of directories that a copy makes on its way."""
        return 0o755 if self.number is None else self.number

    def apply(self, mode: int, is_directory: bool) -> int:
        """The new permission bits."""
        if self.number is not None:
            return self.number
        for who, actions in self._clauses:
            people = "ugo" if "a" in who else who
            for sign, what in _ACTION.findall(actions):
                mode = _changed(mode, people, sign, what, is_directory)
        return mode


def _changed(mode: int, people: str, sign: str, what: str, is_directory: bool) -> int:
    mask = 0
    for person in people:
        mask |= _WHO[person]
    if what in ("u", "g", "o"):
        three = mode >> _SHIFT[what] & 7
        bits = three << 6 | three << 3 | three
    else:
        bits = 0
        for letter in what:
            if letter == "X":
                bits |= 0o111 if is_directory or mode & 0o111 else 0
            else:
                bits |= _BITS[letter]
    bits &= mask if "t" not in what else mask | 0o1000
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    return mode & ~mask | bits
