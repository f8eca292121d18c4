"""What a user asks of a container, parsed and checked once for the command line and for scripts alike.

An `Options` holds finished values only: numbers instead of `64m`, `Mount`s instead of `a:b:ro`. Its
defaults are class attributes, so that asking for nothing costs nothing. Each option has one small reader
in `_READERS`.
"""

from __future__ import annotations

from duckweed.containers.capabilities import parse_capability
from duckweed.containers.environment import parse_environment, parse_labels, read_file
from duckweed.containers.limits import parse_ulimit
from duckweed.containers.mounts import Mount, parse_mount, parse_tmpfs, parse_volume
from duckweed.containers.names import check_name
from duckweed.containers.network import HOST, is_address, is_named, parse_host, parse_network, parse_server
from duckweed.containers.ports import parse_expose, parse_publish
from duckweed.containers.quantities import parse_size
from duckweed.containers.signals import parse_signal
from duckweed.errors import Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

DEFAULT_SHM_BYTES = 64 * 1024 * 1024


class Options:
    """The checked request. `None` and empty mean "as the image says" or "Docker's default"."""

    name: str = ""
    command: Sequence[str] | None = None
    entrypoint: Sequence[str] | None = None  # [] resets the image's
    interactive = False
    tty = False
    detach = False
    rm = False
    env: Sequence[str] = ()
    env_file: Sequence[str] = ()
    label: Mapping[str, str] = {}
    label_file: Mapping[str, str] = {}
    workdir = ""
    user = ""
    group_add: Sequence[str] = ()
    volume: Sequence[Mount] = ()
    mount: Sequence[Mount] = ()
    tmpfs: Sequence[Mount] = ()
    read_only = False
    hostname = ""
    domainname = ""
    add_host: Sequence[tuple[str, str]] = ()
    dns: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    dns_option: Sequence[str] = ()
    network = "default"
    more_networks: Sequence[str] = ()
    network_alias: Sequence[str] = ()
    ip = ""
    ip6 = ""
    allow_host_loopback = False
    remap_ports = False
    publish: Sequence[Mapping[str, str]] = ()
    publish_all = False
    init = False
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    privileged = False
    seccomp: str | dict[str, Any] = "default"  # or "unconfined", or a profile
    no_new_privileges = True
    security_opt: Sequence[str] = ()
    ulimit: Sequence[tuple[str, int, int]] = ()
    shm_size = DEFAULT_SHM_BYTES
    stop_signal: int | None = None
    stop_timeout: int | None = None
    attach: Sequence[str] = ()
    cidfile = ""
    pull = "missing"
    platform = ""
    isolation = "auto"
    scratch = ""
    root_emulation = "auto"
    refuses_setuid = False  # no-new-privileges was asked for, so emulated setuid programs keep it too
    restart = "no"
    log_driver = "json-file"
    log_opt: Mapping[str, str] = {}
    expose: Sequence[str] = ()
    notes: list[str]

    def __init__(self) -> None:
        self.notes = []

    @property
    def mounts(self) -> list[Mount]:
        """All mounts asked for, `-v` first; a target named twice is an error."""
        result = [*self.volume, *self.mount, *self.tmpfs]
        seen: set[str] = set()
        for mount in result:
            if mount.target in seen:
                raise UsageError(f"duplicate mount point: {mount.target}")
            seen.add(mount.target)
        return result


def parse(command: str | Sequence[str] | None, given: Mapping[str, Any]) -> Options:
    """Checks `given` (Docker's long flag names, `_` for `-`). Raises UsageError or Unsupported, in one line.

    `None` is "not given", whatever the option.
    """
    options = Options()
    if command is not None:
        options.command = parse_command(command, "command")
    for name, value in given.items():
        reader = _READERS.get(name)
        if reader is None:
            raise UsageError(f"unknown flag: --{name.replace('_', '-')}", "see `duckweed run --help`")
        if value is None or (value is False and name not in _FALSE_MATTERS):
            continue
        reader(options, name, value)
    if given:
        _check_together(options)
    return options


_FALSE_MATTERS = ("init",)


