"""`docker inspect`'s dict: what was asked for at create, and what has become of it.

`config_of` and `host_config_of` are written into container.json once; `inspect` joins them with the state
of now.
"""

from __future__ import annotations

from duckweed.containers.mount_points import shown
from duckweed.containers.signals import signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from duckweed.containers.options import Options
    from duckweed.containers.state import State


def config_of(
    options: Options, image: str, config: Mapping[str, Any], environment: Sequence[str], hostname: str
) -> dict[str, Any]:
    """The `Config` part: the image's config with the user's words laid over it."""
    attach = options.attach or (() if options.detach else ("stdout", "stderr"))
    labels = {**(config.get("Labels") or {}), **options.label_file, **options.label}
    volumes = dict(config.get("Volumes") or {})
    result = {
        "Hostname": hostname,
        "Domainname": options.domainname,
        "User": options.user or config.get("User") or "",
        "AttachStdin": options.interactive
        and not options.detach
        and (not options.attach or "stdin" in attach),
        "AttachStdout": "stdout" in attach,
        "AttachStderr": "stderr" in attach,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and not options.detach,
        "Env": list(environment),
        "Cmd": _command(options, config),
        "Image": image,
        "Volumes": volumes or None,
        "WorkingDir": options.workdir or config.get("WorkingDir") or "",
        "Entrypoint": list(options.entrypoint)
        if options.entrypoint is not None
        else config.get("Entrypoint"),
        "OnBuild": None,
        "Labels": labels,
    }
    exposed = {**(config.get("ExposedPorts") or {}), **{port: {} for port in options.expose}}
    if exposed:
        result["ExposedPorts"] = exposed
    if options.stop_signal is not None:
        result["StopSignal"] = signal_name(options.stop_signal)
    elif config.get("StopSignal"):
        result["StopSignal"] = config["StopSignal"]
    if options.stop_timeout is not None:
        result["StopTimeout"] = options.stop_timeout
    return result


def _command(options: Options, config: Mapping[str, Any]) -> list[str] | None:
    if options.command:
        return list(options.command)
    return None if options.entrypoint is not None else config.get("Cmd")


def host_config_of(options: Options) -> dict[str, Any]:
    """The `HostConfig` part."""
    return {
        "Binds": [mount.spec for mount in options.volume if mount.spec] or None,
        "ContainerIDFile": options.cidfile,
        "LogConfig": {"Type": options.log_driver, "Config": dict(options.log_opt)},
        "NetworkMode": options.network,
        "PortBindings": _bindings(options),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": options.rm,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "CgroupnsMode": "private",
        "Dns": list(options.dns),
        "DnsOptions": list(options.dns_option),
        "DnsSearch": list(options.dns_search),
        "ExtraHosts": [f"{name}:{address}" for name, address in options.add_host] or None,
        "GroupAdd": list(options.group_add) or None,
        "IpcMode": "private",
        "Links": None,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": list(options.security_opt) or None,
        "Tmpfs": {mount.target: mount.mode for mount in options.tmpfs} or None,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": options.shm_size,
        "Runtime": "duckweed-runtime",
        "Isolation": options.isolation if options.isolation != "auto" else "",
        "Ulimits": [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in options.ulimit]
        or None,
        "Init": options.init or None,
        "Mounts": [_mount_request(mount) for mount in options.mount] or None,
    }


def _bindings(options: Options) -> dict[str, Any]:
    if not options.publish:
        return {}
    from duckweed.containers.ports import bindings

    return bindings(options.publish)


def _mount_request(mount: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"Type": mount.kind, "Target": mount.target}
    if mount.source:
        result["Source"] = mount.source
    if mount.read_only:
        result["ReadOnly"] = True
    return result


def state_of(state: State) -> dict[str, Any]:
    """The `State` part."""
    return {
        "Status": state.status,
        "Running": state.running,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": error_text(state.error),
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }


