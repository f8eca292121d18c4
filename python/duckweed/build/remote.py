"""ADD of URLs and repositories.

What a URL holds is kept with its ETag and asked for only when it has changed. With `--checksum` it is not
asked for at all when it is there. The file has mode 0600 and the server's Last-Modified as its time. A
repository is cloned by the machine's `git`; its commit stands for all of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from urllib.parse import parse_qs, unquote, urlsplit

from duckweed.build.contexts import is_git
from duckweed.build.selection import Source, select
from duckweed.build.tree import DirectoryTree
from duckweed.errors import BuildError
from duckweed.store import scratch
from duckweed.store.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.build.copy_plan import CopyPlan
    from duckweed.dockerfile.instruction import Instruction
    from duckweed.store.layout import Layout

_CHUNK = 1 << 20
_TIMEOUT_S = 60.0
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")


class Fetched:
    """What was fetched: one file at `path`, or a directory `tree`; `identity` goes into the key."""

    def __init__(
        self, identity: str, path: str | None, name: str, when: int, tree: str | None = None
    ) -> None:
        self.identity = identity
        self.path = path
        self._name = name
        self._when = when
        self._tree = tree

    def put(self, plan: CopyPlan, target: str) -> None:
        """Adds it to the layer."""
        if self._tree is not None:
            for source in select(DirectoryTree(self._tree), "."):
                plan.add(source, target if target.endswith("/") else target + "/")
            return
        assert self.path is not None
        node = DirectoryTree(os.path.dirname(self.path)).node(os.path.basename(self.path))
        assert node is not None
        plan.add(Source(self._name, [("", node)]), target)


class Remote:
    """What this build has fetched, and what builds before it have kept."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._kept = layout.build + "/http"
        self._work: list[str] = []

    def fetch(self, address: str, checksum: str, one: Instruction) -> Fetched:
        """The file or repository. Raises DockerfileError."""
        try:
            if is_git(address):
                return self._fetch_git(address, checksum, bool(one.choice("keep-git-dir")))
            return self._fetch_file(address, checksum)
        except (BuildError, ValueError) as error:
            raise one.error(str(error), getattr(error, "hint", "")) from None

    def close(self) -> None:
        """Removes what is not kept."""
        for path in self._work:
            remove_tree(path)

    def _fetch_file(self, address: str, checksum: str) -> Fetched:
        if checksum and not _CHECKSUM.match(checksum):
            raise ValueError(f"invalid checksum `{checksum}`: write `sha256:` and 64 hex digits")
        name = os.path.basename(unquote(urlsplit(address).path).rstrip("/")) or "__unnamed__"
        word = hashlib.sha256(address.encode()).hexdigest()[:32]
        record = scratch.read_json(f"{self._kept}/{word}.json") or {}
        path = f"{self._kept}/{word}.body"
        if not os.path.isfile(path):
            record = {}
        if not (checksum and record.get("digest") == checksum):
            record = self._refresh(address, path, record, word)
        if checksum and record["digest"] != checksum:
            raise BuildError(f"digest mismatch {record['digest']}: {checksum}")
        # Without a Last-Modified the time is that of the fetching, which must not matter.
        identity = f"{record['digest']} {name} {record['modified']}"
        return Fetched(identity, path, name, int(record["time"]))

    def _refresh(self, address: str, path: str, record: dict[str, Any], word: str) -> dict[str, Any]:
        os.makedirs(self._kept, exist_ok=True)
        half = scratch.new_path(self._layout, "download")
        try:
            answer = download(address, half, record.get("etag") or "", record.get("modified") or "")
            if answer is None:
                return record
            os.chmod(half, 0o600)
            os.utime(half, (answer["time"], answer["time"]))
            os.rename(half, path)
        finally:
            scratch.discard_file(half)
        scratch.write_json(
            self._layout, f"{self._kept}/{word}.json", {**answer, "url": _without_user(address)}
        )
        return answer

    def _fetch_git(self, address: str, checksum: str, keep_git: bool) -> Fetched:
        directory = scratch.new_directory(self._layout, "git")
        self._work.append(directory)
        tree, commit = checkout(address, directory, keep_git=keep_git)
        if checksum and not commit.startswith(checksum):
            raise BuildError(f"expected checksum to match {checksum}, got {commit}")
        return Fetched(f"git {commit} {keep_git} {os.path.relpath(tree, directory)}", None, "", 0, tree)


