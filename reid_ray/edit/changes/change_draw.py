"""The plan of an edit, drawn from a seed and the tables: which caption, which one to three slots, which new looks, which references.

Pure: the same seed and rows give the same plan, in any order, on any machine. What a person changes into is drawn by the person and not by
the picture, so that all pictures of one change alike as far as they show the same things, and a new person has several pictures. A slot
takes part if its segment is linked to a noun of the caption, the caption says how it looks, the bank has another look, and a rule can say
so (attributes/substitution.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reid_ray.attributes.lexicon import Values
from reid_ray.attributes.substitution import CannotSubstituteError, looks_of, substitute
from reid_ray.caption.ledger.content_keys import digest
from reid_ray.edit.changes.looks import Look, LooksIndex, number_of_draw
from reid_ray.edit.config import ChangesConfig


@dataclass(frozen=True)
class LinkedSegment:
    """A segment and the noun that names it: a row of SEGMENTS, without the mask."""

    slot: str
    caption_id: str
    noun_start: int
    noun_end: int
    area: float
    row: int  # among the segments that were read, to find the mask again


@dataclass(frozen=True)
class SlotChange:
    """One thing's change.

    old: facet -> values, as the caption says. references: one for each try, all of the new look.
    """

    segment: LinkedSegment
    old: Mapping[str, Values]
    look: Look
    references: tuple[str, ...]


@dataclass(frozen=True)
class DrawnEdit:
    """What is to be done to an image. `text` is its caption by rule."""

    caption_id: str
    changes: tuple[SlotChange, ...]
    text: str


def draw_edit(
    who: str, segments: Sequence[LinkedSegment], texts: Mapping[str, str], bank: LooksIndex, config: ChangesConfig, *, number: int
) -> DrawnEdit | str:
    """The edit of an image, or the code of why there is none (docs/reasons.md).

    Args:
        who: the person, as new_person.who_is names one.
        segments: of the image that were found, linked to nouns; of all its captions.
        texts: caption_id -> text.
        bank: references.
        config: what may be changed.
        number: of the edit, where an image gets several.
    """
    usable = [each for each in segments if each.slot in config.slots and each.area >= config.min_area and each.caption_id in texts]
    why = "no_slot"
    if not usable:
        return why
    by_caption: dict[str, dict[str, LinkedSegment]] = defaultdict(dict)
    for each in sorted(usable, key=lambda each: (each.caption_id, each.noun_start)):
        by_caption[each.caption_id].setdefault(each.slot, each)
    richest = max(map(len, by_caption.values()))
    captions = sorted(caption for caption, slots in by_caption.items() if len(slots) == richest)
    key = digest("changes", config.seed, who, number)
    caption_id = captions[number_of_draw(len(captions), key, "caption")]
    return _Draw(key, bank, config).of_caption(caption_id, texts[caption_id], by_caption[caption_id])


@dataclass(frozen=True)
class _Draw:
    key: str
    bank: LooksIndex
    config: ChangesConfig

    def of_caption(self, caption_id: str, text: str, slots: Mapping[str, LinkedSegment]) -> DrawnEdit | str:
        """The first slots, in the person's order, that can be changed; why the last one cannot if none can."""
        most = 1 + number_of_draw(self.config.most_slots, self.key, "slots")
        changes: list[SlotChange] = []
        said, why = text, "no_slot"
        for slot in sorted(slots, key=lambda slot: digest(self.key, slot)):
            drawn = self.of_slot(text, slots[slot])
            if isinstance(drawn, str):
                why = drawn
                continue
            try:
                said = substitute(text, {each.segment.noun_start: dict(each.look) for each in [*changes, drawn]}).text
            except CannotSubstituteError:
                why = "cannot_be_said"
                continue
            changes.append(drawn)
            if len(changes) == most:
                break
        return DrawnEdit(caption_id, tuple(changes), said) if changes else why

    def of_slot(self, text: str, segment: LinkedSegment) -> SlotChange | str:
        """A slot's change, or why there is none."""
        old = looks_of(text, segment.noun_start)
        look = self.bank.draw_look(segment.slot, old, self.key) if old else None
        if look is None:
            why = "no_other_look" if old else "look_unknown"
            return why
        return SlotChange(segment, old, look, self.bank.draw_references(segment.slot, look, self.config.tries, self.key))
