"""Synthetic people as the four tables that an editor learns from, written without the jobs that usually make them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from reid_ray.attributes.lexicon import token_places
from reid_ray.attributes.parser import nouns_described
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.records import CAPTIONS, IDENTITY_COLUMNS, IMAGES, REFERENCES, SEGMENTS, table_of
from reid_ray.storage import TableWriter

EDITED = ("hair", "upper", "lower", "shoes")
_STEP = 256


def write_edit_tables(folder: Path, config: SyntheticConfig) -> Path:
    """images/, captions/, segments/ (linked to the captions' nouns) and references/ below `folder`."""
    people = SyntheticPeople(config)
    schemas = {"images": IMAGES, "captions": CAPTIONS, "segments": SEGMENTS, "references": REFERENCES}
    writers = {name: TableWriter(folder / name, schema) for name, schema in schemas.items()}
    for writer in writers.values():
        writer.__enter__()
    for start in range(0, people.num_images, _STEP):
        stop = min(start + _STEP, people.num_images)
        images, captions = people.image_table(start, stop), people.caption_table(start, stop)
        parsed = [row for row in people.segment_table(start, stop, images=images).to_pylist() if row["slot"] in EDITED]
        writers["images"].append(images)
        writers["captions"].append(captions)
        writers["segments"].append(_linked(parsed, captions))
        pictures = dict(zip(images["image_id"].to_pylist(), people.pictures(start, stop), strict=True))
        said = dict(zip(images["image_id"].to_pylist(), images["attributes"].to_pylist(), strict=True))
        writers["references"].append(_references(parsed, pictures, said))
    for writer in writers.values():
        writer.__exit__(None, None, None)
    return folder


def _linked(parsed: list[dict], captions: pa.Table) -> pa.Table:
    by_image: dict[str, list[dict]] = {}
    for caption in captions.select(["caption_id", "image_id", "text"]).to_pylist():
        by_image.setdefault(caption["image_id"], []).append(caption)
    rows = []
    for row in parsed:
        for caption in by_image[row["image_id"]]:
            tokens = token_places(caption["text"])
            nouns = [tokens[each.at] for each in nouns_described([token.word for token in tokens]) if each.noun.slot == row["slot"]]
            if len(nouns) == 1:
                named = caption["text"][nouns[0].start : nouns[0].stop]
                rows.append(
                    {**row, "caption_id": caption["caption_id"], "noun": named, "noun_start": nouns[0].start, "noun_end": nouns[0].stop}
                )
    return table_of(SEGMENTS, rows)


def _references(parsed: list[dict], pictures: dict[str, np.ndarray], said: dict[str, str]) -> pa.Table:
    rows = []
    for row in parsed:
        if row["status"] != "ok" or row["split"] != "train":
            continue
        left, top, right, bottom = row["box"]
        mask = np.asarray(Image.open(io.BytesIO(row["mask"])).convert("1"))[top:bottom, left:right]
        crop = np.dstack([pictures[row["image_id"]][top:bottom, left:right], mask.astype(np.uint8) * 255])
        encoded = io.BytesIO()
        Image.fromarray(crop).save(encoded, format="PNG")
        known = json.loads(said[row["image_id"]])
        rows.append(
            {
                "reference_id": f"{row['image_id']} {row['slot']}",
                "slot": row["slot"],
                "values": json.dumps({name: known[name] for name in SLOTS[row["slot"]]}),
                "image": encoded.getvalue(),
                "source_image_id": row["image_id"],
                "image_sha256": row["image_sha256"],
                "source": "synthetic",
                "status": "ok",
                **{name: row[name] for name in IDENTITY_COLUMNS},
            }
        )
    return table_of(REFERENCES, rows)