def _without_user(address: str) -> str:
    parts = urlsplit(address)
    return address.replace(f"{parts.username}", "***", 1) if parts.username else address


def download(address: str, path: str, etag: str = "", modified: str = "") -> dict[str, Any] | None:
    """Fetches a URL into the new file `path`: its `digest`, `etag`, `modified` and `time`. None: unchanged.

    Raises BuildError.
    """
    import urllib.error
    import urllib.request
    from email.utils import parsedate_to_datetime

    request = urllib.request.Request(address, headers={"User-Agent": "duckweed"})
    if etag:
        request.add_header("If-None-Match", etag)
    elif modified:
        request.add_header("If-Modified-Since", modified)
    state = hashlib.sha256()
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, open(path, "xb") as file:
            while True:
                chunk = answer.read(_CHUNK)
                if not chunk:
                    break
                state.update(chunk)
                file.write(chunk)
            headers = answer.headers
    except urllib.error.HTTPError as error:
        if error.code == 304:
            return None
        raise BuildError(f"invalid response status {error.code} for {_without_user(address)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BuildError(f"cannot fetch {_without_user(address)}: {reason}") from None
    stamp = headers.get("Last-Modified") or ""
    try:
        when = int(parsedate_to_datetime(stamp).timestamp()) if stamp else int(time.time())
    except (TypeError, ValueError):
        when = int(time.time())
    return {
        "digest": "sha256:" + state.hexdigest(),
        "etag": headers.get("ETag") or "",
        "modified": stamp,
        "time": when,
    }


def checkout(address: str, directory: str, *, keep_git: bool) -> tuple[str, str]:
    """Clones a repository; the directory asked for in it, and the commit. Raises BuildError.

    The fragment is `#ref:subdirectory`; the query `?ref=&tag=&branch=&commit=&subdir=` says the same.
    """
    url, _, fragment = address.partition("#")
    reference, _, below = fragment.partition(":")
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if query:
        url = url.partition("?")[0]
        reference = next((query[k][0] for k in ("commit", "tag", "branch", "ref") if k in query), reference)
        below = query.get("subdir", [below])[0]
    if url.startswith("github.com/"):
        url = "https://" + url
    if url.startswith("-") or reference.startswith("-"):
        raise BuildError(f"invalid repository `{address}`")
    tree = directory + "/repository"
    _git("init", "-q", tree)
    _fetch_commit(tree, url, reference)
    _git("-C", tree, "-c", "advice.detachedHead=false", "checkout", "-q", "FETCH_HEAD")
    commit = _git("-C", tree, "rev-parse", "HEAD").strip()
    if os.path.exists(tree + "/.gitmodules"):
        _git("-C", tree, "submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    if not keep_git:
        remove_tree(tree + "/.git")
    # A link in the repository may lead anywhere on this machine.
    place = os.path.realpath(os.path.join(tree, below.lstrip("/")))
    if not (place + "/").startswith(os.path.realpath(tree) + "/") or not os.path.isdir(place):
        raise BuildError(f"no directory `{below}` in `{_without_user(url)}`")
    return place, commit


def _fetch_commit(tree: str, url: str, reference: str) -> None:
    try:
        _git("-C", tree, "fetch", "-q", "--depth=1", url, reference or "HEAD")
    except BuildError as error:
        if "shallow" in str(error):
            # A server of plain files gives all or nothing.
            _git("-C", tree, "fetch", "-q", url, reference or "HEAD")
            return
        if not _COMMIT.match(reference):
            raise
        # A short commit, or a server that gives none by itself: all of it, then.
        _git("-C", tree, "fetch", "-q", "--tags", url, "+refs/heads/*:refs/remotes/origin/*")
        _git("-C", tree, "checkout", "-q", "--detach", reference)
        _git("-C", tree, "update-ref", "FETCH_HEAD", "HEAD")


def _git(*words: str) -> str:
    import subprocess

    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-c", "protocol.file.allow=user", *words]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise BuildError("`git` is not installed", "install it, or give the files as a directory") from None
    except subprocess.CalledProcessError as error:
        line = (error.stderr or "").strip().splitlines()[-1:] or ["it failed"]
        raise BuildError(f"git: {line[0]}") from None
    return done.stdout
