"""What is known of a reference: {attribute: value} of its slot, from the truth of its image or from a caption's words about its noun.

Knows words; not pictures.
"""

from __future__ import annotations

import json
from typing import Any

from reid_ray.attributes.substitution import looks_of


def values_from_attributes(slot: str, attributes: str | None) -> dict[str, str]:
    """Of a column `attributes` of IMAGES, those of the slot: of upper also upper_color and upper_pattern. Empty if nothing is known."""
    known: Any = json.loads(attributes) if attributes else None
    if not isinstance(known, dict):
        return {}
    return {name: value for name, value in known.items() if isinstance(value, str) and (name == slot or str(name).startswith(f"{slot}_"))}


def values_from_caption(slot: str, text: str, noun_start: int) -> dict[str, str]:
    """Colour and pattern that a caption gives the noun which begins at a character, where it is one and no other; else nothing."""
    looks = looks_of(text, noun_start)
    return {f"{slot}_{facet}": next(iter(values)) for facet, values in sorted(looks.items()) if len(values) == 1}
