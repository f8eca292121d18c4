"""`RUN --mount=type=...`: what a RUN sees besides the image, and what must never stay in it."""

from __future__ import annotations

from difflib import get_close_matches

from duckweed.containers.quantities import parse_size
from duckweed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_KEYS = {
    "type": "type",
    "from": "from",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "readwrite": "readwrite",
    "rw": "readwrite",
    "required": "required",
    "size": "size",
    "id": "id",
    "sharing": "sharing",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "env": "env",
}
_ALONE = ("readonly", "readwrite", "required")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class RunMount:
    """One mount of a RUN. `kind` is bind, cache, tmpfs, secret or ssh; numbers are None when not given."""

    __slots__ = (
        "env",
        "gid",
        "id",
        "kind",
        "mode",
        "origin",
        "read_only",
        "required",
        "sharing",
        "size",
        "source",
        "target",
        "uid",
    )

    def __init__(self) -> None:
        self.kind = "bind"
        self.origin = ""  # from=
        self.source = ""
        self.target = ""
        self.read_only = True
        self.required = False
        self.size = 0
        self.id = ""
        self.sharing = ""
        self.mode: int | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        self.env: str | None = None


def parse_mount(text: str, expand: Callable[[str], str]) -> RunMount:
    """Reads the value of `--mount`, each part expanded. Raises ValueError."""
    mount = RunMount()
    access: bool | None = None
    values: dict[str, str] = {}
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        name = _KEYS.get(key.lower())
        if name is None:
            raise ValueError(_unknown_key(key.lower(), field))
        if not equals and name not in _ALONE:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        value = expand(value) if equals else "true"
        if name in ("readonly", "readwrite"):
            access = _truth(key, value) == (name == "readonly")
            continue
        values[name] = value
    mount.kind = _one_of("mount type", values.get("type", "bind").lower(), _KINDS)
    _fill(mount, values)
    mount.read_only = access if access is not None else mount.kind not in ("cache", "tmpfs")
    _check(mount, values)
    return mount


def check_mount(text: str) -> None:
    """Refuses what can be refused before variables have values. Raises ValueError."""
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        if _KEYS.get(key.lower()) is None:
            raise ValueError(_unknown_key(key.lower(), field))
        if key.lower() == "from" and "$" in value[:-1]:
            raise ValueError("'from' doesn't support variable expansion, define alias stage instead")
    if "$" not in text:
        parse_mount(text, lambda word: word)


def split_fields(text: str) -> list[str]:
    """The comma-separated fields, quoted as in CSV."""
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"failed to parse csv mounts: {error}") from None


def _fill(mount: RunMount, values: dict[str, str]) -> None:
    mount.origin = values.get("from", "")
    mount.source = values.get("source", "")
    mount.target = values.get("target", "")
    mount.id = values.get("id", "")
    mount.env = values.get("env")
    if "required" in values:
        if mount.kind not in ("secret", "ssh"):
            raise ValueError(f"unexpected key 'required' for mount type '{mount.kind}'")
        mount.required = _truth("required", values["required"])
    if "size" in values:
        if mount.kind != "tmpfs":
            raise ValueError(f"unexpected key 'size' for mount type '{mount.kind}'")
        try:
            mount.size = parse_size(values["size"])
        except UsageError:
            raise ValueError(f"invalid value for size: {values['size']}") from None
    if "sharing" in values:
        mount.sharing = _one_of("sharing value", values["sharing"].lower(), _SHARING)
    mount.mode = _number("mode", values, 8)
    mount.uid = _number("uid", values, 10)
    mount.gid = _number("gid", values, 10)


def _check(mount: RunMount, values: dict[str, str]) -> None:
    if mount.kind not in ("secret", "ssh", "cache"):
        for name in ("mode", "uid", "gid"):
            if name in values:
                raise ValueError(f'{name} not allowed for "{mount.kind}" type mounts')
    if mount.kind == "secret":
        if mount.origin:
            raise ValueError("secret mount should not have a from")
        if mount.sharing:
            raise ValueError("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id):
            raise ValueError("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise ValueError("both source and id can't be set")
    if mount.sharing and mount.kind != "cache":
        raise ValueError(f"invalid cache sharing set for {mount.kind} mount")
    if not mount.target and mount.kind in ("bind", "cache", "tmpfs"):
        raise ValueError(f"a {mount.kind} mount needs a target")


def _number(name: str, values: dict[str, str], base: int) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not text or text.strip(digits) or int(text, base) >= 1 << 32:
        raise ValueError(f"invalid value {text} for {name}")
    return int(text, base)


def _truth(key: str, text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"invalid value for {key}: {text}")


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        near = get_close_matches(value, allowed, n=1)
        raise ValueError(
            f'unsupported {what} "{value}"'
            + (f" (did you mean {near[0]}?)" if near else f": it is one of {', '.join(allowed)}")
        )
    return value


def _unknown_key(key: str, field: str) -> str:
    near = get_close_matches(key, list(_KEYS), n=1)
    return f"unexpected key '{key}' in '{field}'" + (f" (did you mean {near[0]}?)" if near else "")