def parse_command(value: str | Sequence[str], what: str) -> list[str]:
    """A list of words; a single string is split as a shell would (no variables, no globs)."""
    if isinstance(value, str):
        import shlex

        try:
            words = shlex.split(value)
        except ValueError as error:
            raise UsageError(f"cannot read {what} `{value}`: {str(error).lower()}") from None
    else:
        words = [
            word.decode(errors="surrogateescape") if isinstance(word, bytes) else str(word) for word in value
        ]
    for word in words:
        if "\0" in word:
            raise UsageError(f"{what} contains a NUL")
    return words


def _check_together(options: Options) -> None:
    if options.rm and options.restart != "no":
        raise UsageError("conflicting options: cannot specify both --restart and --rm")

    if options.network == HOST and (options.publish or options.publish_all):
        options.publish = ()
        options.publish_all = False
        options.notes.append("published ports are discarded when using host network mode")


def _text(options: Options, name: str, value: object) -> None:
    text = str(value)
    if "\0" in text or "\n" in text:
        raise UsageError(f'invalid argument "{text!r}" for "--{name.replace("_", "-")}" flag')
    setattr(options, name, text)


def _boolean(options: Options, name: str, value: object) -> None:
    if isinstance(value, str):
        lowered = value.lower()
        if lowered not in ("true", "false", "1", "0", "t", "f"):
            raise UsageError(
                f'invalid argument "{value}" for "--{name.replace("_", "-")}" flag: '
                f'strconv.ParseBool: parsing "{value}": invalid syntax'
            )
        value = lowered in ("true", "1", "t")
    setattr(options, name, bool(value))


def _many(value: object) -> list[Any]:
    """A single value where a list is expected is a list of one."""
    if isinstance(value, (str, bytes, int, float)):
        return [value]
    return list(value)  # type: ignore[call-overload,no-any-return]


def _texts(options: Options, name: str, value: object) -> None:
    setattr(options, name, [str(item) for item in _many(value)])


def _name(options: Options, name: str, value: object) -> None:
    if value != "":
        options.name = check_name(str(value))


def _entrypoint(options: Options, name: str, value: Any) -> None:
    # On the command line an entrypoint is one word, even with spaces in it; "" takes the image's away.
    if isinstance(value, str):
        options.entrypoint = [value] if value else []
    else:
        options.entrypoint = parse_command(value, "entrypoint")


def _env(options: Options, name: str, value: Any) -> None:
    options.env = parse_environment(value)


def _env_file(options: Options, name: str, value: Any) -> None:
    options.env_file = [line for path in _paths(value) for line in read_file(path, inherit=True)]


def _label(options: Options, name: str, value: Any) -> None:
    options.label = parse_labels(value)


def _label_file(options: Options, name: str, value: Any) -> None:
    options.label_file = parse_labels(
        [line for path in _paths(value) for line in read_file(path, inherit=False)]
    )


def _paths(value: Any) -> list[str]:
    import os

    return [os.fspath(path) for path in (_many(value) if not hasattr(value, "__fspath__") else [value])]


def _workdir(options: Options, name: str, value: object) -> None:
    text = str(value)
    if text and not text.startswith("/"):
        raise UsageError(f"the working directory '{text}' is invalid, it needs to be an absolute path")
    options.workdir = text


def _volume(options: Options, name: str, value: Any) -> None:
    if hasattr(
        value, "items"
    ):  # docker-py's shape: {source: {"bind": target, "mode": "ro"}} or {source: target}
        specs = []
        for source, target in value.items():
            if isinstance(target, str):
                specs.append(f"{source}:{target}")
            else:
                specs.append(f"{source}:{target['bind']}:{target.get('mode') or 'rw'}")
        value = specs
    options.volume = [parse_volume(str(spec)) for spec in _many(value)]


def _mount(options: Options, name: str, value: Any) -> None:
    options.mount = [parse_mount(str(spec)) for spec in _many(value)]


def _tmpfs(options: Options, name: str, value: Any) -> None:
    if hasattr(value, "items"):
        value = [f"{path}:{text}" if text else path for path, text in value.items()]
    options.tmpfs = [parse_tmpfs(str(spec)) for spec in _many(value)]


