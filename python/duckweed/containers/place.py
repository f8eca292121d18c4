"""What this place was found to allow, in the terms of a container: id maps, namespaces, storage, notes.

`host.choose` decides; this is its decision as `spec` and the store need it.
"""

from __future__ import annotations

from duckweed.host.choose import Choice
from duckweed.store.layers import SINGLE, Flavour

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckweed.engine import Engine


class Place(Choice):
    """A choice, and what follows from it: `uid_mappings`, `gid_mappings` in config.json's form; `layers`,
    their flavour; `scratch`, the directory for what containers write, or "" for the store; `news`, what of
    the notes is said for the first time.
    """

    __slots__ = ("_maps", "gid_mappings", "layers", "news", "scratch", "uid_mappings")

    def __init__(self, choice: Choice) -> None:
        for name in Choice.__slots__:
            setattr(self, name, getattr(choice, name))
        self.news: list[str] = []
        self.scratch = choice.running.path if choice.running is not None else ""
        self.uid_mappings = [mapping(line) for line in choice.uid_map]
        self.gid_mappings = [mapping(line) for line in choice.gid_map]
        self._maps = (map_text(choice.uid_map), map_text(choice.gid_map))
        self.layers = Flavour(choice.flavour, *self._maps) if choice.idmap == "full" else SINGLE

    def map_texts(self) -> tuple[str, str]:
        """Both maps as the runtime's `--uid-map` and `--gid-map` take them."""
        return self._maps


def mapping(line: Sequence[int]) -> dict[str, int]:
    """An id map line `(container, host, size)` as config.json writes it."""
    return {"containerID": line[0], "hostID": line[1], "size": line[2]}


def map_text(lines: Sequence[Sequence[int]]) -> str:
    """The lines as the runtime's `--uid-map` takes them."""
    return ",".join(f"{inner}:{outer}:{size}" for inner, outer, size in lines)


def find(engine: Engine, isolation: str) -> Place:
    """What `host.choose` says of this place. Raises Unsupported when it allows no container."""
    from duckweed.host import choose, probe

    layout = engine.layout
    layout.ensure()
    facts = probe.facts(engine.root)
    running = None
    if engine.scratch or not facts.holds_running:
        from duckweed.host import running_place

        running = running_place.find(engine.root, facts, engine.scratch)
    place = Place(choose.decide(facts, isolation, running=running))
    if place.isolation == "trap" and isolation == "auto" and layout.tells_first("trap"):
        place.news.append(place.notes[0])
    if layout.keep_trees_in(running.path if running and running.is_for_layers else layout.root) and running:
        place.news.append(running.note)
    return place


def scratch_directory(engine: Engine, asked: str) -> str:
    """Our directory in the scratch directory that one container asked for. Raises Unsupported."""
    from duckweed.host import probe, running_place

    running = running_place.find(engine.root, probe.facts(engine.root), asked)
    return running.path if running is not None else ""
