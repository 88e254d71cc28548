"""Texts longer than the model reads: the end mark stays where the model pools, masked or not; and positions stretched as in Long-CLIP."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from refusals import refused
from torch.nn import functional

from reid_ray.errors import ConfigError, DataError
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder, tokenise, tokenise_and_measure
from reid_ray.model.dual.text_positions import stretch_positions
from reid_ray.model.pretrained import load_encoder, open_pretrained
from reid_ray.model.tiny.tiny_siglip import build_tiny_siglip
from reid_ray.train.masking.config import MaskingConfig
from reid_ray.train.masking.noise_aware import corrupt, masking_draws, real_tokens, vocabulary_of
from reid_ray.train.masking.noise_store import NoiseStore
from reid_ray.train.masking.step_masks import StepMasks

SHORT = ["A woman in a red coat.", "the man carries a bag"]
LONG = "the person wears a long red coat and carries a blue backpack over grey trousers and white shoes " * 12
SHAPE = {"vision_width": 32, "vision_layers": 1, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 300}


def stretched(table, length, kept=20):
    """Entry by entry, in Python numbers: the definition."""
    rows = table.tolist()
    step = (len(rows) - kept) / (length - kept)
    result = rows[:kept]
    for place in range(length - kept):
        at = kept + place * step
        low = min(int(at), len(rows) - 2)
        result.append([one + (at - low) * (other - one) for one, other in zip(rows[low], rows[low + 1], strict=True)])
    return torch.tensor(result)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A CLIP of 77 positions and a SigLIP, as their releases have them."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("encoders")
    clip = build_dual_encoder(ModelConfig(image_height=32, image_width=16, scratch={**SHAPE, "patch_size": 8}), [*SHORT, LONG])
    torch.manual_seed(0)
    with torch.no_grad():
        clip.model.text_model.embeddings.position_embedding.weight.normal_()
    clip.save(root / "clip", {})
    (root / "clip" / "manifest.json").unlink()
    build_tiny_siglip(root / "siglip", [*SHORT, LONG])
    return root


def opened(folders, name):
    if name == "siglip":
        return load_encoder(folders / "siglip")
    length = None if name == "clip" else int(name.removeprefix("clip at "))
    return open_pretrained(ModelConfig(init=str(folders / "clip"), image_height=32, image_width=16, text_length=length))


ENCODERS = ["clip", "clip at 120", "clip at 248", "siglip"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_a_cut_text_is_read_at_its_end_mark(folders, name):
    """The feature is that of the text's first tokens and the end mark, put together by hand."""
    encoder = opened(folders, name)
    words, end, context = encoder.tokenizer, encoder.tokenizer.eos_token_id, encoder.context
    ids, tokens_N = tokenise_and_measure(words, [LONG, *SHORT], context=context)
    assert ids.shape[1] == context < tokens_N[0]
    assert (tokens_N[1:] < context).all()
    assert (ids == end).any(dim=1).all()
    whole = words(LONG)["input_ids"]
    by_hand = torch.tensor([[*whole[: context - 1], end]])
    assert torch.equal(ids[:1], by_hand)
    with torch.no_grad():
        states = encoder.model.text_model(input_ids=by_hand).last_hidden_state[:, context - 1]
    expected = functional.normalize(encoder.family.project_tokens(encoder.model, states), dim=-1)
    np.testing.assert_allclose(encoder.encode_texts([LONG]), expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_no_mask_ever_falls_on_an_end_mark_or_behind_it(folders, name):
    """Even where every word is to be masked."""
    encoder = opened(folders, name)
    vocabulary, ids = vocabulary_of(encoder.tokenizer), tokenise(encoder.tokenizer, [LONG, *SHORT], context=encoder.context).numpy()
    real = real_tokens(ids, vocabulary)
    masked, chosen = corrupt(ids, real * 1.0, masking_draws(0, 0, [0, 1, 2], ids.shape[1]), vocabulary, spare_none=real)
    assert np.array_equal(chosen, real)
    for before, after in zip(ids, masked, strict=True):
        first = before.tolist().index(vocabulary.end_id)
        assert after[first:].tolist() == before[first:].tolist()
    assert not real[0, -1]
    assert real[0, 1:-1].all()


@pytest.mark.parametrize("length", [77, 78, 100, 120, 248, 400])
def test_positions_are_stretched_as_defined(length):
    table = torch.randn(77, 5, dtype=torch.float64)
    torch.testing.assert_close(stretch_positions(table, length), stretched(table, length).double())


def test_at_248_the_positions_are_long_clips():
    """Keep 20, then quarters between neighbours, and beyond the last one the last slope, as its paper and code say."""
    table = torch.randn(77, 4, dtype=torch.float64)
    longer = stretch_positions(table, 248)
    assert torch.equal(longer[:20], table[:20])
    for old in range(20, 76):
        for quarter in range(4):
            expected = table[old] + quarter / 4 * (table[old + 1] - table[old])
            torch.testing.assert_close(longer[20 + 4 * (old - 20) + quarter], expected)
    for quarter in range(4):
        torch.testing.assert_close(longer[244 + quarter], table[76] + quarter / 4 * (table[76] - table[75]))


@pytest.mark.slow
def test_a_stretched_model_keeps_short_captions_reads_long_ones_and_round_trips(folders, tmp_path):
    own, longer = opened(folders, "clip"), opened(folders, "clip at 248")
    assert (own.context, longer.context) == (77, 248)
    assert all(len(row) <= 20 for row in own.tokenizer(SHORT)["input_ids"])
    np.testing.assert_allclose(longer.encode_texts(SHORT), own.encode_texts(SHORT), atol=1e-6)
    pictures = [Image.new("RGB", (16, 32), colour) for colour in ("red", "blue")]
    np.testing.assert_allclose(longer.encode_images(pictures), own.encode_images(pictures), atol=1e-6)
    # two texts that differ behind token 77 alone
    other = LONG[:-6] + "boots "
    assert np.array_equal(own.encode_texts([LONG]), own.encode_texts([other]))
    beyond = "a red coat " * 30
    assert 77 < len(longer.tokenizer(f"{beyond}and white shoes")["input_ids"]) < 248
    assert not np.allclose(
        longer.encode_texts([f"{beyond}and white shoes"]), longer.encode_texts([f"{beyond}and grey trousers"]), atol=1e-4
    )

    longer.save(tmp_path / "model", {})
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["context"] == 248
    again = load_encoder(tmp_path / "model")
    assert again.context == 248
    assert np.array_equal(again.encode_texts([LONG, *SHORT]), longer.encode_texts([LONG, *SHORT]))
    for length in (None, 248):  # a start from it, with and without saying so
        config = ModelConfig(init=str(tmp_path / "model"), image_height=32, image_width=16, text_length=length)
        assert open_pretrained(config).context == 248


def test_noise_aware_masking_follows_a_caption_to_its_stretched_end(folders, tmp_path):
    """Levels of 2 behind token 150 and of 0 before it: in the next epoch exactly the later ones are masked."""
    encoder = opened(folders, "clip at 248")
    vocabulary, rows = vocabulary_of(encoder.tokenizer), torch.arange(2)
    ids = tokenise(encoder.tokenizer, [LONG, LONG[40:]], context=encoder.context)

    def masks() -> StepMasks:
        store = NoiseStore(2, encoder.context)
        device = torch.device("cpu")
        return StepMasks(MaskingConfig(kind="nam"), vocabulary, store, seed=0, steps_per_epoch=1, device=device, targets=False)

    first = masks()
    level = torch.where(torch.arange(ids.shape[1]) > 150, 2.0, 0.0).expand(2, -1)
    first.after({"full_ids": ids}, rows, {"noise": level})
    first.save(tmp_path)
    resumed = masks()
    resumed.load(tmp_path)
    changed = resumed.before({"input_ids": ids}, rows, step=1)["input_ids"] != ids
    assert changed[:, 151:-1].float().mean() > 0.7  # 10 % of the chosen stay themselves
    assert not changed[:, :151].any()
    assert not changed[:, -1].any()


@pytest.mark.slow
def test_what_cannot_be_stretched_is_refused(folders):
    with refused(ConfigError, "text_length", "77"):
        opened(folders, "clip at 50")
    config = ModelConfig(init=str(folders / "siglip"), image_height=64, image_width=64, text_length=248)
    with refused(ConfigError, "text_length", "siglip"):
        open_pretrained(config)
    with pytest.raises(ValidationError) as error:
        ModelConfig(text_length=248)
    assert "scratch.context" in str(error.value)


@pytest.mark.slow
def test_a_tokenizer_that_loses_or_renames_the_end_mark_is_refused(folders, tmp_path):
    shutil.copytree(folders / "clip", tmp_path / "lost")
    words = json.loads((tmp_path / "lost" / "tokenizer.json").read_text())
    words["post_processor"] = None
    (tmp_path / "lost" / "tokenizer.json").write_text(json.dumps(words))
    with refused(DataError, "end mark", "model.tokenizer"):
        load_encoder(tmp_path / "lost")
    shutil.copytree(folders / "clip", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 7
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with refused(DataError, "eos_token_id", "7"):
        load_encoder(tmp_path / "other")
