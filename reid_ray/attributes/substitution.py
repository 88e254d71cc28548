"""Substitution by rule: a caption whose nouns get other colours and patterns, and where the nouns then stand.

Pure text over the parser's noun phrases; it knows no picture. The noun itself stays: what a thing is has not changed, only how it looks.
What cannot be said safely by a rule (a colour that belongs to no noun, a phrase that reads otherwise afterwards) is refused, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reid_ray.attributes.lexicon import MODIFIERS, Token, Values, token_places
from reid_ray.attributes.parser import NounDescribed, nouns_described, read_attributes

# How a thing's surface looks, which goes when it is given another; length, sleeves or texture are its shape and stay.
SURFACE = ("color", "pattern", "shade")
_JOINERS = frozenset({"and", ","})
# Marks in a text while it is changed: around a noun, where something was cut, where a sentence lost its first letter.
_MARKS = _NOUN, _NOUN_ENDS, _CUT, _CAPITAL = "\ue000", "\ue001", "\ue002", "\ue003"
_ARTICLE = re.compile(f"\\b([Aa])n?(\\s+[{_CUT}{_CAPITAL}][{''.join(_MARKS)}]*)(uni|[a-z])", re.IGNORECASE)
_AT_CAPITAL = re.compile(f"{_CAPITAL}([{''.join(_MARKS)}\\s]*)([a-z])")


class CannotSubstituteError(Exception):
    """A caption in which a rule cannot say what has changed; the message is one line."""


class Substituted(NamedTuple):
    """A caption in other words. `nouns` are the nouns' characters (start, stop) in `text`, in the order in which they were named."""

    text: str
    nouns: tuple[tuple[int, int], ...]


class _Cut(NamedTuple):
    start: int
    stop: int
    words: str


def substitute(text: str, changes: Mapping[int, Mapping[str, str]]) -> Substituted:
    """The caption with other looks of some nouns.

    Args:
        text: the caption.
        changes: where a noun begins (its character in `text`) -> facet (color, pattern) -> a word of the lexicon that is said of it now.
            All else that was said of its surface goes. A pattern "plain" is not spoken of; an empty mapping takes the noun's looks away.

    Raises:
        CannotSubstituteError: there is no such noun, or the caption would still say something else.
    """
    tokens = token_places(text)
    found = {tokens[each.at].start: each for each in nouns_described([token.word for token in tokens])}
    if missing := sorted(set(changes) - set(found)):
        raise CannotSubstituteError(f"no noun begins at character {missing[0]}")
    spoken = {start: {facet: word for facet, word in looks.items() if word != "plain"} for start, looks in changes.items()}
    cuts = [cut for start, looks in spoken.items() for cut in _cuts(tokens, found[start], looks)]
    result = _apply(text, cuts, [tokens[found[start].at] for start in changes])
    return _check(text, result, spoken, [found[start] for start in changes])


def looks_of(text: str, noun_start: int) -> dict[str, Values]:
    """What a caption says of the surface of the noun that begins at a character: facet -> values; empty if it says nothing."""
    tokens = token_places(text)
    for each in nouns_described([token.word for token in tokens]):
        if tokens[each.at].start == noun_start:
            said: dict[str, Values] = {}
            for _, modifier in each.modifiers:
                if modifier.facet in SURFACE[:2]:
                    said[modifier.facet] = said.get(modifier.facet, frozenset()) | modifier.values
            return said
    return {}


def _cuts(tokens: Sequence[Token], thing: NounDescribed, wanted: Mapping[str, str]) -> list[_Cut]:
    old = {index: modifier.facet for index, modifier in thing.modifiers if modifier.facet in SURFACE and index != thing.at}
    replaced = {facet: min((index for index, name in old.items() if name == facet), default=None) for facet in wanted}
    kept = {index for index in replaced.values() if index is not None}
    gone = set(old) - kept
    first, last = min([thing.at, *old]), max([thing.at, *old])
    for index in range(first, last + 1):
        beside = {index - 1, index + 1}
        if tokens[index].word in _JOINERS and beside & gone:
            gone.add(index)
    after = [index for index, _ in thing.modifiers if index > thing.at]
    if after and set(after) <= gone:  # nothing is left of "that are blue", "with stripes"
        gone.update(range(thing.at + 1, max(after) + 1))
    cuts = [_Cut(tokens[index].start, tokens[index].stop, wanted[facet]) for facet, index in replaced.items() if index is not None]
    cuts += [_without(tokens, index, thing.at) for index in sorted(gone)]
    return cuts + _added(tokens, thing, {facet: word for facet, word in wanted.items() if replaced[facet] is None}, gone)


