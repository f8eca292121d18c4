"""Every command and the module that holds it, so that a verb imports its own module and no other.

A word or two words lead to `module:attribute`; the attribute is the `parse.Verb`. Docker has most container
and image verbs twice (`ps` and `container ls`), and both lead to one place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from duckweed.cli.parse import Verb

GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Look at image manifests and manifest lists",
    "network": "Manage networks",
    "volume": "Manage volumes",
    "builder": "Build images, and look after the build cache",
    "buildx": "Build images, by the words of docker buildx",
    "system": "Look after the engine, and the place it runs in",
}

# The first block of `duckweed --help`; the other words without a group follow it.
COMMON = ("run", "exec", "ps", "build", "images", "pull", "load", "doctor", "version", "info")

_CONTAINER = {
    "attach": "container_run:attach",
    "commit": "container_files:commit",
    "cp": "container_files:cp",
    "create": "container_run:create",
    "diff": "container_files:diff",
    "exec": "container_exec:exec_",
    "export": "container_files:export",
    "inspect": "inspect:container_inspect",
    "kill": "container_life:kill",
    "logs": "container_logs:logs",
    "ls": "container_show:ps",
    "port": "container_show:port",
    "prune": "container_life:prune",
    "rename": "container_life:rename",
    "restart": "container_life:restart",
    "rm": "container_life:rm",
    "run": "container_run:run",
    "start": "container_run:start",
    "stats": "container_stats:stats",
    "stop": "container_life:stop",
    "top": "container_show:top",
    "wait": "container_life:wait",
}

_BUILDER = {"build": "build:build", "du": "builder:du", "prune": "builder:prune"}

_IMAGE = {
    "build": "build:build",
    "history": "image_show:history",
    "import": "image:import_",
    "inspect": "inspect:image_inspect",
    "load": "image:load",
    "ls": "image_show:images",
    "prune": "image:prune",
    "pull": "registry_pull:pull",
    "push": "registry_push:push",
    "rm": "image:rmi",
    "save": "image:save",
    "tag": "image:tag",
}

_NETWORK = {
    "connect": "network:connect",
    "create": "network:create",
    "disconnect": "network:disconnect",
    "inspect": "inspect:network_inspect",
    "ls": "network:ls",
    "prune": "network:prune",
    "rm": "network:rm",
}

_VOLUME = {
    "create": "volume:create",
    "inspect": "inspect:volume_inspect",
    "ls": "volume:ls",
    "prune": "volume:prune",
    "rm": "volume:rm",
}

_SYSTEM = {
    "check": "system_check:system_check",
    "df": "system_df:system_df",
    "doctor": "system:doctor",
    "info": "system:info",
    "prune": "system_prune:system_prune",
    "share": "system_share:system_share",
}

COMMANDS: dict[str, str] = {
    **{name: place for name, place in _CONTAINER.items() if name not in ("inspect", "ls", "prune")},
    **{name: _IMAGE[name] for name in ("history", "import", "load", "pull", "push", "save", "tag")},
    "build": "build:build",
    "completion": "completion:completion",
    "doctor": "system:doctor",
    "images": "image_show:images",
    "info": "system:info",
    "inspect": "inspect:inspect",
    "login": "registry_login:login",
    "logout": "registry_login:logout",
    "ps": "container_show:ps",
    "rmi": "image:rmi",
    "manifest inspect": "registry_look:manifest_inspect",
    "search": "registry_look:search",
    "version": "system:version",
    **{f"builder {name}": place for name, place in _BUILDER.items()},
    **{f"buildx {name}": place for name, place in _BUILDER.items()},
    **{f"container {name}": place for name, place in _CONTAINER.items()},
    **{f"image {name}": place for name, place in _IMAGE.items()},
    **{f"network {name}": place for name, place in _NETWORK.items()},
    **{f"volume {name}": place for name, place in _VOLUME.items()},
    **{f"system {name}": place for name, place in _SYSTEM.items()},
}

# Second names that work and are listed only under "Aliases".
ALIASES: dict[str, str] = {
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}


def load(path: str) -> Verb:
    """Imports the verb of a path such as `container ls`; KeyError when there is none."""
    module, _, attribute = COMMANDS[ALIASES.get(path, path)].partition(":")
    found: Verb = getattr(__import__(f"duckweed.cli.{module}", fromlist=[attribute]), attribute)
    return found


def names_under(group: str) -> list[str]:
    """The commands of a group, or those without one for ""."""
    if group:
        return [path.split(" ")[1] for path in COMMANDS if path.startswith(group + " ")]
    return [path for path in COMMANDS if " " not in path]


def paths_of(place_of: str) -> list[str]:
    """All paths that lead to the same verb, for the "Aliases" of its help."""
    place = COMMANDS[ALIASES.get(place_of, place_of)]
    paths = [path for path, other in COMMANDS.items() if other == place]
    paths += [alias for alias, path in ALIASES.items() if path in paths]
    return sorted(paths)
