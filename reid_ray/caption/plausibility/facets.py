"""What a caption says of a person, as one word a facet: gender, and kind and colour of what is worn above, below and on the feet.

Knows the attribute parser; not pictures, crowds or thresholds. A facet that a caption does not say is absent, and so is one of which it
says two things ("a shirt under a jacket"): neither counts for or against it.
"""

from __future__ import annotations

from reid_ray.attributes.parser import Thing, read_attributes

GENDER = "gender"
UPPER_COLOR, LOWER_COLOR = "upper color", "lower color"
_WORN = ("upper", "lower", "shoes", "hair", "bag", "hat")


def facets_of(text: str) -> dict[str, str]:
    """Facet -> value; values that the lexicon cannot tell apart are joined ("beige/green")."""
    reading = read_attributes(text)
    said = {GENDER: next(iter(reading.gender))} if len(reading.gender) == 1 else {}
    for slot in _WORN:
        things = [thing for thing in reading.things if thing.slot == slot and not thing.denied]
        if len(things) != 1:
            continue
        if things[0].kinds:
            said[f"{slot} kind"] = "/".join(sorted(things[0].kinds))
        if color := _only(things[0], "color"):
            said[f"{slot} color"] = color
        if length := _only(things[0], "length"):
            said[f"{slot} length"] = length
    return said


def _only(thing: Thing, facet: str) -> str | None:
    words = thing.said.get(facet, [])
    return "/".join(sorted(words[0])) if len(words) == 1 else None
