"""Shell completion: the one place where click is imported.

click knows how to write a completion script for each shell and how to answer it; it needs commands and
parameters to do so. They are made here from the same tables that `parse` reads, so there is nothing to keep
in step. What is asked of the store is answered from directory listings alone: no container is looked at, no
file is parsed.
"""

from __future__ import annotations

import os
import sys

import click
from click.shell_completion import CompletionItem, get_completion_class

from duckweed.cli import tree
from duckweed.cli.parse import BOOL, Call, Flag, Refused, Verb, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, NoReturn

_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_DUCKWEED_COMPLETE"
_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH")


class _Words(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A parameter completed from the store; `kinds` are words of `names_of`, or `file` or `directory`."""

    name = "words"

    def __init__(self, kinds: str) -> None:
        self.kinds = kinds.split()

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if "file" in self.kinds or "directory" in self.kinds:
            return [CompletionItem(incomplete, type="dir" if "directory" in self.kinds else "file")]
        words = {word for kind in self.kinds for word in names_of(kind)}
        return [CompletionItem(word) for word in sorted(words) if word.startswith(incomplete)]


class _Group(click.Group):
    """The root or a noun; its commands are made when asked for."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path or "duckweed", **options)
        self.path = path

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*tree.names_under(self.path), *(() if self.path else tree.GROUPS)])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        path = f"{self.path} {name}".strip()
        if path in tree.GROUPS:
            return _Group(path, help=tree.GROUPS[path])
        return command(path) if path in tree.COMMANDS or path in tree.ALIASES else None


def command(path: str) -> click.Command:
    """The click command of a verb, good for completion only."""
    found = tree.load(path)
    params: list[click.Parameter] = [_option(flag) for flag in found.flags if not flag.hidden]
    if found.at_most != 0:
        params.append(_argument(found))
    settings = {"allow_interspersed_args": found.interspersed, "ignore_unknown_options": True}
    return click.Command(
        path, params=params, help=found.summary, context_settings=settings, short_help=found.summary
    )


def _option(flag: Flag) -> click.Option:
    names = [f"--{flag.name}", *([f"-{flag.short}"] if flag.short else [])]
    if flag.kind == BOOL:
        return click.Option(names, is_flag=True, help=flag.help)
    kind = _Words(flag.completes) if flag.completes else click.STRING
    return click.Option(names, type=kind, multiple=True, help=flag.help)


def _argument(found: Verb) -> click.Argument:
    # `run` and `exec`: only the first word is ours, the others belong to the command in the container.
    count = 1 if not found.interspersed else -1
    return click.Argument(
        ["names"],
        nargs=count,
        required=False,
        type=_Words(found.completes) if found.completes else click.STRING,
    )


def names_of(kind: str) -> Iterator[str]:
    """Names of the store by directory listing; nothing at all when it cannot be read."""
    root = _root()
    if kind == "signal":
        yield from _SIGNALS
    elif kind in ("container", "running"):
        yield from _listing(os.path.join(root, "names"))
    elif kind == "network":
        yield from ("bridge", "host", "none")
        yield from _listing(os.path.join(root, "networks"))
    elif kind == "volume":
        yield from _listing(os.path.join(root, "volumes"))
    elif kind == "image":
        yield "host"
        for name in _listing(os.path.join(root, "images")):
            if name.endswith(".json") and not name.startswith(("@", "%40")):
                yield from _familiar(name[: -len(".json")])


def _root() -> str:
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.environ.get("DUCKWEED_ROOT") or os.path.join(home, "duckweed")


def _listing(path: str) -> Iterable[str]:
    try:
        return [name for name in os.listdir(path) if not name.startswith(".")]
    except OSError:
        return ()


def _familiar(stored: str) -> Iterator[str]:
    """A stored reference as people type it: without the default registry, and without `:latest` too."""
    from urllib.parse import unquote

    reference = unquote(stored)
    for prefix in ("docker.io/library/", "docker.io/"):
        if reference.startswith(prefix):
            reference = reference[len(prefix) :]
            break
    yield reference
    if reference.endswith(":latest"):
        yield reference[: -len(":latest")]


def root_group() -> click.Group:
    """duckweed as click sees it."""
    from duckweed.cli.main import GLOBAL_FLAGS

    return _Group("", params=[_option(flag) for flag in GLOBAL_FLAGS])


def answer() -> NoReturn:
    """Answers the completion script, which asks through the environment, and ends the process."""
    from click.shell_completion import shell_complete

    code = shell_complete(root_group(), {}, "duckweed", _VARIABLE, os.environ.get(_VARIABLE, ""))
    sys.stdout.flush()
    os._exit(code)


@verb("completion", "bash|zsh|fish", at_least=1, at_most=1)
def completion(call: Call) -> int:
    """Print the completion script of a shell

    For this session of bash: `source <(duckweed completion bash)`. To keep it: write it to
    `~/.local/share/bash-completion/completions/duckweed` (bash), to `_duckweed` in a directory of `$fpath`
    (zsh) or to `~/.config/fish/completions/duckweed.fish` (fish).
    """
    shell = call.arguments[0]
    if shell not in _SHELLS:
        raise Refused(f"no completion for `{shell}`", "it is one of `bash`, `zsh`, `fish`")
    found = get_completion_class(shell)
    if found is None:
        raise Refused(f"this release of click has no completion for `{shell}`")
    script = found(root_group(), {}, "duckweed", _VARIABLE)
    # `source_template` itself, for `source()` of bash starts a bash to look at its version.
    sys.stdout.write(script.source_template % script.source_vars())
    return 0
