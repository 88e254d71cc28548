"""Counterfactual drawings: the same shots of the same people, had they worn something else.

Who stands how, where, in which light and before what stays as it is, grain included; what an edit of the picture should look like, pixel
by pixel. Knows which changes make sense; not how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.traits import ATTRIBUTES, NONE, People
from reid_ray.errors import DataError

_SLOT_OF = {attribute: slot for slot, attributes in SLOTS.items() for attribute in attributes}


class Counterfactual(NamedTuple):
    """A shot, and the same shot with changed attributes, both before JPEG."""

    before: np.ndarray  # uint8 [height, width, 3]
    after: np.ndarray
    mask: np.ndarray  # bool [height, width]: where a changed slot shows in either picture
    old: dict[str, str]  # all attributes before
    new: dict[str, str]  # and after


def change_people(people: People, changes: Sequence[Mapping[str, str]]) -> People:
    """`people` with the changes of each.

    Raises:
        DataError: an attribute or value that there is not, one that no slot has (a body, not a dress), or a bag or hat without a colour or
            a colour without its thing.
    """
    codes = {name: code_N.copy() for name, code_N in people.codes.items()}
    for place, changed in enumerate(changes):
        for name, value in changed.items():
            if name not in _SLOT_OF:
                raise DataError(f"{name!r} cannot be changed on a synthetic person; one of {', '.join(_SLOT_OF)} can")
            if value not in ATTRIBUTES[name]:
                raise DataError(f"{name} cannot be {value!r} on a synthetic person; it is one of {', '.join(ATTRIBUTES[name])}")
            codes[name][place] = ATTRIBUTES[name].index(value)
    result = People(people.person_N, codes)
    for attributes in result.attributes():
        for slot in ("bag", "hat"):
            if (attributes[slot] == NONE) != (attributes[f"{slot}_color"] == NONE):
                raise DataError(
                    f"{slot} would be {attributes[slot]!r} with {slot}_color {attributes[f'{slot}_color']!r}; change both, or neither"
                )
    return result


def changed_slots(changed: Mapping[str, str]) -> list[int]:
    """Places in SLOTS of the slots that the changes belong to."""
    slots = list(SLOTS)
    return sorted({slots.index(_SLOT_OF[name]) for name in changed})
