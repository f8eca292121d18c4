"""The image config: what to run and which layers, under the one digest that is the image's id (image-spec,
config.md).

The document is kept byte for byte; this module checks what others rely on and reads it.
"""

from __future__ import annotations

from duckweed.errors import BadImage
from duckweed.oci.digest import check_digest
from duckweed.oci.document import list_field, object_field, read_object
from duckweed.oci.manifest import LAYER_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STRINGS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell")
_OBJECTS = ("Labels", "Volumes", "ExposedPorts", "Healthcheck")


def read_config(content: bytes, what: str) -> dict[str, Any]:
    """A checked image config. Raises BadImage: whoever holds the result may index `config` and `rootfs`
    without asking.
    """
    document = read_object(content, what)
    for name in ("architecture", "os", "created", "author", "variant"):
        if not isinstance(document.get(name), (str, type(None))):
            raise BadImage(f"{what}: `{name}` is not a string")
    rootfs = object_field(document, "rootfs", what)
    if not rootfs:
        raise BadImage(f"{what}: no `rootfs`: not an image config")
    if rootfs.get("type") not in (None, "layers"):
        raise BadImage(f"{what}: root file system of unknown type")
    diff_ids = list_field(rootfs, "diff_ids", what)
    if len(diff_ids) > LAYER_LIMIT:
        raise BadImage(f"{what}: {len(diff_ids)} layers, more than {LAYER_LIMIT}")
    for diff_id in diff_ids:
        check_digest(diff_id, what)
    if not all(isinstance(entry, dict) for entry in list_field(document, "history", what)):
        raise BadImage(f"{what}: an entry of `history` is not an object")
    _check_run_config(object_field(document, "config", what), what)
    return document


def _check_run_config(config: dict[str, Any], what: str) -> None:
    for name in _STRINGS:
        if not isinstance(config.get(name), (str, type(None))):
            raise BadImage(f"{what}: `{name}` is not a string")
    for name in _LISTS:
        if not all(isinstance(word, str) for word in list_field(config, name, what)):
            raise BadImage(f"{what}: `{name}` is not a list of strings")
    for name in _OBJECTS:
        object_field(config, name, what)
    if not all(isinstance(value, str) for value in (config.get("Labels") or {}).values()):
        raise BadImage(f"{what}: a label is not a string")


def diff_ids(config: dict[str, Any]) -> list[str]:
    """The layers' diff ids, bottom first."""
    return (config.get("rootfs") or {}).get("diff_ids") or []


def run_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part that containers start from: Env, Cmd, User ...; never None."""
    return config.get("config") or {}