def error_text(error: str) -> str:
    """The sentence of a StartError kept as JSON; any other text as it is."""
    if error.startswith("{"):
        import json

        try:
            return str(json.loads(error).get("message") or error)
        except (ValueError, AttributeError):
            return error
    return error


def inspect(document: Mapping[str, Any], directory: str, state: State) -> dict[str, Any]:
    """The whole dict for one container: `document` is its container.json."""
    points = document.get("Mounts") or []
    host_config = document.get("HostConfig") or {}
    lower = document.get("lower") or []
    written = document.get("scratch") or directory
    return {
        "Id": document["Id"],
        "Created": document["Created"],
        "Path": document["Path"],
        "Args": document["Args"],
        "State": state_of(state),
        "Image": document["ImageID"],
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": f"{directory}/container.log",
        "Name": document["Name"] or "/" + document["Id"][:12],
        "RestartCount": 0,
        "Driver": document["rootfs"],
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host_config,
        "GraphDriver": {
            "Name": document["rootfs"],
            "Data": {
                "LowerDir": ":".join(lower),
                "MergedDir": f"{written}/rootfs",
                "UpperDir": f"{written}/upper",
                "WorkDir": f"{written}/work",
            },
        },
        "Mounts": [shown(point) for point in points],
        "Config": document.get("Config") or {},
        "NetworkSettings": network_settings(document, state),
        "Duckweed": {
            "Isolation": document.get("isolation", "userns"),
            "IdMap": document.get("idmap", ""),
            "RootEmulation": document.get("root_emulation", "off"),
            "Rootfs": document["rootfs"],
            "Scratch": document.get("scratch") or "",
            "SupervisorPid": state.supervisor_pid if state.running else 0,
            "Notes": document.get("notes") or [],
        },
    }


def network_settings(document: Mapping[str, Any], state: State) -> dict[str, Any]:
    """The `NetworkSettings` part."""
    from duckweed.containers import membership

    return membership.settings(
        (document.get("HostConfig") or {}).get("NetworkMode") or "none",
        document.get("networks") or {},
        state.running,
        published_ports(state),
        (document.get("Config") or {}).get("ExposedPorts") or {},
        str(document["Id"]),
    )


def published_ports(state: State) -> list[Mapping[str, Any]]:
    """The ports of the host that lead into the container now: state.json's `ports`."""
    return (state.document.get("ports") or []) if state.running else []


def summary(document: Mapping[str, Any], state: State) -> dict[str, Any]:
    """What ps shows: Docker's /containers/json entry."""
    from duckweed.containers.quantities import parse_rfc3339

    config = document.get("Config") or {}
    host_config = document.get("HostConfig") or {}
    network = host_config.get("NetworkMode") or "none"
    created = parse_rfc3339(document["Created"]) or 0
    return {
        "Id": document["Id"],
        "Names": [document["Name"] or "/" + document["Id"][:12]],
        "Image": document["Image"],
        "ImageID": document["ImageID"],
        # Docker's daemon quotes so, and no more: words with a blank, apostrophes or not.
        "Command": " ".join(
            [document["Path"], *(f"'{word}'" if " " in word else word for word in document["Args"])]
        ),
        "Created": created // 1_000_000_000,
        "Ports": _listed(document, state),
        "Labels": config.get("Labels") or {},
        "State": state.status,
        "Status": state.words(),
        "HostConfig": {"NetworkMode": network},
        "NetworkSettings": {"Networks": {name: {} for name in document.get("networks") or (network,)}},
        "Mounts": [shown(point) for point in document.get("Mounts") or []],
    }


def _listed(document: Mapping[str, Any], state: State) -> list[dict[str, Any]]:
    exposed = (document.get("Config") or {}).get("ExposedPorts") or {}
    if not state.running or not (exposed or state.document.get("ports")):
        return []
    from duckweed.containers.ports import listed

    return listed(published_ports(state), exposed)
