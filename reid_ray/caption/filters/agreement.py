"""Attribute consistency score of one caption with another: what is contradicted, lost and invented, and one number.

Pure, over reid_ray.attributes. This is the attribute-aware companion of the sentence encoder's cosine: a sentence encoder hardly notices
that a red jacket became black, this does; it in turn knows only the words of the lexicon.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from reid_ray.attributes.lexicon import ALWAYS_THERE, SOFT_FACETS, SOFT_VALUES, Values
from reid_ray.attributes.parser import Reading, Thing, read_attributes

# One contradiction ends a rewrite; an invention may be a misread word; dropping all attributes is as bad as two inventions.
CONTRADICTED_COSTS, INVENTED_COSTS, LOSING_ALL_COSTS = 1.0, 0.5, 1.0
_OPPOSED_AGES = ({"young", "old"}, {"slim", "heavy"})


@dataclass
class Agreement:
    """A rewrite against its original; the lists hold words such as "upper color red"."""

    kept: int = 0
    contradicted: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        """In [0, 1]: 1 repeats every attribute; 0 contradicts one, or invents two, or loses all. A loss costs its share of the original."""
        said = self.kept + len(self.contradicted) + len(self.lost)
        cost = CONTRADICTED_COSTS * len(self.contradicted) + INVENTED_COSTS * len(self.invented)
        return max(0.0, 1.0 - cost - (LOSING_ALL_COSTS * len(self.lost) / said if said else 0.0))

    def explain(self) -> str:
        """One line for a reason column: contradicted: ...; invented: ...; lost: ... or agrees."""
        parts = [f"{name}: {', '.join(words)}" for name in ("contradicted", "invented", "lost") if (words := getattr(self, name))]
        return "; ".join(parts) or "agrees"


class Thresholds(Protocol):
    """What a rewrite must reach; FaithfulnessConfig and RefilterJob are such."""

    @property
    def alpha(self) -> float:
        """Least cosine."""

    @property
    def min_agreement(self) -> float | None:
        """Least attribute agreement; None asks for none."""


def why_unfaithful(cosine: float, agreement: Agreement, thresholds: Thresholds) -> str | None:
    """The reason column of a rewrite that misses a threshold, or None if it is faithful."""
    if cosine < thresholds.alpha:
        return f"unfaithful: cosine {cosine:.3f} is below {thresholds.alpha:g}"
    if thresholds.min_agreement is not None and agreement.score < thresholds.min_agreement:
        return f"unfaithful: attribute agreement {agreement.score:.3f} is below {thresholds.min_agreement:g} ({agreement.explain()})"
    return None


def compare_attributes(original: str, rewrite: str) -> Agreement:
    """Compare what two captions say. Not symmetric: the original is the truth."""
    old, new = read_attributes(original), read_attributes(rewrite)
    result = Agreement()
    _compare_people(old, new, result)
    for slot in dict.fromkeys(thing.slot for thing in (*old.things, *new.things)):
        _compare_slot([thing for thing in old.things if thing.slot == slot], [thing for thing in new.things if thing.slot == slot], result)
    known = [*old.loose_colors, *(values for thing in old.things for values in thing.said.get("color", []))]
    for values in new.loose_colors:
        if not any(values & other for other in known):
            result.invented.append(f"color {_name(values)}")
    return result


def _compare_people(old: Reading, new: Reading, result: Agreement) -> None:
    if old.gender and new.gender - old.gender:
        result.contradicted.append(f"gender {_name(new.gender - old.gender)}")
    elif old.gender and new.gender:
        result.kept += 1
    elif old.gender:
        result.lost.append(f"gender {_name(old.gender)}")
    elif new.gender:
        result.invented.append(f"gender {_name(new.gender)}")
    old_age, new_age = set().union(*old.age), set().union(*new.age)
    for pair in _OPPOSED_AGES:
        for value in pair & new_age - old_age:
            if pair & old_age:
                result.contradicted.append(f"person {value}")


def _compare_slot(old: list[Thing], new: list[Thing], result: Agreement) -> None:
    """Match the things of one slot: first same kinds (and colours), then what is left of either side, which changed its kind."""
    result.contradicted += [f"no {thing.word}" for thing in new if thing.denied and any(not o.denied and _alike(o, thing) for o in old)]
    result.contradicted += [thing.word for thing in new if not thing.denied and any(o.denied and _alike(o, thing) for o in old)]
    denied = any(thing.denied for thing in old)
    left = [thing for thing in old if not thing.denied]
    unmatched = []
    for thing in (thing for thing in new if not thing.denied):
        alike = [o for o in left if _alike(o, thing)]
        if not alike:
            unmatched.append(thing)
            continue
        best = max(alike, key=lambda o: _overlap(o, thing))
        left.remove(best)
        result.kept += 0 if _bare(best) else 1
        _compare_facets(best, thing, result)
    for thing in unmatched:
        if left:
            result.contradicted.append(f"{thing.slot} {thing.word}")
            _compare_facets(left.pop(0), thing, result)
        elif not denied and (not _bare(thing) or _words(thing)):
            result.invented.append(" ".join([*_words(thing), thing.word]))
    for thing in left:
        result.lost += [] if _bare(thing) else [f"{thing.slot} {thing.word}"]
        result.lost += [f"{thing.slot} {word}" for word in _words(thing)]


def _compare_facets(old: Thing, new: Thing, result: Agreement) -> None:
    for facet in dict.fromkeys([*old.said, *new.said]):
        before, after = old.said.get(facet, []), new.said.get(facet, [])
        missing = [values for values in before if not any(values & other for other in after)]
        added = [values for values in after if not any(values & other for other in before)]
        result.kept += 0 if _soft(new.slot, facet) else len(before) - len(missing)
        # A new word contradicts while an old one lacks its counterpart; a word beyond those is an addition.
        if before:
            result.contradicted += [f"{new.slot} {facet} {_name(values)}" for values in added[: len(missing)]]
            added, missing = added[len(missing) :], missing[len(added) :]
        if not _soft(new.slot, facet):
            result.invented += [f"{new.slot} {facet} {_name(values)}" for values in added if not values & SOFT_VALUES]
            result.lost += [f"{new.slot} {facet} {_name(values)}" for values in missing if not values & SOFT_VALUES]


def _alike(a: Thing, b: Thing) -> bool:
    return not a.kinds or not b.kinds or bool(a.kinds & b.kinds)


def _overlap(a: Thing, b: Thing) -> int:
    """How well two things of agreeing kinds match: shared colours and patterns, named kinds before generic ones."""
    shared = sum(any(values & other for other in b.said.get(facet, [])) for facet, words in a.said.items() for values in words)
    return 2 * shared + bool(a.kinds & b.kinds)


def _soft(slot: str, facet: str) -> bool:
    return facet in SOFT_FACETS or (facet == "length" and slot != "hair")


def _bare(thing: Thing) -> bool:
    """Whether the noun alone says nothing."""
    return not thing.kinds and thing.slot in ALWAYS_THERE


def _words(thing: Thing) -> list[str]:
    hard = [values for facet, words in thing.said.items() for values in words if not _soft(thing.slot, facet)]
    return [_name(values) for values in hard if not values & SOFT_VALUES]


def _name(values: Values) -> str:
    return "/".join(sorted(values))
