"""Images as captioners are asked for them, and their captions by a chat double, all of a round together."""

from __future__ import annotations

import pyarrow as pa

from reid_ray.caption.image_captions import Captioner
from reid_ray.caption.ledger.missing import ASK, caption_states
from reid_ray.caption.ledger.row_keys import ASK_TYPE, CaptionRecipe
from reid_ray.caption.ledger.write_ahead_log import Index, as_keys
from reid_ray.caption.streaming.in_rounds import run_in_rounds

NOTHING = Index(as_keys([]), as_keys([]), as_keys([]))


def asked(images, config, *, revision="r", max_pixels=10_000_000):
    """The table with what is asked of each image, of which nothing was captioned yet: what an actor is given."""
    recipe = CaptionRecipe(config, revision=revision, templates=None, max_pixels=max_pixels)
    pairs = zip(images["image_id"].to_pylist(), images["image_sha256"].to_pylist(), strict=True)
    return images.append_column(ASK, pa.array([s.missing.column_value() for s in caption_states(list(pairs), recipe, NOTHING)], ASK_TYPE))


def captioned(images, engine, config, *, name="main", revision="r", max_pixels=10_000, templates=None):
    """A captioner's rows of an IMAGES table, of which nothing was captioned yet, in its order."""
    recipe = CaptionRecipe(config, revision=revision, templates=templates, max_pixels=max_pixels)
    captioner = Captioner(name, config, revision=revision, max_pixels=max_pixels, templates=templates)
    rows = images.to_pylist()
    states = caption_states([(row["image_id"], row["image_sha256"]) for row in rows], recipe, NOTHING)
    return [
        row for made in run_in_rounds([captioner.work(r, s.missing) for r, s in zip(rows, states, strict=True)], engine) for row in made
    ]