def _hostname(options: Options, name: str, value: object) -> None:
    text = str(value)
    if (
        len(text.encode()) > 63
        or not text.replace(".", "").replace("-", "").replace("_", "").isalnum()
        and text
    ):
        raise UsageError(f"invalid hostname format: {text}")
    setattr(options, name, text)


def _add_host(options: Options, name: str, value: Any) -> None:
    if hasattr(value, "items"):
        value = [f"{host}:{address}" for host, address in value.items()]
    options.add_host = [parse_host(str(entry)) for entry in _many(value)]


def _dns(options: Options, name: str, value: Any) -> None:
    options.dns = [parse_server(str(entry)) for entry in _many(value)]


def _network(options: Options, name: str, value: object) -> None:
    options.network, *options.more_networks = [_one_network(options, str(one)) for one in _many(value)] or [
        ""
    ]
    if options.more_networks and any(not is_named(one) for one in (options.network, *options.more_networks)):
        raise UsageError(
            "conflicting options: only networks made with `duckweed network create` can be combined",
            "name one of `bridge`, `host` and `none` alone",
        )


def _one_network(options: Options, text: str) -> str:
    """A network's name, or Docker's long form `name=web,alias=www,ip=10.89.0.9`."""
    if "=" not in text:
        return parse_network(text)
    name = ""
    for part in text.split(","):
        key, _, word = part.partition("=")
        if key == "name":
            name = word
        elif key == "alias":
            options.network_alias = [*options.network_alias, word]
        elif key in ("ip", "ip6"):
            _address(options, key, word)
        else:
            raise UsageError(f'invalid argument "{text}" for "--network" flag: invalid field {key}')
    if not name:
        raise UsageError(f'invalid argument "{text}" for "--network" flag: network name is missing')
    return parse_network(name)


def _address(options: Options, name: str, value: object) -> None:
    text = str(value)
    if not is_address(text) or (":" in text) != (name == "ip6"):
        raise UsageError(f"invalid IPv{6 if name == 'ip6' else 4} address: {text}")
    setattr(options, name, text)


def _expose(options: Options, name: str, value: Any) -> None:
    options.expose = [key for entry in _many(value) for key in parse_expose(str(entry))]


def _network_alias(options: Options, name: str, value: Any) -> None:
    options.network_alias = [*options.network_alias, *(str(entry) for entry in _many(value))]


def _publish(options: Options, name: str, value: Any) -> None:
    options.publish = [parse_publish(str(entry)) for entry in _many(value)]


def _cap_add(options: Options, name: str, value: Any) -> None:
    options.cap_add = [parse_capability(str(item), "CapAdd") for item in _many(value)]


def _cap_drop(options: Options, name: str, value: Any) -> None:
    options.cap_drop = [parse_capability(str(item), "CapDrop") for item in _many(value)]


def _security_opt(options: Options, name: str, value: Any) -> None:
    options.security_opt = [str(item) for item in _many(value)]
    for entry in options.security_opt:
        key, separator, text = entry.partition("=")
        if not separator:
            key, separator, text = entry.partition(":")
        if key == "no-new-privileges":
            if text.lower() not in ("", "true", "false"):
                raise UsageError(f'invalid --security-opt: "{entry}"')
            options.no_new_privileges = options.refuses_setuid = text.lower() != "false"
        elif key == "seccomp" and text:
            if text in ("unconfined", "builtin"):
                options.seccomp = "unconfined" if text == "unconfined" else "default"
            else:
                from duckweed.containers.seccomp import read_profile

                options.seccomp = read_profile(text)
        elif key in ("label", "apparmor") and separator:
            options.notes.append(f"`--security-opt {entry}` has no effect: {key} profiles need root")
        elif key == "systempaths" and text == "unconfined":
            options.notes.append("`--security-opt systempaths=unconfined` has no effect in this release")
        else:
            raise UsageError(f'invalid --security-opt: "{entry}"')


def _ulimit(options: Options, name: str, value: Any) -> None:
    if hasattr(value, "items"):
        value = [f"{key}={limit}" for key, limit in value.items()]
    limits = {limit[0]: limit for limit in (parse_ulimit(str(entry)) for entry in _many(value))}
    options.ulimit = list(limits.values())


def _shm_size(options: Options, name: str, value: Any) -> None:
    size = parse_size(value, "shm-size")
    options.shm_size = size or DEFAULT_SHM_BYTES


