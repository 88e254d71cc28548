"""Prepared pictures and texts, and feeds of them: what a model brings is scripted, so that each tensor can be said beforehand."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from reid_ray.config.base import load_config
from reid_ray.data.images import encode_jpeg
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import Counts, TableWriter
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.augment import Fill
from reid_ray.train.feed.loader import Feed
from reid_ray.train.feed.pairs import prepare_pairs


def prepare(folder):
    """Ten identities with three pictures of different sizes each; every caption has a rewrite."""
    draw = np.random.default_rng(0)
    images, captions = [], []
    for row in range(30):
        pixels = draw.integers(0, 256, (24 + row, 12 + row % 5, 3), np.uint8)
        who = {"image_id": f"i{row}", "split": "train", "person_id": row // 3, "dataset": "a"}
        images.append({**who, "image": encode_jpeg(Image.fromarray(pixels)), "camera_id": row % 3})
        captions.append({"caption_id": f"c{row}", "image_id": f"i{row}", "kind": "human", "text": f"text {row}", "status": "ok"})
        captions.append({**captions[-1], "caption_id": f"r{row}", "kind": "rewrite", "text": f"again {row}", "parent_id": f"c{row}"})
    for name, schema, rows in (("images", IMAGES, images), ("captions", CAPTIONS, captions)):
        with TableWriter(folder / name, schema) as writer:
            writer.append(table_of(schema, rows))
    prepare_pairs(job_of(folder), folder, Counts())
    return folder


def job_of(folder, *overrides) -> TrainJob:
    paths = [f"images.path={folder}/images", f"captions.paths=[{folder}/captions]", "output.path=out", "images.val_split=null"]
    batches = ["batches.size=12", "batches.sampler=identity", "batches.samples_per_identity=3", "workers.count=2"]
    return load_config(TrainJob, None, [*paths, *batches, "captions.rewrite_share=0.5", *overrides])


def _as_they_are(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


def _ragged(pictures: list[np.ndarray], texts: list[str]) -> dict[str, torch.Tensor]:
    """Like a processor of pictures of any size: all pixels in one row, and how many are whose."""
    return {
        "pixels": torch.from_numpy(np.concatenate([picture.reshape(-1) for picture in pictures])),
        "sizes": torch.tensor([picture.shape[:2] for picture in pictures]),
        "texts": torch.tensor([[text.startswith("again"), int(text.split()[1])] for text in texts]),
    }


def feed_of(folder, *overrides, rank=0, world=1, resize=_as_they_are) -> Feed:
    config = job_of(folder, *overrides)
    return Feed(
        folder,
        config.batches,
        rewrite_share=config.captions.rewrite_share,
        resize=resize,
        fill=Fill((1, 2, 3), (1, 2, 3)),
        collate=_ragged,
        rank=rank,
        world=world,
    )


def assert_equal(one, other):
    assert one.inputs.keys() == other.inputs.keys()
    assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
    assert torch.equal(one.person_A, other.person_A)
    assert torch.equal(one.text_A, other.text_A)
