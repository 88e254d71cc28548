"""Looks of things: what an edit changes. A look is a colour and a pattern, in words of the lexicon; the kind of thing stays.

Pure; knows words and reference ids, no picture. LooksIndex is the bank of references by slot and look, without their pictures: a draw from
it takes every look of a slot as often as any other, however many references have it.
"""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Mapping

from reid_ray.attributes.lexicon import Values, modifier_of
from reid_ray.attributes.substitution import SURFACE
from reid_ray.caption.ledger.content_keys import digest

Look = tuple[tuple[str, str], ...]  # (facet, word), in SURFACE's order
_FACETS = SURFACE[:2]  # color, pattern
_DRAWS = 32  # of a look before the remaining ones are tried one after the other


def look_of(slot: str, values: Mapping[str, str]) -> Look:
    """The look that a reference's values tell: of upper, {"upper_color": "red", "upper": "shirt"} is color red; unknown words tell none."""
    said = {name.removeprefix(f"{slot}_"): word for name, word in values.items()}
    found = []
    for facet in _FACETS:
        modifier = modifier_of(said[facet]) if facet in said else None
        if modifier is not None and modifier.facet == facet:
            found.append((facet, said[facet]))
    return tuple(found)


def values_of(slot: str, look: Mapping[str, str] | Look) -> dict[str, str]:
    """{attribute: value} of a look, in the names of the synthetic world: {"upper_color": "red"}."""
    return {f"{slot}_{facet}": word for facet, word in dict(look).items()}


def differs(look: Look, old: Mapping[str, Values]) -> bool:
    """Whether a look contradicts what a caption said: some facet of both has no value in common."""
    return any(facet in old and not words_values(facet, word) & old[facet] for facet, word in look)


def words_values(facet: str, word: str) -> Values:
    """The values that a word of a facet stands for."""
    modifier = modifier_of(word)
    return modifier.values if modifier is not None and modifier.facet == facet else frozenset()


class LooksIndex:
    """slot -> look -> reference ids; everything in order, so that the order in which references were read does not matter."""

    def __init__(self) -> None:
        self._looks: dict[str, dict[Look, list[str]]] = {}
        self._order: dict[str, list[Look]] = {}

    def add(self, reference_id: str, slot: str, values: str | None) -> bool:
        """Take a reference up; False if its values tell no look. `values` is the column of REFERENCES."""
        look = look_of(slot, json.loads(values) if values else {})
        if not look:
            return False
        looks = self._looks.setdefault(slot, {})
        if look not in looks:
            looks[look] = []
            insort(self._order.setdefault(slot, []), look)
        if reference_id not in looks[look]:
            insort(looks[look], reference_id)
        return True

    @property
    def slots(self) -> dict[str, int]:
        """Looks of each slot."""
        return {slot: len(looks) for slot, looks in sorted(self._looks.items())}

    def draw_look(self, slot: str, old: Mapping[str, Values], key: str) -> Look | None:
        """A look of a slot that differs from the old one, each as likely as any other; the same key, the same one. None: there is none."""
        order = self._order.get(slot, [])
        tries = [number_of_draw(len(order), key, slot, attempt) for attempt in range(_DRAWS)] if order else []
        for at in [*tries, *range(len(order))]:
            if differs(order[at], old):
                return order[at]
        return None

    def draw_references(self, slot: str, look: Look, count: int, key: str) -> tuple[str, ...]:
        """`count` references of a look, others as long as there are others; the same key, the same ones."""
        found = self._looks[slot][look]
        start = number_of_draw(len(found), key, slot, "reference")
        return tuple(found[(start + number) % len(found)] for number in range(count))


def number_of_draw(below: int, *about: object) -> int:
    """A number in [0, below) that what it is about decides."""
    return int(digest("draw", *about)[:15], 16) % below