def _stop_signal(options: Options, name: str, value: Any) -> None:
    if value != "":
        options.stop_signal = parse_signal(value)


def _stop_timeout(options: Options, name: str, value: Any) -> None:
    try:
        options.stop_timeout = int(value)
    except ValueError:
        raise UsageError(
            f'invalid argument "{value}" for "--stop-timeout" flag: '
            f'strconv.ParseInt: parsing "{value}": invalid syntax'
        ) from None


def _attach(options: Options, name: str, value: Any) -> None:
    options.attach = [str(item).lower() for item in _many(value)]
    for stream in options.attach:
        if stream not in ("stdin", "stdout", "stderr"):
            raise UsageError(
                f'invalid argument "{stream}" for "-a, --attach" flag: '
                "valid streams are STDIN, STDOUT and STDERR"
            )


def _choice(*words: str) -> Callable[[Options, str, object], None]:
    def read(options: Options, name: str, value: object) -> None:
        text = str(value)
        if text not in words:
            flag = name.replace("_", "-")
            raise UsageError(
                f'invalid argument "{text}" for "--{flag}" flag',
                f"`--{flag}` is one of {', '.join(f'`{word}`' for word in words)}",
            )
        setattr(options, name, text)

    return read


def _isolation(options: Options, name: str, value: object) -> None:
    text = str(value) or "auto"
    _choice("auto", "default", "userns", "trap")(options, name, text)
    options.isolation = "auto" if text == "default" else text


def _restart(options: Options, name: str, value: object) -> None:
    text = str(value) or "no"
    policy, colon, count = text.partition(":")
    if policy not in ("no", "always", "unless-stopped", "on-failure") or (colon and not count.isdigit()):
        raise UsageError(
            f"invalid restart policy: unknown policy '{text}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy != "no":
        raise Unsupported(
            f"restart policy `{policy}` is not in this release",
            "leave `--restart` out and start it again with `duckweed start`",
        )


def _log_opt(options: Options, name: str, value: Any) -> None:
    options.log_opt = parse_labels(value)
    for key, text in options.log_opt.items():
        if key == "max-size":
            if text != "-1":
                parse_size(text)
        elif key == "max-file":
            if not text.isdigit() or int(text) < 1:
                raise UsageError(f"invalid log opt max-file: {text}")
        elif key not in ("labels", "tag", "env", "mode", "compress"):
            raise UsageError(f"unknown log opt '{key}' for json-file log driver")


_READERS: dict[str, Callable[[Options, str, Any], None]] = {
    "name": _name,
    "entrypoint": _entrypoint,
    "interactive": _boolean,
    "tty": _boolean,
    "detach": _boolean,
    "rm": _boolean,
    "env": _env,
    "env_file": _env_file,
    "label": _label,
    "label_file": _label_file,
    "workdir": _workdir,
    "user": _text,
    "group_add": _texts,
    "volume": _volume,
    "mount": _mount,
    "tmpfs": _tmpfs,
    "read_only": _boolean,
    "hostname": _hostname,
    "domainname": _hostname,
    "add_host": _add_host,
    "dns": _dns,
    "dns_search": _texts,
    "dns_option": _texts,
    "network": _network,
    "net": _network,
    "publish": _publish,
    "publish_all": _boolean,
    "expose": _expose,
    "network_alias": _network_alias,
    "ip": _address,
    "ip6": _address,
    "allow_host_loopback": _boolean,
    "remap_ports": _boolean,
    "init": _boolean,
    "cap_add": _cap_add,
    "cap_drop": _cap_drop,
    "privileged": _boolean,
    "security_opt": _security_opt,
    "ulimit": _ulimit,
    "shm_size": _shm_size,
    "stop_signal": _stop_signal,
    "stop_timeout": _stop_timeout,
    "attach": _attach,
    "cidfile": _text,
    "pull": _choice("missing", "always", "never"),
    "platform": _text,
    "isolation": _isolation,
    "scratch": _text,
    "root_emulation": _choice("auto", "off", "owners", "full"),
    "restart": _restart,
    "log_driver": _choice("json-file", "none"),
    "log_opt": _log_opt,
}
