"""Attribute accuracy against ground truth: which attribute words a synthetic person's caption says, and whether they are true.

Knows what the parser of attributes makes of a caption, and the attribute vocabulary of traits.py; not who wrote the text or how. A thing
that no synthetic person wears counts as said and wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from reid_ray.attributes.lexicon import Values
from reid_ray.attributes.parser import Thing, read_attributes
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.traits import ATTRIBUTES, NONE

_MAY_LACK = ("bag", "hat")
# Facets that the truth has a value for: (slot, facet) -> attribute. What else a caption says (shade, sleeves, curls) is no claim.
_FACETS = {
    ("hair", "length"): "hair",
    ("hair", "tied"): "hair",
    ("upper", "pattern"): "upper_pattern",
    **{(slot, "color"): f"{slot}_color" for slot in SLOTS},
}
_UNMARKED = {NONE, "plain", "shoes"}  # what goes without saying; "shoes" itself may mean any footwear and is no claim


class AttributeClaim(NamedTuple):
    """One attribute word of a text: `attribute` has one of `accepts`; `word` names the noun, or the values of the adjective."""

    attribute: str
    accepts: frozenset[str]
    word: str


class Score(NamedTuple):
    """How a text agrees with the truth. right + len(wrong) == said."""

    right: int
    said: int
    claims: tuple[AttributeClaim, ...]
    wrong: tuple[AttributeClaim, ...]
    missed: tuple[str, ...]  # attributes that the person has and the text does not speak of


def score_caption(text: str, attributes: Mapping[str, str], hidden: Collection[str] = ()) -> Score:
    """Judge every attribute word of `text` against the truth; the same claim made twice counts once.

    Args:
        text: a caption; any case, any punctuation.
        attributes: the truth, {attribute: value} as in the attributes JSON of a synthetic image.
        hidden: slots that the picture does not show; they are not counted as missed.
    """
    claims = read_claims(text)
    wrong = tuple(claim for claim in claims if attributes.get(claim.attribute) not in claim.accepts)
    spoken = {claim.attribute for claim in claims}
    unseen = {name for slot in hidden for name in SLOTS.get(slot, ())}
    missed = tuple(
        name for name, value in attributes.items() if name in ATTRIBUTES and value not in _UNMARKED and name not in spoken | unseen
    )
    return Score(right=len(claims) - len(wrong), said=len(claims), claims=tuple(claims), wrong=wrong, missed=missed)


def read_claims(text: str) -> list[AttributeClaim]:
    """What a text says in the terms of ATTRIBUTES, each distinct claim once; accepts is empty for what no synthetic person has."""
    reading = read_attributes(text)
    claims = [AttributeClaim("gender", frozenset({gender}), gender) for gender in sorted(reading.gender)]
    for thing in reading.things:
        claims += _claims_of(thing)
    return list({(claim.attribute, claim.accepts or claim.word): claim for claim in reversed(claims)}.values())[::-1]


def _claims_of(thing: Thing) -> Iterator[AttributeClaim]:
    slot = "upper" if thing.slot == "full" else thing.slot  # a dress is worn instead of what a synthetic person has there
    if thing.denied:
        if slot in _MAY_LACK:
            yield AttributeClaim(slot, frozenset({NONE}), f"no {thing.word}")
        return
    if slot not in SLOTS or thing.kinds:
        yield AttributeClaim(slot, _accepted(slot, thing.kinds), thing.word)
    elif slot in _MAY_LACK:
        yield AttributeClaim(slot, frozenset(ATTRIBUTES[slot]) - {NONE}, thing.word)
    for facet, words in thing.said.items():
        attribute = _FACETS.get((slot, facet))
        if attribute is not None:
            yield from (AttributeClaim(attribute, _accepted(attribute, values), "/".join(sorted(values))) for values in words)


def _accepted(attribute: str, values: Values) -> frozenset[str]:
    """Those of a word's values that a synthetic person can have."""
    return values & frozenset(ATTRIBUTES.get(attribute, ()))
