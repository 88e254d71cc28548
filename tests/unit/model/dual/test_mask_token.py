"""A mask token of its own: nothing is embedded differently, it trains, and it is there again when the model is loaded."""

import numpy as np
import pytest
import torch

from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder, tokenise
from reid_ray.model.dual.mask_token import MASK, with_mask_token
from reid_ray.model.pretrained import load_encoder
from reid_ray.model.tiny.tiny_siglip import build_tiny_siglip
from reid_ray.train.dual.towers import TwoTowers
from reid_ray.train.masking.noise_aware import vocabulary_of

TEXTS = ["A woman with long black hair wears a red coat.", "the man carries a blue backpack", f"white shoes {MASK} and a hat"]
SHAPE = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 300, "context": 24}
SIZE = {"image_height": 64, "image_width": 32}


def clip(eos: int | None = None):
    encoder = build_dual_encoder(ModelConfig(**SIZE, scratch=SHAPE), TEXTS)
    if eos is not None:  # as OpenAI's published configuration says it
        encoder.model.config.text_config.eos_token_id = encoder.model.text_model.eos_token_id = eos
    return encoder


@pytest.mark.parametrize("eos", [None, 2])
def test_texts_are_embedded_as_before_and_none_holds_the_token(eos):
    before = clip(eos).encode_texts(TEXTS[:2])
    encoder = with_mask_token(clip(eos))
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS[:2]), before)
    assert encoder.tokenizer.mask_token_id not in tokenise(encoder.tokenizer, TEXTS, context=encoder.context)
    assert with_mask_token(encoder) is encoder


@pytest.mark.slow
@pytest.mark.parametrize("eos", [None, 2])
def test_at_first_it_masks_as_the_start_mark_does_then_it_trains_alone_and_is_saved(tmp_path, eos):
    plain, encoder = clip(eos), with_mask_token(clip(eos))
    start, mask = vocabulary_of(plain.tokenizer).mask_id, vocabulary_of(encoder.tokenizer).mask_id
    assert (start, mask) == (plain.tokenizer.bos_token_id, encoder.tokenizer.mask_token_id)
    assert mask not in vocabulary_of(encoder.tokenizer).ordinary_V
    ids = tokenise(encoder.tokenizer, TEXTS[:2], context=encoder.context)

    def masked(token, module):
        return module(input_ids=torch.cat([ids[:, :2], torch.full((2, 1), token), ids[:, 3:]], dim=1))["text"]

    module = TwoTowers(encoder)
    text = masked(mask, module)
    torch.testing.assert_close(text, masked(start, TwoTowers(plain)))
    table = module.model.text_model.embeddings.token_embedding.weight
    before = table.detach().clone()
    (gradient,) = torch.autograd.grad(text[:, 0].sum(), table)
    assert gradient[mask].abs().max() > 0
    with torch.no_grad():
        table -= 0.1 * gradient
    module.encoder_with({name: weight.detach() for name, weight in module.state_dict().items()}, temperature=0.02).save(tmp_path, {})
    again = load_encoder(tmp_path)
    assert again.tokenizer.mask_token_id == mask
    loaded = again.model.text_model.embeddings.token_embedding.weight
    assert torch.equal(loaded, table)
    assert not torch.equal(loaded[mask], before[mask])
    torch.testing.assert_close(masked(mask, TwoTowers(again)), masked(mask, module))


@pytest.mark.slow
def test_siglip_has_room_for_it_too(tmp_path):
    build_tiny_siglip(tmp_path / "published", TEXTS)
    before = load_encoder(tmp_path / "published")
    unknown, texts = before.tokenizer.unk_token_id, before.encode_texts(TEXTS[:2])
    encoder = with_mask_token(before)
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS[:2]), texts)
    table = encoder.model.text_model.embeddings.token_embedding.weight
    assert torch.equal(table[encoder.tokenizer.mask_token_id], table[unknown])
    encoder.save(tmp_path / "saved", {})
    assert load_encoder(tmp_path / "saved").fingerprint == encoder.fingerprint
