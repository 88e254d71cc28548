"""The score that chooses the weights, against a double loop over the tables that sorts Python tuples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.dual.config import ModelConfig, ScratchConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import TableWriter
from reid_ray.train.dual.config import TransferSet
from reid_ray.train.dual.held_out import prepare_held_out
from reid_ray.train.dual.validation import Validation

SHAPE = ScratchConfig(vision_width=32, vision_layers=1, text_width=32, text_layers=1, embed_dim=16, vocab_size=400, context=32)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """(the prepared split, its images and captions as rows, a model with random weights)."""
    folder = tmp_path_factory.mktemp("validation")
    made = SyntheticPeople(SyntheticConfig(identities=9, images_per_identity=3, height=64, width=32, val_share=0.9, test_share=0.0))
    images, captions = made.image_table(), made.caption_table()
    for name, table, schema in (("images", images, IMAGES), ("captions", captions, CAPTIONS)):
        with TableWriter(folder / name, schema) as writer:
            writer.append(table)
    encoder = build_dual_encoder(ModelConfig(image_height=64, image_width=32, scratch=SHAPE), captions["text"].to_pylist())
    other = TransferSet(name="synthetic", images=str(folder / "images"), captions=str(folder / "captions"))
    (folder / "val").mkdir()
    prepare_held_out(other, "val", folder / "val", max_pixels=10**6)
    held_out = [row for row in images.to_pylist() if row["split"] == "val"]
    ids = {row["image_id"] for row in held_out}
    return folder / "val", held_out, [row for row in captions.to_pylist() if row["image_id"] in ids], encoder


def _scores(folder, encoder, forward):
    scored = Validation(
        folder, transform=encoder.transform, tokenizer=encoder.tokenizer, context=encoder.context, batch_size=5, rank=0, world=1
    )
    return scored(forward)


def _features(encoder, batch):
    ways = {"pixel_values": ("image", encoder.model.get_image_features), "input_ids": ("text", encoder.model.get_text_features)}
    ((given, value),) = batch.items()
    name, encode = ways[given]
    return {name: torch.nn.functional.normalize(encode(**{given: value}).pooler_output, dim=-1)}


@pytest.mark.slow
def test_validation_scores_as_sorting_every_query_does(people):
    folder, images, captions, encoder = people
    person = {row["image_id"]: row["person_id"] for row in images}
    gallery = encoder.encode_images([decode_image(row["image"]) for row in images])
    hits, precisions = [], []
    for row, score_G in zip(captions, encoder.encode_texts([row["text"] for row in captions]) @ gallery.T, strict=True):
        order = sorted(range(len(images)), key=lambda place, score_G=score_G: (-score_G[place], place))
        right = [images[place]["person_id"] == person[row["image_id"]] for place in order]
        hits.append(right[0])
        precisions.append(np.mean([sum(right[: place + 1]) / (place + 1) for place, good in enumerate(right) if good]))
    found = _scores(folder, encoder, lambda batch: _features(encoder, batch))
    assert found == {"r1": pytest.approx(np.mean(hits)), "map": pytest.approx(np.mean(precisions), abs=1e-6)}


def test_one_text_that_is_no_number_leaves_no_score(people):
    folder, _, captions, encoder = people
    asked = 0

    def forward(batch):
        nonlocal asked
        features = _features(encoder, batch)
        if "text" in features:
            asked += len(features["text"])
            features["text"][-1] = torch.nan if asked == len(captions) else features["text"][-1]
        return features

    assert all(np.isnan(value) for value in _scores(folder, encoder, forward).values())