def _without(tokens: Sequence[Token], index: int, noun: int) -> _Cut:
    """A token goes with the space towards its noun; a comma with none."""
    if index < noun:
        return _Cut(tokens[index].start, tokens[index + 1].start, "")
    return _Cut(tokens[index - 1].stop, tokens[index].stop, "")


def _added(tokens: Sequence[Token], thing: NounDescribed, wanted: Mapping[str, str], gone: set[int]) -> list[_Cut]:
    """Words of facets that were not spoken of: before the noun, a colour before the pattern."""
    if not wanted:
        return []
    patterns = [index for index, modifier in thing.modifiers if modifier.facet == "pattern" and index < thing.at and index not in gone]
    at = min([thing.at, *patterns]) if "color" in wanted else thing.at
    words = " ".join(wanted[facet] for facet in SURFACE if facet in wanted)
    return [_Cut(tokens[at].start, tokens[at].start, f"{words} ")]


def _apply(text: str, cuts: Sequence[_Cut], nouns: Sequence[Token]) -> Substituted:
    """Carry out the cuts, with marks at the nouns and cuts meanwhile; a sentence keeps its capital, an article goes with its word."""
    if any(mark in text for mark in _MARKS):
        raise CannotSubstituteError("it holds characters for private use")
    # At one place: a noun's end, then what is cut there, then a noun's beginning.
    events = [(noun.stop, -1, noun.stop, _NOUN_ENDS) for noun in nouns] + [(noun.start, 1, noun.start, _NOUN) for noun in nouns]
    events += [(cut.start, 0, cut.stop, (_CAPITAL if _opens_sentence(text, cut) else _CUT) + cut.words) for cut in cuts]
    parts: list[str] = []
    done = 0
    for start, _, stop, words in sorted(events):
        parts += [text[done:start], words]
        done = max(done, stop)
    marked = "".join([*parts, text[done:]])
    marked = _ARTICLE.sub(lambda match: match[1] + ("n" if match[3].lower() in {*"aeiou"} else "") + match[2] + match[3], marked)
    marked = _AT_CAPITAL.sub(lambda match: match[1] + match[2].upper(), marked)
    return _unmarked(marked, nouns)


def _opens_sentence(text: str, cut: _Cut) -> bool:
    return text[cut.start : cut.stop][:1].isupper() and text[: cut.start].rstrip()[-1:] in ("", ".", "!", "?")


def _unmarked(marked: str, nouns: Sequence[Token]) -> Substituted:
    text: list[str] = []
    starts: list[int] = []
    stops: list[int] = []
    for character in marked:
        if character == _NOUN:
            starts.append(len(text))
        elif character == _NOUN_ENDS:
            stops.append(len(text))
        elif character not in _MARKS:
            text.append(character)
    places = dict(zip(sorted(noun.start for noun in nouns), zip(starts, stops, strict=True), strict=True))
    return Substituted("".join(text), tuple(places[noun.start] for noun in nouns))


def _check(text: str, result: Substituted, changes: Mapping[int, Mapping[str, str]], things: Sequence[NounDescribed]) -> Substituted:
    """The result, if each noun reads with its new looks alone, and nothing else that is said is about it, too."""
    before, after = read_attributes(text), read_attributes(result.text)
    for (start, stop), (old_start, looks), thing in zip(result.nouns, changes.items(), things, strict=True):
        wanted = {facet: MODIFIERS[word].values for facet, word in looks.items()}
        noun = result.text[start:stop]
        if looks_of(result.text, start) != wanted:
            raise CannotSubstituteError(f"{noun} would not be read as {' '.join(looks.values()) or 'bare'}")
        if not wanted:
            continue
        slot = thing.noun.slot
        alike = [each for each in after.things if each.slot == slot]
        if len(alike) != sum(each.slot == slot for each in before.things):
            raise CannotSubstituteError(f"it speaks of the {noun} more than once")
        if len(alike) == 1 and any(not values & wanted[facet] for facet in wanted for values in alike[0].said[facet]):
            raise CannotSubstituteError(f"it speaks of the {noun} more than once")
        gone = looks_of(text, old_start).get("color", frozenset()) - wanted.get("color", frozenset())
        if any(values & gone for values in after.loose_colors):
            raise CannotSubstituteError("it names a colour that may be of any thing")
    return result
