"""The editor that ships: small enough, and it changes a garment's colour towards the reference's, on people it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_ray.attributes.lexicon import token_places
from reid_ray.attributes.parser import nouns_described
from reid_ray.attributes.substitution import substitute
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.traits import COLORS
from reid_ray.model.editor.edit_request import EditReference, EditRequest
from reid_ray.model.editor.reference_editor import Editor
from reid_ray.model.model_files import resolve_model

pytestmark = pytest.mark.slow
UPPER = list(SLOTS).index("upper")


def test_it_is_small():
    folder = Path(resolve_model("builtin:tiny-editor"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8 << 20


def test_a_red_reference_makes_a_garment_redder_and_a_blue_one_bluer():
    people = SyntheticPeople(SyntheticConfig(identities=60, images_per_identity=1, seed=12, val_share=0, test_share=0))
    pictures, masks, attributes, captions = people.pictures(), people.masks()[:, UPPER], people.attributes(), people.captions()
    plain = {
        each: next(i for i, one in enumerate(attributes) if (one["upper_color"], one["upper_pattern"]) == (each, "plain"))
        for each in COLORS
    }
    edited = {}
    editor = Editor.open(resolve_model("builtin:tiny-editor"))
    for colour in ("red", "blue"):
        requests = [
            request(pictures[i], masks[i], captions[i], crop_of(pictures[plain[colour]], masks[plain[colour]]), i) for i in range(60)
        ]
        requests = [each for each in requests if each is not None]
        edited[colour] = [(each, picture[each.mask].mean(axis=0)) for each, picture in zip(requests, editor.edit(requests), strict=True)]
    redder = [red[0] - red[2] > blue[0] - blue[2] + 20 for (_, red), (_, blue) in zip(edited["red"], edited["blue"], strict=True)]
    assert len(redder) > 20
    assert np.mean(redder) > 0.9


def crop_of(picture, mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.dstack([picture[box], mask[box].astype(np.uint8) * 255])


def request(picture, mask, captions, crop, seed):
    for text in captions:
        tokens = token_places(text)
        nouns = [tokens[each.at].start for each in nouns_described([token.word for token in tokens]) if each.noun.slot == "upper"]
        if len(nouns) == 1 and mask.sum() > 20:
            bare = substitute(text, {nouns[0]: {}})
            return EditRequest(picture, mask, bare.text, (EditReference(*bare.nouns[0], crop),), seed)
    return None
