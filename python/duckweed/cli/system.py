"""`info`, `version` and `doctor`: what this engine is, and what the place it runs in allows."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, STRING, Call, Flag, verb
from duckweed.cli.units import human_size_binary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_FORMAT = Flag("format", "f", STRING, "json or a Go template")

# The lines of `info`, in Docker's order: label, key of the dict. Missing keys are left out.
_INFO_LINES = (
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Isolation", "Isolation"),
    ("Default Runtime", "DefaultRuntime"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Docker Root Dir", "DockerRootDir"),
)


@verb("info", "[OPTIONS]", flags=(_FORMAT,), at_most=0)
def info(call: Call) -> int:
    """Show the state of the engine and of the place it runs in"""
    facts = call.engine.info()
    if call.get("format"):
        return _formatted(call.get("format"), facts)
    for line in info_lines(facts):
        sys.stdout.write(f"{line}\n")
    for warning in facts.get("Warnings") or ():
        sys.stderr.write(f"WARNING: {warning}\n")
    return 0


def info_lines(facts: dict[str, Any]) -> Iterator[str]:
    """`info` as text."""
    for label, key in _INFO_LINES:
        if facts.get(key) in (None, ""):
            continue
        value = human_size_binary(facts[key]) if key == "MemTotal" else facts[key]
        yield f"{label}: {value}"
        if key == "Driver":
            yield from (f" {name}: {text}" for name, text in facts.get("DriverStatus") or ())
        if key == "CgroupVersion":
            yield from _plugin_lines(facts)
        if key == "DefaultRuntime":
            yield from _security_lines(facts)


def _plugin_lines(facts: dict[str, Any]) -> Iterator[str]:
    plugins = facts.get("Plugins") or {}
    if plugins:
        yield "Plugins:"
        yield from (
            f" {kind}: {' '.join(plugins[kind])}"
            for kind in ("Volume", "Network", "Log")
            if plugins.get(kind)
        )


def _security_lines(facts: dict[str, Any]) -> Iterator[str]:
    options = facts.get("SecurityOptions") or ()
    if options:
        yield "Security Options:"
    for option in options:
        pairs = [part.partition("=")[::2] for part in option.split(",")]
        yield f" {pairs[0][1] or pairs[0][0]}"
        yield from (f"  {name.capitalize()}: {value}" for name, value in pairs[1:])


@verb("version", "[OPTIONS]", flags=(_FORMAT,), at_most=0)
def version(call: Call) -> int:
    """Show the versions of the engine and its parts"""
    facts = call.engine.version()
    if call.get("format"):
        return _formatted(call.get("format"), facts)
    sys.stdout.write("\n".join(_version_lines(facts)) + "\n")
    return 0


# Key of the dict -> the label `docker version` gives it; other texts keep their key.
_VERSION_LABELS = {
    "ApiVersion": "API version",
    "GitCommit": "Git commit",
    "BuildTime": "Built",
    "KernelVersion": "Kernel version",
    "PythonVersion": "Python version",
    "RuntimeVersion": "Runtime version",
}
_LABEL_WIDTH = 18


def _version_lines(facts: dict[str, Any]) -> Iterator[str]:
    for block, values in facts.items():
        if not isinstance(values, dict):
            continue
        if block != "Client":
            yield ""
        yield f"{block}:"
        if values.get("Os") and values.get("Arch"):
            values = {**values, "OS/Arch": f"{values['Os']}/{values['Arch']}"}
        for name, value in values.items():
            if isinstance(value, (str, int)) and name not in ("Os", "Arch") and value != "":
                label = str(_VERSION_LABELS.get(name, name)) + ":"
                yield f" {label:<{_LABEL_WIDTH}} {value}"
        for component in values.get("Components") or ():
            yield f" {component['Name']}:"
            yield f"  {'Version:':<{_LABEL_WIDTH - 1}} {component['Version']}"


def _formatted(template: str, facts: dict[str, Any]) -> int:
    from duckweed.cli import format

    sys.stdout.write(format.document(template, facts) + "\n")
    return 0


@verb("doctor", "[OPTIONS]", flags=(Flag("json", "", BOOL, "Print the report as JSON"),), at_most=0)
def doctor(call: Call) -> int:
    """Say what this machine allows, what is used instead, and what could be changed

    The exit code is 0 when everything works, 1 when something is done in a poorer way, 2 when containers
    cannot run here.
    """
    report = call.engine.doctor()
    if call.get("json"):
        from duckweed.cli import format

        sys.stdout.write(format.pretty(report) + "\n")
    else:
        sys.stdout.write(report["text"])
    return int(report["status"])
