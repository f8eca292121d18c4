"""The machine: what it allows, what to use of it, what to say about it.

`facts` is what the engine asks at the start of every command: the cached result of the probe, read in well
under a millisecond, made anew when anything it depends on has changed. `choose.decide` turns facts into the
isolation, the id maps and the storage of containers; `doctor.report` turns them into sentences.
"""

from __future__ import annotations

from duckweed.host.facts import Facts
from duckweed.host.probe import facts

__all__ = ["Facts", "facts"]
