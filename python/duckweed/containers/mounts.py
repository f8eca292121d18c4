"""Mounts as people ask for them: `-v`, `--mount` and `--tmpfs`, checked in Docker's words and reduced to one
form.

A `Mount` says what is wanted, not yet where it comes from: a volume's directory is found (or made) when
the container is created, because only then does it belong to something.
"""

# ruff: noqa: SIM905 (a list of words is read as one)

from __future__ import annotations

import os
import re

from duckweed.containers.quantities import parse_size
from duckweed.errors import UsageError

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_TMPFS_FLAGS = """
    ro rw exec noexec suid nosuid dev nodev sync async dirsync atime noatime diratime nodiratime
    relatime norelatime strictatime nostrictatime remount mand nomand silent loud
""".split()
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge")


class Mount:
    """One mount wanted by the user.

    `kind` is "bind", "volume" or "tmpfs"; `source` a host path, a volume's name ("" is anonymous) or "";
    `options` are tmpfs options; `mode` is what `inspect` shows; `via_mount` tells `--mount` from `-v`,
    because the first refuses a missing source and the second makes it.
    """

    __slots__ = (
        "kind",
        "source",
        "target",
        "read_only",
        "options",
        "mode",
        "propagation",
        "nocopy",
        "create_source",
        "recursive",
        "labels",
        "via_mount",
        "spec",
    )

    def __init__(self, kind: str, source: str, target: str) -> None:
        self.kind = kind
        self.source = source
        self.target = target
        self.read_only = False
        self.options: list[str] = []
        self.mode = ""
        self.propagation = ""
        self.nocopy = False
        self.create_source = False
        self.recursive = True
        self.labels: dict[str, str] = {}
        self.via_mount = False
        self.spec = ""


def parse_volume(spec: str) -> Mount:
    """Reads `-v`: `/in/container`, `name:/in/container[:opts]` or `/on/host:/in/container[:opts]`."""
    parts = spec.split(":")
    if len(parts) > 3:
        raise UsageError(
            f"invalid volume specification: '{spec}'", "write `[host path or name:]container path[:options]`"
        )
    if "" in parts:
        raise UsageError(f"invalid spec: {spec}: empty section between colons")
    source = parts[0] if len(parts) > 1 else ""
    target = _target(parts[1] if len(parts) > 1 else parts[0], f"invalid volume specification: '{spec}': ")
    kind = "bind" if source[:1] in ("/", ".", "~") else "volume"
    if kind == "bind":
        source = _host_path(source)
    elif source and not _VOLUME_NAME.match(source):
        raise _bad_name(source)
    mount = Mount(kind, source, target)
    mount.create_source = kind == "bind"
    mount.spec = ":".join([source, target, *parts[2:]]) if source else ""
    if len(parts) == 3:
        _volume_options(mount, parts[2])
    return mount


def _volume_options(mount: Mount, text: str) -> None:
    mount.mode = text
    seen: set[str] = set()
    for option in text.split(","):
        if option in ("ro", "rw"):
            group = "mode"
            mount.read_only = option == "ro"
        elif option in ("z", "Z"):
            group = "label"
        elif option in _PROPAGATION and mount.kind == "bind":
            group = "propagation"
            mount.propagation = option
        elif option == "nocopy" and mount.kind == "volume":
            group = "copy"
            mount.nocopy = True
        elif option in ("consistent", "cached", "delegated"):
            group = "consistency"
        else:
            raise UsageError(
                f"invalid mode: {text}",
                "options are `ro`, `rw`, `z`, `Z`, `nocopy` and a propagation such as `rslave`",
            )
        if group in seen:
            raise UsageError(f"invalid mode: {text}")
        seen.add(group)


def _bad_name(name: str) -> UsageError:
    return UsageError(
        f'create {name}: "{name}" includes invalid characters for a local volume name, '
        'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
        "If you intended to pass a host directory, use absolute path"
    )


def parse_tmpfs(spec: str) -> Mount:
    """Reads `--tmpfs /path[:options]`; Docker adds noexec, nosuid and nodev unless told otherwise."""
    path, _, text = spec.partition(":")
    mount = Mount("tmpfs", "", _target(path, f"invalid tmpfs mount `{spec}`: "))
    mount.mode = text
    given = [option for option in text.split(",") if option]
    for option in given:
        key, equals, _ = option.partition("=")
        if not (key in _TMPFS_VALUES if equals else key in _TMPFS_FLAGS):
            raise UsageError(f'invalid tmpfs option ["{option}"]')
    mount.read_only = "ro" in given
    mount.options = [
        name for name in ("noexec", "nosuid", "nodev") if name not in given and name[2:] not in given
    ] + given
    return mount


