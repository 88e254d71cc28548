"""A small world to edit: synthetic people with captions, true segments linked to nouns, and a bank of references from their train split.

Written by hand, table by table, for what stands around an editor; the jobs segment and references make the same from any images.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reid_ray.attributes.lexicon import token_places
from reid_ray.attributes.parser import nouns_described
from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.bit_masks import decode_mask
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.edit.config import EditJob
from reid_ray.records import CAPTIONS, IDENTITY_COLUMNS, IMAGES, REFERENCES, SEGMENTS, table_of
from reid_ray.storage import TableWriter

WORLD = SyntheticConfig(identities=8, images_per_identity=2, height=64, width=32, val_share=0.0, test_share=0.25, seed=3)
_SLOTS = {"hair": ("hair_color",), "upper": ("upper_color", "upper_pattern"), "lower": ("lower_color",), "shoes": ("shoes_color",)}


def write_world(folder: Path, people: SyntheticConfig = WORLD) -> None:
    """images/, captions/, segments/ and references/ of synthetic people; references come from their train split."""
    crowd = SyntheticPeople(people)
    images = crowd.image_table(0, crowd.num_images)
    captions = crowd.caption_table(0, crowd.num_images)
    segments = crowd.segment_table(0, crowd.num_images, images=images)
    with TableWriter(folder / "images", IMAGES, rows_per_part=64) as writer:
        writer.append(images)
    with TableWriter(folder / "captions", CAPTIONS) as writer:
        writer.append(captions)
    truth = [row for row in segments.to_pylist() if row["status"] == "ok"]
    with TableWriter(folder / "segments", SEGMENTS) as writer:
        writer.append(table_of(SEGMENTS, list(_linked(truth, captions.to_pylist()))))
    with TableWriter(folder / "references", REFERENCES) as writer:
        writer.append(table_of(REFERENCES, list(_references(truth, {row["image_id"]: row for row in images.to_pylist()}))))


def _linked(truth: list[dict[str, Any]], captions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    of_image: dict[str, list[dict[str, Any]]] = {}
    for caption in captions:
        of_image.setdefault(caption["image_id"], []).append(caption)
    for row in truth:
        for caption in of_image[row["image_id"]]:
            tokens = token_places(caption["text"])
            for thing in nouns_described([token.word for token in tokens]):
                if thing.noun.slot == row["slot"]:
                    token = tokens[thing.at]
                    noun = {"noun": caption["text"][token.start : token.stop], "noun_start": token.start, "noun_end": token.stop}
                    yield row | {"caption_id": caption["caption_id"]} | noun
                    break


def _references(truth: list[dict[str, Any]], images: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in truth:
        if row["split"] != "train" or row["slot"] not in _SLOTS:
            continue
        image = images[row["image_id"]]
        picture = np.asarray(decode_image(image["image"]))
        mask = decode_mask(row["mask"], width=picture.shape[1], height=picture.shape[0])
        left, top, right, bottom = row["box"]
        crop = np.dstack([picture, np.where(mask, 255, 0).astype(np.uint8)])[top:bottom, left:right]
        attributes = json.loads(image["attributes"])
        file = io.BytesIO()
        Image.fromarray(crop, "RGBA").save(file, "PNG")
        yield {
            "reference_id": sha256(file.getvalue()).hexdigest()[:32],
            "slot": row["slot"],
            "values": json.dumps({name: attributes[name] for name in _SLOTS[row["slot"]]}),
            "image": file.getvalue(),
            "source_image_id": row["image_id"],
            "source": "table",
            "status": "ok",
            **{name: row[name] for name in IDENTITY_COLUMNS},
        }


def edit_config(world: Path, output: Path, **values: object) -> EditJob:
    """An edit job over write_world's tables; `values` by dotted keys with __ for dots."""
    tables = {name: str(world / name) for name in ("captions", "segments", "references")}
    given: dict[str, object] = {"images.source": "parquet", "images.path": str(world / "images"), "images.split": "train", **tables}
    given |= {"output.path": str(output), "editor.model": "scripted", "editor.pool.batch_size": 4, "editor.drawing.batch_size": 4}
    given |= {name.replace("__", "."): value for name, value in values.items()}
    return load_config(EditJob, None, [f"{key}={value}" for key, value in given.items()])
