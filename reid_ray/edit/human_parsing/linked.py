"""The nouns of captions, linked to segments: which of a caption's things an image shows, at most three of them (Diverse Person).

Pure: rows in, rows out; knows no file. Every image, slot and caption gets a row, and one that is not linked says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from reid_ray.attributes.mentions import things_named

Row = dict[str, Any]
_OF_A_MASK = ("mask", "box", "area")
_ORDER = {"ok": 0, "absent": 1, "failed": 2}


class CaptionText(NamedTuple):
    """A caption of an image."""

    caption_id: str
    text: str


def images_of(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows of SEGMENTS, those of an image together: the images' rows, one for each slot.

    Of several rows of a slot, as an earlier linking leaves them, the first that has a mask is taken, its noun is not.
    """
    for _, own in groupby(rows, key=itemgetter("image_id")):
        best: dict[str, Row] = {}
        for row in own:
            if row["slot"] not in best or _ORDER[row["status"]] < _ORDER[best[row["slot"]]["status"]]:
                best[row["slot"]] = row
        yield [{**row, "caption_id": None, "noun": None, "noun_start": None, "noun_end": None} for row in best.values()]


def linked_rows(found: Sequence[Row], captions: Sequence[CaptionText], *, slots: Sequence[str], most_slots: int) -> list[Row]:
    """The rows of one image once its captions are linked: len(captions or one) x len(slots).

    Args:
        found: the image's rows, one for each slot that was looked for.
        captions: of the image.
        slots: the slots of the result; one that `found` lacks is absent.
        most_slots: linked slots of one caption.

    Reasons beside those of `found`: no_caption (the image has none), not_named (this one does not name the slot), several_named (it names
    two things there, such as a shirt under a jacket), too_many_slots (others were drawn), not_looked_for (`found` has no such slot).
    """
    of_slot = {row["slot"]: row for row in found}
    lacking = {**{name: found[0][name] for name in found[0] if name not in _OF_A_MASK}, "status": "absent", "reason": "not_looked_for"}
    complete = [of_slot.get(slot, {**lacking, "slot": slot}) for slot in slots]
    if not captions:
        return [_without(row, "no_caption") for row in complete]
    return [row for caption in captions for row in _of_caption(complete, caption, most_slots)]


def _of_caption(rows: Sequence[Row], caption: CaptionText, most_slots: int) -> Iterator[Row]:
    named = things_named(caption.text)
    shown = [row["slot"] for row in rows if row["status"] == "ok" and row["slot"] in named.nouns]
    drawn = frozenset(sorted(shown, key=lambda slot: _lot(caption.caption_id, slot))[:most_slots])
    for row in rows:
        slot, own = row["slot"], {**row, "caption_id": caption.caption_id}
        if slot in drawn:
            noun = named.nouns[slot]
            yield {**own, "noun": caption.text[noun.start : noun.stop], "noun_start": noun.start, "noun_end": noun.stop}
        elif slot in shown:
            yield _without(own, "too_many_slots")
        else:
            yield _without(own, "several_named" if slot in named.several else "not_named")


def _lot(caption_id: str, slot: str) -> bytes:
    """Which slots of a caption are linked does not depend on the order of slots, images or captions."""
    return hashlib.sha256(f"{caption_id} {slot}".encode("utf-8", "surrogatepass")).digest()


def _without(row: Mapping[str, Any], reason: str) -> Row:
    """The row as one that is not linked; what was not ok keeps its own reason."""
    if row["status"] != "ok":
        return dict(row)
    return {**row, "status": "absent", "reason": reason, **dict.fromkeys(_OF_A_MASK)}
