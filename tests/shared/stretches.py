"""Tables of pairs in many row groups, prepared stretch by stretch, and what a preparation leaves, byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from reid_ray.config.base import load_config
from reid_ray.data.images import encode_jpeg
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import Counts
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed import join, pairs, pictures
from reid_ray.train.feed.spread import Spread


def small_stretches(monkeypatch) -> None:
    """Three stretches of images and five of captions in the tables of job_of_many."""
    monkeypatch.setattr(pictures, "_STRETCH_ROWS", 20)
    monkeypatch.setattr(join, "_READ_ROWS", 30)


def job_of_many(folder: Path, *overrides: str) -> TrainJob:
    """60 images, some of them cut off, with 150 captions and 15 rewrites, in row groups of seven."""
    images, captions = [], []
    for row in range(60):
        data = encode_jpeg(Image.fromarray(np.full((16, 8, 3), row, np.uint8)))
        who = {"image_id": f"i{row}", "split": "train", "person_id": row, "dataset": "a", "camera_id": row % 3}
        images.append({**who, "image": data[: None if row % 9 else -4]})
    for row in range(150):
        captions.append({"caption_id": f"c{row}", "image_id": f"i{row % 60}", "kind": "human", "text": f"text {row}", "status": "ok"})
    captions += [
        {**captions[row], "caption_id": f"r{row}", "kind": "rewrite", "text": f"again {row}", "parent_id": f"c{row}"}
        for row in range(0, 60, 4)
    ]
    for name, schema, rows in (("images", IMAGES, images), ("captions", CAPTIONS, captions)):
        (folder / name).mkdir(exist_ok=True)
        pq.write_table(table_of(schema, rows), folder / name / "part-00000.parquet", row_group_size=7)
    values = ["images.val_split=null", "images.val_share=0.2", "batches.size=2", "workers.count=1", f"output.path={folder}/out"]
    return load_config(TrainJob, None, [f"images.path={folder}/images", f"captions.paths=[{folder}/captions]", *values, *overrides])


def contents(folder: Path) -> dict[str, bytes]:
    """Name of each file below a folder -> what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prepared(job: TrainJob, folder: Path, spread: Spread, monkeypatch) -> tuple[dict[str, bytes], dict]:
    """(files and what they hold, counts) of a preparation by `spread`."""
    monkeypatch.setattr(pairs, "over_the_cluster", lambda: spread)
    folder.mkdir(exist_ok=True)
    counts = Counts()
    pairs.prepare_pairs(job, folder, counts)
    return contents(folder), counts.as_dict()
