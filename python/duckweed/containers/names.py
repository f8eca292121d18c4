"""Container names: the rule they follow, and the ones given to containers that got none.

A random name is an adjective and a plant; both lists are short on purpose, because a name is claimed by a
symlink and a second draw costs nothing.
"""

# ruff: noqa: SIM905 (a list of words is read as one)

from __future__ import annotations

import os
import re

from duckweed.errors import UsageError

_RULE = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")

ADJECTIVES = """
    able agile airy amber amiable ample azure balmy blithe bold bonny brave breezy bright brisk calm
    candid cheery clever coral cosy crisp curious dainty daring deft dewy dreamy eager early earnest
    fair fancy fine fleet fluent fond frank free fresh gallant gentle glad golden graceful grand green
    happy hardy hasty hazel honest humble ivory jaunty jolly keen kind lively loyal lucid lucky lush
    mellow merry mild misty modest neat nimble noble patient placid plucky polite proud quick quiet
    rapid rosy rustic serene sharp silent silver sleek smooth snug solid spry steady still sunny swift
    tender tidy tranquil upbeat verdant vivid warm wise witty young zesty
""".split()

PLANTS = """
    acacia alder aloe angelica arnica ash aspen aster azalea bamboo basil beech begonia betony birch
    bluebell borage bracken bramble briar broom bryony burdock buttercup campion catmint cedar celandine
    chervil chicory chive clover columbine comfrey cornflower cowslip cress crocus cypress daffodil
    dahlia daisy dill dock duckweed elder elm fennel fern fescue feverfew figwort flax foxglove frogbit
    gentian ginkgo gorse harebell hawthorn hazel heather hellebore hemlock holly honesty hornwort hyssop
    iris ivy jasmine juniper kelp larch laurel lavender lichen lilac lily linden lotus lovage lupin
    mallow maple marjoram meadowsweet mint mistletoe moss mugwort myrtle nettle oak orchid oregano osier
    papyrus parsley peony pine poplar poppy primrose quince reed rosemary rowan rush saffron sage
    salvinia sedge sorrel speedwell spruce tansy teasel thistle thyme tulip valerian verbena vetch
    violet watercress willow wolffia woodruff yarrow yew
""".split()


def random_name() -> str:
    """Something like `gentle_willow`."""
    bits = int.from_bytes(os.urandom(4), "little")
    return f"{ADJECTIVES[bits % len(ADJECTIVES)]}_{PLANTS[(bits >> 16) % len(PLANTS)]}"


def check_name(name: str) -> str:
    """The name without Docker's leading slash. Raises UsageError, in Docker's words, for a bad one."""
    if not _RULE.match(name):
        raise UsageError(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    name = name[1:] if name[0] == "/" else name
    if len(name.encode()) > 200:
        raise UsageError(f"Invalid container name ({name[:20]}...): longer than 200 characters")
    return name
