"""What a stage is at one point: its image so far, and the variables that the next instruction sees."""

from __future__ import annotations

import copy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from duckweed.oci.platform import Platform

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMENT = "buildkit.dockerfile.v0"
"""The comment of every step in an image's history: tools tell BuildKit's images by it."""


class StageState:
    """`config` is the image config's run config, `document` the rest of it without layers and history.

    `environment` is what RUN gets and variables see: ENV, and ARG over it. `arguments` are the stage's ARGs,
    for the history. `chain` and `diff_ids` are the layers, bottom first; `layer_times` when each came to be
    (None for a base's). `workdir` is absolute.
    """

    __slots__ = (
        "arguments",
        "chain",
        "config",
        "diff_ids",
        "document",
        "environment",
        "has_cmd",
        "history",
        "layer_times",
        "platform",
        "triggers",
        "workdir",
    )

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            self.document["variant"] = platform.variant
        self.config: dict[str, Any] = {"Env": ["PATH=" + PATH], "WorkingDir": "/"}
        self.history: list[dict[str, Any]] = []
        self.chain: list[str] = []
        self.diff_ids: list[str] = []
        self.layer_times: list[str | None] = []
        self.environment: dict[str, str] = {}
        self.arguments: dict[str, str] = {}
        self.triggers: list[str] = []
        self.workdir = "/"
        self.has_cmd = False
        self._enter()

    @classmethod
    def of_image(cls, document: Mapping[str, Any], chain: list[str], platform: Platform) -> StageState:
        """The state that FROM of an image begins with."""
        state = cls(platform)
        known = ("architecture", "os", "variant", "author", "os.version", "os.features")
        state.document = {name: document[name] for name in known if document.get(name)}
        state.config = copy.deepcopy(dict(document.get("config") or {}))
        state.history = _complete(document, len(chain))
        state.diff_ids = list((document.get("rootfs") or {}).get("diff_ids") or ())
        state.chain = list(chain)
        state.layer_times = [None] * len(chain)
        state._enter()
        return state

    def continued(self) -> StageState:
        """The state of a stage that is FROM this one: its own triggers are those of ONBUILD so far."""
        state = copy.copy(self)
        state.document = dict(self.document)
        state.config = copy.deepcopy(self.config)
        state.history = list(self.history)
        state.chain, state.diff_ids = list(self.chain), list(self.diff_ids)
        state.layer_times = list(self.layer_times)
        state.arguments = dict(self.arguments)
        state.has_cmd = False
        state._enter(keep=self.environment)
        state.triggers = list(state.config.pop("OnBuild", None) or ())
        return state

    def _enter(self, keep: Mapping[str, str] | None = None) -> None:
        """What every stage begins with: a PATH, and the image's variables."""
        environment = self.config.setdefault("Env", None) or []
        if not any(entry.startswith("PATH=") for entry in environment):
            environment = [*environment, "PATH=" + PATH]
        self.config["Env"] = environment
        self.environment = dict(keep or {})
        for entry in environment:
            name, _, value = entry.partition("=")
            self.environment[name] = value
        self.workdir = "/" + (self.config.get("WorkingDir") or "/").strip("/")

    @property
    def user(self) -> str:
        """The user of RUN."""
        return self.config.get("User") or ""

    @property
    def parent(self) -> str:
        """The chain id of the topmost layer; "" when there is none."""
        return self.chain[-1] if self.chain else ""

    @property
    def shell(self) -> list[str]:
        """What runs the shell form."""
        return self.config.get("Shell") or ["/bin/sh", "-c"]

    def record(self, created_by: str, *, layer: bool = False) -> None:
        """Adds an entry to the history."""
        entry: dict[str, Any] = {"created_by": created_by, "comment": COMMENT}
        if not layer:
            entry["empty_layer"] = True
        self.history.append(entry)

    def add_layer(self, chain_id: str, diff_id: str, created: str) -> None:
        """Puts a layer on top; `created` is RFC 3339."""
        self.chain.append(chain_id)
        self.diff_ids.append(diff_id)
        self.layer_times.append(created)

    def set_variable(self, name: str, value: str) -> None:
        """An ENV: in the image's config and for what follows."""
        self.environment[name] = value
        entries = self.config["Env"]
        for index, entry in enumerate(entries):
            if entry.partition("=")[0] == name:
                entries[index] = f"{name}={value}"
                return
        entries.append(f"{name}={value}")


def _complete(document: Mapping[str, Any], layers: int) -> list[dict[str, Any]]:
    """The image's history with an entry for each layer and no more: some images have none at all."""
    history = [dict(entry) for entry in document.get("history") or ()]
    seen = 0
    for entry in history:
        if not entry.get("empty_layer"):
            seen += 1
            if seen > layers:
                entry["empty_layer"] = True
    return history + [{"created_by": "", "comment": "base image"} for _ in range(layers - seen)]


def dated_history(state: StageState, epoch: str | None) -> tuple[list[dict[str, Any]], str | None]:
    """The history with the time of every step, and that of the last.

    A step without a layer has the time of the layer before it, those before the first new layer have that
    layer's: so an image that was built from the cache alone is the same image again. `epoch` is what
    SOURCE_DATE_EPOCH says of every new step.
    """
    dated = [dict(entry) for entry in state.history]
    times = iter(state.layer_times)
    for entry in dated:
        layer_time = None if entry.get("empty_layer") else next(times, None)
        created = entry.get("created") or (epoch if entry.get("comment") == COMMENT else None) or layer_time
        if created is not None:
            entry["created"] = created
    current = _first_new(dated)
    passed_gap = False
    for entry in dated:
        if entry.get("created"):
            if passed_gap:
                current = entry["created"]
        else:
            passed_gap = True
            if current is not None:
                entry["created"] = current
    ordered = [{key: entry[key] for key in _ORDER if key in entry} for entry in dated]
    return ordered, ordered[-1].get("created") if ordered else epoch


_ORDER = ("created", "created_by", "author", "comment", "empty_layer")


def _first_new(history: list[dict[str, Any]]) -> str | None:
    current, passed_gap = None, False
    for entry in history:
        if entry.get("created"):
            current = entry["created"]
            if passed_gap:
                break
        else:
            passed_gap = True
    return current
