"""Where a caption names a person's things: the slot and the characters of each noun.

Knows places in a text; what is said of a noun is parser.py's.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from reid_ray.attributes.lexicon import token_places
from reid_ray.attributes.parser import nouns_described, read_attributes


class Mention(NamedTuple):
    """A noun of a caption: text[start:stop], without what is said of it."""

    slot: str  # hair, upper, lower, full, shoes, bag, hat, or an accessory of the lexicon
    start: int
    stop: int
    denied: bool  # "no hat", "without a bag"


class NamedOnce(NamedTuple):
    """The things of a caption by slot: the first noun of each that it names, and the slots of which it names several different things."""

    nouns: dict[str, Mention]
    several: frozenset[str]


def mentions_of(text: str) -> list[Mention]:
    """Every noun of a thing, left to right; a thing that is named twice is there twice."""
    places = token_places(text)
    found = nouns_described([place.word for place in places])
    return [Mention(each.noun.slot, places[each.at].start, places[each.at].stop, each.denied) for each in found]


def things_named(text: str) -> NamedOnce:
    """What the person has according to a caption; "a red coat ... the coat is long" is one thing, "a shirt under a jacket" are two."""
    things = Counter(thing.slot for thing in read_attributes(text).things if not thing.denied)
    nouns: dict[str, Mention] = {}
    for mention in mentions_of(text):
        if not mention.denied and things[mention.slot] == 1:
            nouns.setdefault(mention.slot, mention)
    return NamedOnce(nouns, frozenset(slot for slot, number in things.items() if number > 1))
