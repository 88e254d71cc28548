"""SigLIP as a dual encoder against transformers' own model and against its formulas by hand."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from torch.nn import functional
from transformers import SiglipModel

from reid_ray.errors import DataError
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import tokenise
from reid_ray.model.dual.token_features import image_pass, patch_features, token_features
from reid_ray.model.pretrained import load_encoder, open_pretrained
from reid_ray.model.tiny.tiny_siglip import CONTEXT, PATCH, SIZE, WIDTH, build_tiny_siglip
from reid_ray.train.dual.towers import LossHeads, TwoTowers
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.train.losses.logit_scale import LogitScale
from reid_ray.train.masking.noise_aware import corrupt, masking_draws, real_tokens, vocabulary_of

TEXTS = ["A woman with long black hair wears a red coat.", "the man carries a blue backpack", "a person in grey trousers and white shoes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("siglip")
    build_tiny_siglip(path, TEXTS)
    return path


def pictures(height: int, width: int) -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)]


def unit(features: torch.Tensor) -> np.ndarray:
    return (features / features.pow(2).sum(-1, keepdim=True).sqrt()).detach().numpy()


@pytest.mark.slow
def test_published_siglip_gives_transformers_features_of_texts_padded_to_the_context(folder):
    encoder, theirs = load_encoder(folder), SiglipModel.from_pretrained(folder).eval()
    pixels = np.stack([np.asarray(picture) for picture in pictures(SIZE, SIZE)]).transpose(0, 3, 1, 2) / 127.5 - 1
    images = theirs.get_image_features(torch.from_numpy(pixels.astype(np.float32))).pooler_output
    np.testing.assert_allclose(encoder.encode_images(pictures(SIZE, SIZE)), unit(images), atol=1e-5)

    end = encoder.tokenizer.eos_token_id
    ids = [encoder.tokenizer(text)["input_ids"] for text in TEXTS]
    padded = torch.tensor([row + [end] * (CONTEXT - len(row)) for row in ids])
    assert len({len(row) for row in ids}) > 1
    assert torch.equal(tokenise(encoder.tokenizer, TEXTS, context=encoder.context), padded)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), unit(theirs.get_text_features(padded).pooler_output), atol=1e-5)


@pytest.mark.slow
def test_a_sentencepiece_file_alone_is_refused_by_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.json").rename(tmp_path / "copy" / "spiece.model")
    with refused(DataError, "tokenizer.json"):
        load_encoder(tmp_path / "copy")


def test_naflex_is_refused_by_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    config = (tmp_path / "copy" / "config.json").read_text()
    (tmp_path / "copy" / "config.json").write_text(config.replace('"model_type": "siglip"', '"model_type": "siglip2"'))
    with refused(DataError, "not NaFlex"):
        load_encoder(tmp_path / "copy")


@pytest.mark.slow
def test_other_sizes_and_strides_resize_siglips_positions_and_round_trip(folder, tmp_path):
    encoder = open_pretrained(ModelConfig(init=str(folder), image_height=96, image_width=32, patch_stride=8))
    published = load_encoder(folder)
    changed = [name for name, weight in encoder.model.state_dict().items() if not torch.equal(weight, published.model.state_dict()[name])]
    assert changed == ["vision_model.embeddings.position_embedding.weight"]
    positions = encoder.model.vision_model.embeddings.position_embedding.weight
    assert positions.shape == (11 * 3, WIDTH)  # (96 - 16) / 8 + 1 rows, (32 - 16) / 8 + 1 columns
    encoder.save(tmp_path / "model", {})
    again = load_encoder(tmp_path / "model")
    assert again.fingerprint == encoder.fingerprint
    assert np.array_equal(again.encode_images(pictures(50, 30)), encoder.encode_images(pictures(50, 30)))
    assert np.array_equal(again.encode_texts(TEXTS), published.encode_texts(TEXTS))


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_a_patchs_feature_is_the_map_head_on_that_patch_alone(folder, layer):
    encoder = load_encoder(folder)
    tower, pixels = encoder.model.vision_model, torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    output, captured = image_pass(encoder.model, pixels, layer=layer)
    with torch.no_grad():
        hidden = tower.embeddings(pixels)
        for block in tower.encoder.layers[:layer]:
            hidden = block(hidden, None)
        head, states = tower.head, tower.post_layernorm(hidden)
        # Attention over one key gives that key's value, whatever is asked.
        value, bias = head.attention.in_proj_weight[2 * WIDTH :], head.attention.in_proj_bias[2 * WIDTH :]
        pooled = (states @ value.T + bias) @ head.attention.out_proj.weight.T + head.attention.out_proj.bias
        normed = functional.layer_norm(pooled, (WIDTH,), head.layernorm.weight, head.layernorm.bias, eps=1e-6)
        inner = functional.gelu(normed @ head.mlp.fc1.weight.T + head.mlp.fc1.bias, approximate="tanh")
        expected = unit(pooled + inner @ head.mlp.fc2.weight.T + head.mlp.fc2.bias)
    np.testing.assert_allclose(patch_features(encoder.model, captured).numpy(), expected, atol=1e-5)
    assert expected.shape == (2, (SIZE // PATCH) ** 2, WIDTH)
    assert output.pooler_output.requires_grad
    torch.testing.assert_close(output.pooler_output, encoder.model.get_image_features(pixel_values=pixels).pooler_output)


@pytest.mark.parametrize("layer", [1, 3])
def test_a_tokens_feature_is_the_text_head_on_the_layers_output(folder, layer):
    encoder = load_encoder(folder)
    tower, ids = encoder.model.text_model, tokenise(encoder.tokenizer, TEXTS, context=CONTEXT)
    with torch.no_grad():
        hidden = tower.embeddings(input_ids=ids)
        for block in tower.encoder.layers[:layer]:
            hidden = block(hidden, None)
        expected = unit(tower.final_layer_norm(hidden) @ tower.head.weight.T + tower.head.bias)
    np.testing.assert_allclose(token_features(encoder.model, ids, layer=layer).numpy(), expected, atol=1e-5)


@pytest.mark.slow
def test_masking_spares_siglips_end_mark_and_padding_and_masks_with_the_unknown_token(folder):
    words = load_encoder(folder).tokenizer
    vocabulary, ids = vocabulary_of(words), tokenise(words, TEXTS, context=CONTEXT).numpy()
    real = real_tokens(ids, vocabulary)
    assert real.sum(axis=1).tolist() == [len(words(text)["input_ids"]) - 1 for text in TEXTS]
    assert real[:, 0].all()
    masked, chosen = corrupt(ids, np.where(real, 0.9, 0.0), masking_draws(0, 0, [0, 1, 2], CONTEXT), vocabulary, spare_none=None)
    assert np.array_equal(masked[~real], ids[~real])
    assert (masked[chosen] == words.unk_token_id).mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("sigmoid", [0.0, 1.0])
def test_a_saved_siglip_keeps_the_scale_and_bias_that_the_sigmoid_loss_has_learnt(folder, sigmoid):
    encoder = load_encoder(folder)
    start = encoder.family.scale_and_bias(encoder.model)
    objective = ObjectiveConfig.model_validate({"sigmoid": {"weight": sigmoid}})
    module = TwoTowers(encoder, LossHeads(objective, dim=WIDTH, persons=3, vocab_size=len(encoder.tokenizer), sigmoid_start=start))
    state = {name: weight.detach().clone() for name, weight in module.state_dict().items()}
    if sigmoid:
        assert (state["heads.sigmoid.log_scale"].item(), state["heads.sigmoid.bias"].item()) == (2.0, -3.0)
        state["heads.sigmoid.bias"].fill_(-4.0)
    saved = module.encoder_with(state, temperature=0.02).model
    expected = (2.0, -4.0) if sigmoid else (math.log(50), 0.0)
    assert (saved.logit_scale.item(), saved.logit_bias.item()) == pytest.approx(expected)


def test_a_saved_siglip_keeps_the_scale_that_infonce_has_learnt_from_its_own(folder):
    encoder = load_encoder(folder)
    module = TwoTowers(encoder, scale=LogitScale(encoder.model.logit_scale.item()))
    state = {name: weight.detach().clone() for name, weight in module.state_dict().items()}
    state["scale.shift"].fill_(-0.5)
    assert module.encoder_with(state, temperature=0.02).model.logit_scale.item() == pytest.approx(2.0 - 0.5)
