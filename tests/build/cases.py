"""The corpus: small Dockerfiles with their contexts, read from corpus/*.case, and what a build made of them.

    === name                   a case begins
    --- args                   flags as the Python API takes them, one `name=value` a line
    --- file PATH [MODE]       a file of the context, its text below
    --- dir PATH [MODE]        a directory
    --- link PATH TARGET       a symbolic link
    --- Dockerfile
    --- expect                 JSON: what buildah cannot say, from Docker's reference; `error`, `config`, `tree`

What buildah built of the others is in corpus/expected.json (see with_buildah.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
# A build writes the time, and these come with the container.
VOLATILE = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv")


class Case:
    """One case; `parts` are (head words, lines)."""

    def __init__(self, name: str, area: str) -> None:
        self.name = name
        self.area = area
        self.parts: list[tuple[list[str], list[str]]] = []

    def text(self, kind: str) -> str | None:
        for head, lines in self.parts:
            if head[0] == kind:
                return "".join(lines)
        return None

    @property
    def args(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for line in (self.text("args") or "").splitlines():
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
        single = ("target", "file", "network", "no_cache")
        return {name: values[0] if name in single else values for name, values in found.items()}

    @property
    def expect(self) -> dict[str, Any] | None:
        text = self.text("expect")
        return json.loads(text) if text is not None else None

    def write_context(self, directory: Path) -> None:
        """Makes the context's files and the Dockerfile."""
        directory.mkdir(parents=True, exist_ok=True)
        modes: list[tuple[Path, int]] = []
        for head, lines in self.parts:
            text = "".join(lines)
            if head[0] == "file":
                path = directory / head[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                path.chmod(int(head[2], 8) if len(head) > 2 else 0o644)
            elif head[0] == "dir":
                path = directory / head[1]
                path.mkdir(parents=True, exist_ok=True)
                modes.append((path, int(head[2], 8) if len(head) > 2 else 0o755))
            elif head[0] == "link":
                path = directory / head[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(head[2])
            elif head[0] == "Dockerfile":
                (directory / "Dockerfile").write_text(text)
        for found, folders, _ in os.walk(directory):
            for folder in folders:
                if not os.path.islink(os.path.join(found, folder)):
                    os.chmod(os.path.join(found, folder), 0o755)
        for path, mode in modes:
            path.chmod(mode)


def read_cases() -> list[Case]:
    """All cases, by file and order."""
    cases: list[Case] = []
    for path in sorted(CORPUS.glob("*.case")):
        lines: list[str] | None = None
        for line in path.read_text().splitlines(keepends=True):
            if line.startswith("=== "):
                cases.append(Case(line[4:].strip(), path.stem))
                lines = None
            elif line.startswith("--- "):
                lines = []
                cases[-1].parts.append((line[4:].split(), lines))
            elif lines is not None:
                lines.append(line)
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    return cases


def tree_of(tar: tarfile.TarFile) -> dict[str, str]:
    """Path -> kind, mode, owner and contents, of a tar of a root file system."""
    tree = {}
    first: dict[str, str] = {}
    for member in tar:
        path = member.name.lstrip("./").rstrip("/")
        if not path or any(path == name or path.startswith(name + "/") for name in VOLATILE):
            continue
        owner = f"{member.mode & 0o7777:04o} {member.uid}:{member.gid}"  # some write the type, too
        if member.isdir():
            tree[path] = f"dir {owner}"
        elif member.issym():
            tree[path] = f"link {member.uid}:{member.gid} -> {member.linkname}"
        elif member.islnk():
            tree[path] = first.get(member.linkname.lstrip("./"), f"hard link to {member.linkname}")
        elif member.isfile():
            source = tar.extractfile(member)
            assert source is not None
            tree[path] = first[path] = f"file {owner} {shown(source.read())}"
        else:
            tree[path] = f"other {owner}"
    return tree


def shown(content: bytes) -> str:
    """Contents as they stand in expected.json."""
    if len(content) <= 200:
        return json.dumps(content.decode("utf-8", "backslashreplace"))
    return "sha256:" + hashlib.sha256(content).hexdigest()


def difference(tree: dict[str, str], base: dict[str, str]) -> dict[str, str]:
    """What a build changed of its base image."""
    changed = {path: facts for path, facts in tree.items() if base.get(path) != facts}
    changed.update({path: "gone" for path in base if path not in tree})
    return dict(sorted(changed.items()))


def read_tree(content: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tree_of(tar)
