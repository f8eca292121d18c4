"""Owners: `--chown=user:group` looked up in the image, and whose a file of a layer is.

A user without a group: a number is the group's number too; a name has the group of its line in passwd.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from duckweed.build.tree import Node, Tree

_LIMIT_BYTES = 4 << 20
_LARGEST = (1 << 32) - 2


def parse_owner(text: str, tree: Tree) -> tuple[int, int]:
    """The ids that `--chown` means in this image. Raises ValueError."""
    user, colon, group = text.partition(":")
    uid, gid = 0, 0
    if user:
        if _is_number(user):
            uid = gid = int(user)
        else:
            uid, gid = _find(tree, "etc/passwd", user, "user")
    if colon and group:
        gid = int(group) if _is_number(group) else _find(tree, "etc/group", group, "group")[0]
    if uid > _LARGEST or gid > _LARGEST:
        raise ValueError(f"invalid owner `{text}`: an id is too large")
    return uid, gid


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _find(tree: Tree, path: str, name: str, what: str) -> tuple[int, int]:
    for line in _lines(tree, path):
        fields = line.split(":")
        if fields[0] == name and len(fields) > 2 and _is_number(fields[2]):
            second = fields[3] if len(fields) > 3 and _is_number(fields[3]) else fields[2]
            return int(fields[2]), int(second)
    raise ValueError(f"no {what} `{name}` in the image's /{path}")


def _lines(tree: Tree, path: str) -> Iterable[str]:
    node = tree.node(tree.resolve(path))
    if node is None or node.kind != "file":
        return []
    fd = os.open(node.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read(_LIMIT_BYTES).decode("utf-8", "replace").splitlines()


def everything_is_roots(_: Node) -> tuple[int, int]:
    """Files of a context have no owner that would mean anything in an image."""
    return 0, 0


def owner_in_layers(
    uid_map: Iterable[Mapping[str, int]], gid_map: Iterable[Mapping[str, int]], is_mapped: bool
) -> Callable[[Node], tuple[int, int]]:
    """Who owns a layer's file inside a container: the index knows, or the id map, or it is root."""
    users, groups = list(uid_map), list(gid_map)

    def owner(node: Node) -> tuple[int, int]:
        if node.record is not None:
            return int(node.record["uid"]), int(node.record["gid"])
        if not is_mapped:
            return 0, 0
        return _inside(users, node.facts.st_uid), _inside(groups, node.facts.st_gid)

    return owner


def _inside(lines: list[Mapping[str, int]], host_id: int) -> int:
    for line in lines:
        if 0 <= host_id - line["hostID"] < line["size"]:
            return line["containerID"] + host_id - line["hostID"]
    return 65534
