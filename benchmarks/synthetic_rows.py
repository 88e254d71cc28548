"""The rows of the benchmarks of preparation: distinct ids and captions, pictures out of a thousand, drawn by number; for no other use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter

from reid_ray.data.images import encode_jpeg
from reid_ray.records import CAPTIONS, IMAGES, conform
from reid_ray.storage import TableWriter

CAPTIONS_EACH = 4
_PICTURES, _PIECE, _WORDS_EACH = 1_000, 25_000, 22
_WORDS = np.array(
    "man,woman,red,coat,black,trousers,with,white,shoes,blue,bag,short,dark,hair,walks,left".split(",")  # noqa: SIM905 - shorter
)

# An image with its captions, as users of other formats keep it.
ROWS = pa.schema([pa.field("image", pa.binary()), pa.field("captions", pa.list_(pa.string()))])


def encoded_pictures(*, height: int, width: int) -> list[bytes]:
    """A thousand JPEG files of blurred noise, some kilobytes each at 128 x 64, as a crop of a person takes."""
    draw = np.random.default_rng(0)
    drawn = (Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(_PICTURES))
    return [encode_jpeg(picture.filter(ImageFilter.GaussianBlur(1.5))) for picture in drawn]


def iter_rows(images: int, *, height: int, width: int) -> Iterator[tuple[list[str], pa.Table]]:
    """Ids and rows of ROWS, 25,000 at a time; row n is the same however many there are."""
    pictures = encoded_pictures(height=height, width=width)
    for start in range(0, images, _PIECE):
        numbers = range(start, min(start + _PIECE, images))
        ids = [f"{number % 90:02d}_{number % 7:02d}_{number % 1000:04d}_{number:08d}" for number in numbers]
        draw = np.random.default_rng([1, start])
        texts = [" ".join(row) for row in _WORDS[draw.integers(0, len(_WORDS), (_PIECE * CAPTIONS_EACH, _WORDS_EACH))].tolist()]
        held = pa.array(texts[: len(ids) * CAPTIONS_EACH])
        captions = pa.ListArray.from_arrays(pa.array(np.arange(0, len(held) + 1, CAPTIONS_EACH, dtype=np.int32)), held)
        yield ids, pa.table([pa.array([pictures[number % _PICTURES] for number in numbers]), captions], schema=ROWS)


def write_tables(folder: Path, images: int, *, height: int, width: int) -> None:
    """IMAGES without splits and CAPTIONS of these rows, with a rewrite of every fifth image's first caption."""
    with TableWriter(folder / "images", IMAGES) as image_table, TableWriter(folder / "captions", CAPTIONS) as caption_table:
        for ids, rows in iter_rows(images, height=height, width=width):
            image_table.append(_table(IMAGES, image_id=ids, image=rows["image"]))
            texts = rows["captions"].combine_chunks().flatten().to_pylist()
            names = [f"{name}#{number}" for name in ids for number in range(CAPTIONS_EACH)]
            owners, kinds = [name for name in ids for _ in range(CAPTIONS_EACH)], ["static", "dynamic"] * (len(names) // 2)
            step = 5 * CAPTIONS_EACH
            parents = names[::step]
            caption_table.append(
                _table(
                    CAPTIONS,
                    caption_id=[*names, *(f"{name}r" for name in parents)],
                    image_id=[*owners, *owners[::step]],
                    parent_id=[*[None] * len(names), *parents],
                    kind=[*kinds, *["rewrite"] * len(parents)],
                    text=[*texts, *(f"rewritten: {text}" for text in texts[::step])],
                    status=["ok"] * (len(names) + len(parents)),
                )
            )


def _table(schema: pa.Schema, **columns: Any) -> pa.Table:
    return conform(pa.table(columns), schema, origin="benchmark")