def parse_mount(spec: str) -> Mount:
    """Reads `--mount type=bind,source=/a,target=/b,readonly` (comma separated, quoted fields as in CSV)."""
    fields = _csv(spec)
    values: dict[str, str] = {}
    labels: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key not in (
            "readonly",
            "ro",
            "volume-nocopy",
            "bind-nonrecursive",
            "bind-create-src",
        ):
            raise _mount_error(spec, f"invalid field '{field}' must be a key=value pair")
        name = _MOUNT_KEYS.get(key)
        if name is None:
            raise _mount_error(spec, f"unexpected key '{key}' in '{field}'")
        if name == "label":
            label, _, text = value.partition("=")
            labels[label] = text
        values[name] = value if equals else "true"
    kind = values.pop("type", "volume").lower()
    if kind not in ("bind", "volume", "tmpfs"):
        raise _mount_error(spec, f"mount type unknown: '{kind}'")
    if not values.get("target"):
        raise _mount_error(spec, "target is required")
    return _mount_of(spec, kind, values, labels)


_MOUNT_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "consistency": "consistency",
    "bind-propagation": "bind-propagation",
    "bind-nonrecursive": "bind-nonrecursive",
    "bind-recursive": "bind-recursive",
    "bind-create-src": "bind-create-src",
    "volume-nocopy": "volume-nocopy",
    "volume-label": "label",
    "volume-driver": "volume-driver",
    "tmpfs-size": "tmpfs-size",
    "tmpfs-mode": "tmpfs-mode",
    "tmpfs-options": "tmpfs-options",
}


def _mount_of(spec: str, kind: str, values: dict[str, str], labels: dict[str, str]) -> Mount:
    for key in values:
        owner = key.partition("-")[0]
        if owner in ("bind", "volume", "tmpfs") and owner != kind:
            raise _mount_error(spec, f"cannot mix '{key}' with mount type '{kind}'")
    source = values.get("source", "")
    if kind == "tmpfs" and source:
        raise UsageError('invalid mount config for type "tmpfs": source must not be specified')
    if kind == "bind" and not source:
        raise UsageError('invalid mount config for type "bind": field Source must not be empty')
    if kind == "volume" and source and not _VOLUME_NAME.match(source):
        raise _bad_name(source)
    if values.get("volume-driver", "local") not in ("", "local"):
        raise UsageError(f"error looking up volume plugin {values['volume-driver']}: plugin not found")
    target = _target(values["target"], f'invalid mount config for type "{kind}": ')
    mount = Mount(kind, _host_path(source) if kind == "bind" else source, target)
    mount.via_mount = True
    mount.labels = labels
    mount.read_only = _flag(spec, "readonly", values)
    mount.nocopy = _flag(spec, "volume-nocopy", values)
    mount.create_source = _flag(spec, "bind-create-src", values)
    mount.recursive = (
        not _flag(spec, "bind-nonrecursive", values) and values.get("bind-recursive") != "disabled"
    )
    mount.propagation = values.get("bind-propagation", "")
    if mount.propagation and mount.propagation not in _PROPAGATION:
        raise _mount_error(spec, f"invalid propagation mode: {mount.propagation}")
    if kind == "tmpfs":
        mount.options = _tmpfs_options(spec, values)
    mount.mode = "ro" if mount.read_only and kind != "volume" else ("z" if kind == "volume" else "")
    return mount


def _tmpfs_options(spec: str, values: dict[str, str]) -> list[str]:
    options = ["noexec", "nosuid", "nodev"]
    if "tmpfs-size" in values:
        try:
            options.append(f"size={parse_size(values['tmpfs-size'])}")
        except UsageError:
            raise _mount_error(spec, f"invalid value for tmpfs-size: {values['tmpfs-size']}") from None
    if "tmpfs-mode" in values:
        if not re.fullmatch(r"[0-7]{1,4}", values["tmpfs-mode"]):
            raise _mount_error(spec, f"invalid value for tmpfs-mode: {values['tmpfs-mode']}")
        options.append(f"mode={values['tmpfs-mode']}")
    return options


def _flag(spec: str, key: str, values: dict[str, str]) -> bool:
    text = values.get(key, "false").lower()
    if text in ("true", "1", "t"):
        return True
    if text in ("false", "0", "f"):
        return False
    raise _mount_error(spec, f"invalid value for {key}: {values[key]}")


def _mount_error(spec: str, message: str) -> UsageError:
    return UsageError(f'invalid argument "{spec}" for "--mount" flag: {message}')


def _csv(spec: str) -> list[str]:
    if '"' not in spec:
        return spec.split(",")
    import csv

    return next(csv.reader([spec]), [])


def _target(path: str, prefix: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{prefix}invalid mount path: '{path}' mount path must be absolute")
    clean = os.path.normpath(path)
    clean = clean[1:] if clean.startswith("//") else clean
    if clean == "/":
        raise UsageError(f"{prefix}invalid specification: destination can't be '/'")
    return clean


def _host_path(path: str) -> str:
    if path == "~" or path.startswith("~/"):
        path = os.path.expanduser(path)
    return os.path.abspath(path)


def check_source(mount: Mount) -> None:
    """Makes a missing `-v` source a directory, as Docker does; refuses a missing `--mount` source."""
    try:
        os.stat(mount.source)
        return
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(
            f"cannot use bind source `{mount.source}`: {(error.strerror or '').lower()}"
        ) from None
    if not mount.create_source:
        raise UsageError(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )
    try:
        os.makedirs(mount.source, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"error while creating mount source path '{mount.source}': "
            f"mkdir {mount.source}: {(error.strerror or '').lower()}"
        ) from None
