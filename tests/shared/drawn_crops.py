"""Drawn crops that look alike: a table of two near duplicates of each of five people, of whom the table knows two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from reid_ray.data.images import encode_jpeg
from reid_ray.records import IMAGES, table_of

PEOPLE = 5


def near_duplicate_crops(folder: Path) -> pa.Table:
    """Write the table as two files, with a column zone of her own, and return it; image_ids are 0a, 1a, ..., 0b, 1b, ..."""
    rows = [
        {"image_id": f"{person}{side}", "image": _crop(person, quality), "dataset": "mine", "person_id": person if person < 2 else None}
        for side, quality in (("a", 90), ("b", 60))
        for person in range(PEOPLE)
    ]
    table = table_of(IMAGES, rows).append_column("zone", pa.array([f"zone {row['image_id']}" for row in rows]))
    folder.mkdir()
    pq.write_table(table.slice(0, 4), folder / "part-00000.parquet", row_group_size=3)
    pq.write_table(table.slice(4), folder / "part-00001.parquet")
    return table


def _crop(person: int, quality: int) -> bytes:
    """A drawn picture; of one person they differ in how they are encoded alone."""
    picture = Image.new("RGB", (48, 96), (90, 90, 90))
    draw = ImageDraw.Draw(picture)
    rng = np.random.default_rng(person)
    for _ in range(8):
        left, top = int(rng.integers(0, 40)), int(rng.integers(0, 80))
        draw.rectangle((left, top, left + 20, top + 25), fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
    return encode_jpeg(picture, quality=quality)
