"""A published SigLIP, trained masked with the losses that ask most of its towers, saved, loaded, indexed and searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from small_galleries import make_gallery

from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import tokenise
from reid_ray.model.pretrained import load_encoder, open_pretrained
from reid_ray.model.tiny.tiny_siglip import CONTEXT, WIDTH, build_tiny_siglip
from reid_ray.retrieval.query import text_query
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery
from reid_ray.train.dual.towers import LossHeads, TwoTowers
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.train.losses.objective import build_objective
from reid_ray.train.masking.config import MaskingConfig
from reid_ray.train.masking.noise_aware import vocabulary_of
from reid_ray.train.masking.noise_store import NoiseStore
from reid_ray.train.masking.step_masks import StepMasks

pytestmark = pytest.mark.slow

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 160, 30), "white": (230, 230, 230)}
TEXTS = [f"a person in a {upper} coat and {lower} trousers" for upper in COLOURS for lower in COLOURS]


def pictures() -> list[Image.Image]:
    rows = [np.repeat([COLOURS[upper], COLOURS[lower]], 48, axis=0) for upper in COLOURS for lower in COLOURS]
    return [Image.fromarray(np.repeat(row[:, None], 32, axis=1).astype(np.uint8)) for row in rows]


def test_siglip_learns_masked_with_sigmoid_and_irr_and_what_was_saved_is_searched(tmp_path):
    torch.set_num_threads(1)
    build_tiny_siglip(tmp_path / "published", TEXTS)
    encoder = open_pretrained(ModelConfig(init=str(tmp_path / "published"), image_height=96, image_width=32, patch_stride=12))
    before = encoder.encode_images(pictures()) @ encoder.encode_texts(TEXTS).T
    objective = ObjectiveConfig.model_validate(
        {"sdm": {"temperature": 0.1}, "infonce": {"weight": 1}, "sigmoid": {"weight": 1}, "irr": {"weight": 0.5, "heads": 2, "blocks": 1}}
    )
    torch.manual_seed(0)
    start = encoder.family.scale_and_bias(encoder.model)
    heads = LossHeads(objective, dim=WIDTH, persons=16, vocab_size=len(encoder.tokenizer), sigmoid_start=start)
    module, store = TwoTowers(encoder, heads, depth=0.5), NoiseStore(16, CONTEXT)
    masker = StepMasks(
        MaskingConfig(kind="nam"),
        vocabulary_of(encoder.tokenizer),
        store,
        seed=0,
        steps_per_epoch=1,
        device=torch.device("cpu"),
        targets=True,
    )
    pixels = encoder.transform.normalise(np.stack([np.asarray(picture) for picture in pictures()]))
    given = {"pixel_values": torch.from_numpy(pixels), "input_ids": tokenise(encoder.tokenizer, TEXTS, context=CONTEXT)}
    terms, row, optimizer, losses = build_objective(objective), torch.arange(16), torch.optim.Adam(module.parameters(), lr=3e-3), []
    for step in range(60):
        inputs = masker.before(given, row, step)
        features = module(**inputs)
        loss = terms(features, row)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        masker.after(inputs, row, features)
        losses.append(loss.total.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert all(weight.grad is not None for weight in module.parameters())
    assert (store.read(np.arange(16)) > 0).sum() == sum(len(encoder.tokenizer(text)["input_ids"]) - 1 for text in TEXTS)

    module.encoder_with(module.state_dict(), temperature=0.1).save(tmp_path / "model", {})
    trained = load_encoder(tmp_path / "model")
    assert trained.model.logit_scale.item() == module.heads.sigmoid.log_scale.item() != 2.0
    after = trained.encode_images(pictures()) @ trained.encode_texts(TEXTS).T
    own = np.arange(16)
    assert (after.argmax(axis=0) == own).mean() > max(0.5, (before.argmax(axis=0) == own).mean())

    vectors = trained.encode_images(pictures())
    gallery = make_gallery(tmp_path / "gallery", vectors, [{"item_id": f"{n}"} for n in own], encoder=trained.fingerprint)
    answers = SearchEngine(trained, SearchedGallery(gallery)).answer([text_query(text, k=1) for text in TEXTS])
    assert [answer.hits[0].item_id for answer in answers] == [f"{n}" for n in after.argmax(axis=0)]
