"""Reads a caption's attributes: which things it names, and which colours, patterns and lengths it binds to each.

Pure text over the tables of lexicon.py; no model. It reads noun phrases and what is said of a noun ("a short-sleeved red shirt", "jeans
that are blue", "her hair is long and black", "without a hat"), not arbitrary prose. How two captions agree is agreement.py's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from reid_ray.attributes.lexicon import AGE, ANY, GENDER, STYLE_NOUNS, Modifier, Noun, Values, modifier_of, noun_of, tokens_of, word_set

_DETERMINERS = word_set("a an the his her their its this that these those some one two both pair")
_DENIALS = word_set("no without neither nor")
# Words that end a noun phrase to the left of its noun: verbs, prepositions, pronouns, conjunctions.
_STOPS = word_set(
    "wearing wears wear worn with in on at is are was were be being has have had having carrying carries carry holding holds "
    "hold who whose which while as by to from for over under beneath above below into onto near he she they it him them not "
    "but or also dressed clad sporting sports featuring features paired pairing matched complemented walking standing looks "
    "look appears seems tied styled around along upon together plus"
)
_LINKS = word_set("is are was were in that with which has have being appear appears look looks")
_TAIL_FILLERS = word_set("very a an shade of color colour colored coloured tone toned style styled worn all mostly both quite cut tied")
_UNKNOWN_ALLOWED = 2  # adjectives that the lexicon lacks, such as "leather" or "casual", between a colour and its noun


@dataclass
class Thing:
    """One thing that a caption names. `said` maps facets (color, pattern, length, ...) to the values of each word used."""

    slot: str
    kinds: Values
    word: str
    said: dict[str, list[Values]] = field(default_factory=dict)
    denied: bool = False  # "no hat", "without a bag"

    def add(self, facet: str, values: Values) -> None:
        """Note one more word of a facet; the same word twice counts once."""
        known = self.said.setdefault(facet, [])
        if values not in known:
            known.append(values)


class Reading(NamedTuple):
    """What a caption says."""

    things: tuple[Thing, ...]  # garments, shoes, hair, bags, hats, accessories; several of one slot are possible
    gender: Values  # man, woman; empty if it is not said
    age: tuple[Values, ...]  # young, old, slim, heavy
    loose_colors: tuple[Values, ...]  # colour words that no noun claimed ("all in black")


class Span(NamedTuple):
    """Tokens start to stop (exclusive) that describe one thing; used to cut phrases out of captions."""

    start: int
    stop: int
    slot: str


def read_attributes(text: str) -> Reading:
    """Parse a caption of any length; words that the lexicon lacks are passed over."""
    tokens = tokens_of(text)
    things: list[Thing] = []
    used: set[int] = set()
    for at, noun, modifiers, denied in nouns_described(tokens):
        thing = Thing(noun.slot, noun.kinds, tokens[at], denied=denied)
        for _, said in modifiers:
            thing.add(said.facet, said.values)
        used.update(index for index, _ in modifiers)
        if tokens[at] in STYLE_NOUNS:
            style = modifier_of(tokens[at])
            if style is not None:
                thing.add(style.facet, style.values)
        _merge(things, thing)
    loose = [
        modifier.values
        for index, token in enumerate(tokens)
        if index not in used and (modifier := modifier_of(token)) is not None and modifier.facet == "color"
    ]
    for token in tokens:
        # "Her head is bald": hair is spoken of without the noun.
        if token in ("bald", "balding", "shaved_head") and not any(thing.slot == "hair" for thing in things):
            things.append(Thing("hair", ANY, token, {"length": [frozenset({"bald"})]}))
    return Reading(
        things=tuple(things),
        gender=frozenset(GENDER[token] for token in tokens if token in GENDER),
        age=tuple(dict.fromkeys(frozenset({AGE[token]}) for token in tokens if token in AGE)),
        loose_colors=tuple(dict.fromkeys(loose)),
    )


class NounDescribed(NamedTuple):
    """A noun at token `at`, the modifiers that belong to it, each with its token, and whether it is denied ("no hat")."""

    at: int
    noun: Noun
    modifiers: tuple[tuple[int, Modifier], ...]
    denied: bool


def nouns_described(tokens: list[str]) -> Iterator[NounDescribed]:
    """The nouns of `tokens` (see lexicon.tokens_of) that name a thing, left to right, each with what is said of it."""
    used: set[int] = set()
    for at, noun in _nouns(tokens):
        before, denied = _before(tokens, at, used)
        found = [(index, modifier) for index in [*before, *_after(tokens, at)] if (modifier := modifier_of(tokens[index])) is not None]
        used.update(index for index, _ in found)
        yield NounDescribed(at, noun, tuple(found), denied)


def phrase_spans(tokens: list[str]) -> list[Span]:
    """The noun phrases of `tokens` (see lexicon.tokens_of) that describe a thing, with their determiner, left to right."""
    spans: list[Span] = []
    used: set[int] = set()
    for at, noun in _nouns(tokens):
        before, _ = _before(tokens, at, used)
        start = min([*before, at])
        while start and tokens[start - 1] in _DETERMINERS | {"of"}:
            start -= 1
        after = _after(tokens, at)
        used.update([*before, *after])
        if not spans or start >= spans[-1].stop:
            spans.append(Span(start, max([*after, at]) + 1, noun.slot))
    return spans


def _nouns(tokens: list[str]) -> Iterator[tuple[int, Noun]]:
    for at, token in enumerate(tokens):
        noun = noun_of(token)
        if token == "camera" and tokens[max(0, at - 1)] == "the":
            continue  # "facing the camera", "the camera caught": the one that took the picture
        # "hair in a bun", "shirt with stripes": a style noun right before hair is an adjective ("ponytail hair").
        if noun is not None and not (token in STYLE_NOUNS and at + 1 < len(tokens) and noun_of(tokens[at + 1]) == noun):
            yield at, noun


def _before(tokens: list[str], at: int, used: Collection[int]) -> tuple[list[int], bool]:
    """Indices of the modifiers before the noun at `at`, and whether the phrase is denied; `used` belong to an earlier noun.

    "A red and white striped" before shirt. A conjunction or comma joins modifiers of one noun only, so the part beyond it counts
    if it begins a phrase of its own ("with short, black hair") and not if it ends another clause ("shoes are white, blue jeans").
    """
    found: list[int] = []
    beyond: list[int] = []  # modifiers past a conjunction, not yet accepted
    joined, unknown = False, 0
    for index in range(at - 1, -1, -1):
        token = tokens[index]
        if index in used or (joined and token in STYLE_NOUNS):
            return found, False
        if modifier_of(token) is not None:
            (beyond if joined else found).append(index)
            unknown = 0
        elif token in _DENIALS or (token in ("not", "any") and index and tokens[index - 1] in ("not", "without")):
            return found + beyond, True
        elif token in _DETERMINERS:
            return _accept(tokens, index, found + beyond)
        elif token in ("and", ",") and found and not joined:
            joined = True
        elif token == "of" or token in _TAIL_FILLERS:
            continue
        elif token in _STOPS or token in GENDER or not token[0].isalpha() or noun_of(token) is not None or token == "and":
            linked = token in ("is", "are", "was", "were") or noun_of(token) is not None or token in GENDER
            return _accept(tokens, index, found + ([] if linked else beyond))
        elif joined or (unknown := unknown + 1) > _UNKNOWN_ALLOWED:
            return found, False
    return found + beyond, False


def _accept(tokens: list[str], index: int, found: list[int]) -> tuple[list[int], bool]:
    """The modifiers, and whether a denial stands before the determiner at `index`: "without a", "not wearing a", "no pair of"."""
    left = tokens[max(0, index - 2) : index + 1]
    return found, "without" in left or "not" in left or "no" in left[-2:]


def _after(tokens: list[str], at: int) -> list[int]:
    """Indices of the modifiers that follow the noun at `at` and belong to no later noun: "hair that is long", "shirt with stripes"."""
    found: list[int] = []
    segment: list[int] = []  # modifiers since the last conjunction: a noun that follows takes them
    linked = False
    for index in range(at + 1, min(at + 12, len(tokens))):
        token = tokens[index]
        modifier, empty = modifier_of(token), not (found or segment)
        if modifier is not None and (linked or (modifier.facet == "pattern" and token.endswith("s"))):
            segment.append(index)
        elif token in STYLE_NOUNS:
            break
        elif noun_of(token) is not None:
            return found
        elif token in _LINKS and empty:
            linked = True
        elif token in ("and", ",") and segment:
            found, segment = found + segment, []
        elif token in ("a", "an", "the") and linked and empty:
            continue
        elif token in _DETERMINERS or not token[0].isalpha():
            break
        elif token not in _TAIL_FILLERS:
            # "in black leather shoes": an unknown word after the colour may lead to a noun, which takes it.
            leads_on = segment and token not in _STOPS and any(noun_of(later) is not None for later in tokens[index + 1 : index + 3])
            return found if leads_on else found + segment
    return found + segment


def _merge(things: list[Thing], thing: Thing) -> None:
    """Add a thing, or join it to the mention of the same thing before: "a red coat ... the coat is long", "the top"."""
    for known in things:
        if known.slot != thing.slot or known.denied != thing.denied:
            continue
        if known.kinds == thing.kinds or ANY in (known.kinds, thing.kinds) or known.kinds & thing.kinds:
            colors, new = known.said.get("color", []), thing.said.get("color", [])
            if colors and new and not any(a & b for a in colors for b in new) and thing.slot != "hair":
                continue  # "a white shirt under a black shirt" are two
            known.kinds = known.kinds & thing.kinds or known.kinds or thing.kinds
            for facet, words in thing.said.items():
                for values in words:
                    known.add(facet, values)
            return
    things.append(thing)
