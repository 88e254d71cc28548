"""Identities of edited people: who wears other things is another person, with an id that no real one has.

Pure. Real ids are small numbers; a new one is 2**52 and 52 bits of a digest, so that the two never meet and a double holds it exactly.
The digest is of the source person and the references that the new one wears: all pictures of a person that got the same things show one
new person, whatever run, table or order made them; another thing, or another source person, and it is another one. A picture of
nobody known is a person of its own. Among a million new people two share an id with a chance of 1 in 9,000.
"""

from __future__ import annotations

from collections.abc import Iterable

from reid_ray.caption.ledger.content_keys import digest

FIRST_NEW = 1 << 52


def who_is(dataset: str | None, person_id: int | None, image_id: str) -> str:
    """A source person by name: the same for all images of one, across cameras."""
    return f"image {image_id}" if person_id is None else f"person {dataset} {person_id}"


def new_person_id(who: str, worn: Iterable[tuple[str, str]]) -> int:
    """The id of `who` in other things, (slot, reference_id) each; their order does not matter."""
    return FIRST_NEW + (int(digest("edited person", who, sorted(worn))[:13], 16))


def is_new(person_id: int | None) -> bool:
    """Whether an id is one of these."""
    return person_id is not None and person_id >= FIRST_NEW
