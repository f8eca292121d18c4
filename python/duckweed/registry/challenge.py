"""Challenges: what a registry says it wants to see, `WWW-Authenticate` (RFC 9110 §11.6.1), read. Pure."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?=\s|,|\Z)(?!\s*=)")
_PARAMETER = re.compile(r"""\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))""")


class Challenge:
    """One scheme (lower case) and its parameters (names in lower case)."""

    __slots__ = ("parameters", "scheme")

    def __init__(self, scheme: str, parameters: dict[str, str]) -> None:
        self.scheme = scheme
        self.parameters = parameters


def read_challenges(value: str) -> list[Challenge]:
    """All challenges of one header's value; what cannot be read ends the list.

    >>> one = read_challenges('Bearer realm="https://auth.example/token",service="r",scope="a:b:pull,push"')[0]
    >>> one.scheme, one.parameters["scope"]
    ('bearer', 'a:b:pull,push')
    """
    found: list[Challenge] = []
    position = 0
    while position < len(value):
        parameter = _PARAMETER.match(value, position) if found else None
        if parameter is not None:
            name, quoted, plain = parameter.groups()
            text = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1].parameters.setdefault(name.lower(), text)
            position = parameter.end()
            continue
        scheme = _SCHEME.match(value, position)
        if scheme is None:
            break
        found.append(Challenge(scheme.group(1).lower(), {}))
        position = scheme.end()
    return found


def best_challenge(values: list[str]) -> Challenge | None:
    """The challenge to answer: a bearer token is preferred to sending the password again and again."""
    all_of_them = [one for value in values for one in read_challenges(value)]
    for scheme in ("bearer", "basic"):
        for one in all_of_them:
            if one.scheme == scheme and (scheme == "basic" or one.parameters.get("realm")):
                return one
    return None
