"""Random sample of images from a source of any size, read in this process. Knows image sources; not what the images are for."""

from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa

from reid_ray.config.common import ImagesConfig
from reid_ray.data.sources import image_listing, iter_images

_PIECES_PER_DRAW = 12  # a piece is some dozen neighbouring images: images from a few pieces are varied, and millions need not be read


def sample_images(config: ImagesConfig, count: int, *, seed: int) -> pa.Table:
    """At most `count` rows of the IMAGES schema, bytes included; the same seed draws the same.

    Raises:
        ReidRayError: the source cannot be listed.
    """
    rng = random.Random(seed)
    listing = image_listing(config)
    wanted = min(len(listing.pieces), _PIECES_PER_DRAW + count // 16)
    pieces = tuple(rng.sample(listing.pieces, wanted))
    table = pa.concat_tables(list(iter_images(config, listing=replace(listing, pieces=pieces))))
    return table.take(sorted(rng.sample(range(table.num_rows), min(count, table.num_rows))))
