"""Reads captions back: which attribute words a text says, and whether they are true of a person.

Knows English words for the attribute vocabulary of synthetic_traits; not who wrote the text or how. It reads noun phrases ("a red striped
shirt", "his shoes are white", "without a hat"), not arbitrary prose; a thing no synthetic person wears counts as said and wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from reid_ray.data.synthetic.sentences import SLOTS, WORDS
from reid_ray.data.synthetic.traits import ATTRIBUTES, COLORS, NONE


class AttributeClaim(NamedTuple):
    """One attribute word of a text: `attribute` has one of `accepts`; `word` is how the text puts it."""

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


# Several words that name one thing, read as one; the longest first.
_JOINED = {
    "button-up shirt": "shirt", "button up shirt": "shirt", "dress shirt": "shirt", "long-sleeved shirt": "shirt",
    "long sleeved shirt": "shirt",
    "short-sleeved shirt": "t-shirt", "hooded sweatshirt": "hoodie", "t shirt": "t-shirt", "tee shirt": "t-shirt", "denim jeans": "jeans",
    "shoulder bag": "shoulderbag", "crossbody bag": "shoulderbag", "cross-body bag": "shoulderbag", "messenger bag": "shoulderbag",
    "hand bag": "handbag", "back pack": "backpack", "baseball cap": "cap", "knit hat": "beanie", "knitted hat": "beanie",
    "woolly hat": "beanie",
    "sun hat": "sunhat", "wide-brimmed hat": "sunhat", "wide brimmed hat": "sunhat", "straw hat": "sunhat", "long coat": "coat",
    "navy blue": "blue", "tied back": "bun",
}  # fmt: skip

# Noun -> (slot, values it may stand for); an empty set accepts nothing, None says nothing about the kind.
_NOUNS: dict[str, tuple[str, frozenset[str] | None]] = {
    "tshirt": ("upper", frozenset({"t-shirt"})), "top": ("upper", None), "sweatshirt": ("upper", frozenset({"hoodie"})),
    "hair": ("hair", None), "hairstyle": ("hair", None), "bun": ("hair", frozenset({"bun"})), "ponytail": ("hair", frozenset()),
    "shoulderbag": ("bag", frozenset({"shoulder bag"})), "bag": ("bag", frozenset(ATTRIBUTES["bag"][1:])),
    "sunhat": ("hat", frozenset({"sun hat"})),
    "hat": ("hat", frozenset(ATTRIBUTES["hat"][1:])),
    "footwear": ("shoes", None), "shoes": ("shoes", None), "sandals": ("shoes", frozenset()),
    **{word: ("upper", frozenset()) for word in ("sweater", "vest", "dress", "blouse", "suit", "jumper")},
    "leggings": ("lower", frozenset()), "shoe": ("shoes", None), "boot": ("shoes", frozenset({"boots"})),
    **{word: ("other", frozenset()) for word in ("scarf", "umbrella", "glasses", "sunglasses", "suitcase", "gloves", "tie", "belt")},
}  # fmt: skip
_PEOPLE: dict[str, str | None] = {
    "he": "man", "his": "man", "him": "man", "she": "woman", "her": "woman", "hers": "woman", "boy": "man", "girl": "woman",
    "person": None, "pedestrian": None, "individual": None, "they": None, "their": None,
}  # fmt: skip
_COLORS = {
    "navy": "blue", "scarlet": "red", "crimson": "red", "violet": "purple", "beige": "brown", "tan": "brown", "khaki": "brown",
    "silver": "grey",
    "golden": "blond", "ginger": "red", "orange": "orange", "gold": "yellow", "cyan": "cyan", "teal": "teal", "maroon": "red",
}  # fmt: skip
_PATTERNS = {
    "plain": "plain",
    "solid": "plain",
    "stripes": "striped",
    "stripe": "striped",
    "checks": "checked",
    "floral": "floral",
    "dotted": "dotted",
}
_LENGTHS = {"short": "short", "long": "long", "bald": "bald", "shoulder-length": "shoulder-length"}
_FILLERS = {
    "a", "an", "the", "his", "her", "their", "pair", "of", "and", "dark", "light", "bright", "very", "is", "are", "in", "that", "with",
    "colored", "coloured", "color", "tied", "open", "large", "small", "any",
}  # fmt: skip
_ADJECTIVES = {"a", "an", "and", "dark", "light", "bright", "any", "open", "large", "small", "colored", "coloured", "pair", "of"}
_LINKS = {"is", "are", "was", "were", "in", "that", "with", "which", "of", "tied"}
_DENIALS = {"no", "without"}
_UNMARKED = {NONE, "plain", "shoes"}  # what goes without saying; "shoes" itself may mean any footwear and is no claim
for _slot in SLOTS:
    for _value in ATTRIBUTES[_slot]:
        for _word in WORDS.get(_value, (_value,)):
            if _slot != "hair" and _value != NONE and " " not in _word:
                _NOUNS.setdefault(_word, (_slot, frozenset({_value})))
for _value in ("striped", "checked"):
    _PATTERNS.update(dict.fromkeys(WORDS[_value], _value))
for _value in ("man", "woman"):
    _PEOPLE.update(dict.fromkeys(WORDS[_value], _value))
_COLORS.update({word: value for value in (*COLORS, "blond") for word in WORDS.get(value, (value,))})


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
    """The attribute words of a text, in order of appearance, each distinct claim once."""
    text = text.lower()
    for phrase, noun in sorted(_JOINED.items(), key=lambda item: -len(item[0])):
        text = re.sub(rf"\b{phrase}\b", noun, text)
    words = re.findall(r"[a-z]+(?:-[a-z]+)*|[.,;:!?]", text)
    claims: dict[tuple[str, frozenset[str] | str], AttributeClaim] = {}
    for at, word in enumerate(words):
        for claim in _claims_at(words, at, word):
            claims.setdefault((claim.attribute, claim.accepts or claim.word), claim)
    return list(claims.values())


def _claims_at(words: list[str], at: int, word: str) -> list[AttributeClaim]:
    if word in _PEOPLE:
        gender = _PEOPLE[word]
        return [AttributeClaim("gender", frozenset({gender}), word)] if gender else []
    if word not in _NOUNS:
        return []
    slot, values = _NOUNS[word]
    before = _before(words, at)
    if _DENIALS & set(before):
        return [AttributeClaim(slot, frozenset({NONE}), f"no {word}")] if slot in ("bag", "hat") else []
    claims = [] if values is None else [AttributeClaim(slot, values, word)]
    for modifier in [*before, *_after(words, at)]:
        attribute, value = None, ""
        if modifier in _COLORS and slot in SLOTS:
            attribute, value = f"{slot}_color", _COLORS[modifier]
            value = "yellow" if value == "blond" and slot != "hair" else value
        elif modifier in _PATTERNS and slot == "upper":
            attribute, value = "upper_pattern", _PATTERNS[modifier]
        elif modifier in _LENGTHS and slot == "hair":
            attribute, value = "hair", _LENGTHS[modifier]
        if attribute:
            claims.append(AttributeClaim(attribute, frozenset({value}), modifier))
    return claims


def _is_modifier(word: str) -> bool:
    return word in _COLORS or word in _PATTERNS or word in _LENGTHS


def _before(words: list[str], at: int) -> list[str]:
    """The modifiers that stand before the noun at `at`: "a red and white striped" before shirt."""
    found = []
    for word in reversed(words[:at]):
        if _is_modifier(word) or word in _DENIALS:
            found.append(word)
        elif word not in (
            "a",
            "an",
            "and",
            "dark",
            "light",
            "bright",
            "any",
            "open",
            "large",
            "small",
            "colored",
            "coloured",
            "pair",
            "of",
        ):
            break
    # "black trousers and red shoes": the walk stops at the noun; "and" alone joins colours of one noun only.
    return found


def _after(words: list[str], at: int) -> list[str]:
    """The modifiers that follow the noun at `at` and belong to no later noun: "hair that is long", "shoes are white"."""
    found: list[str] = []
    linked = False
    for word in words[at + 1 :]:
        if _is_modifier(word) and linked:
            found.append(word)
        elif word in _NOUNS:
            return [] if word != "bun" or words[at] != "hair" else ["bun"]
        elif word in _LINKS:
            linked = True
        elif word not in _FILLERS:
            break
    return found
