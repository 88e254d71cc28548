"""Noise-aware masking against loops, and what makes it repeatable."""

import math

import numpy as np
import pytest
import torch

from reid_ray.train.masking.noise_aware import (
    Vocabulary,
    corrupt,
    masking_draws,
    masking_probability,
    noise_levels,
    real_tokens,
    vocabulary_of,
)

VOCABULARY = Vocabulary(start_id=98, end_id=99, mask_id=98, ordinary_V=np.arange(98))


def test_noise_level_is_one_minus_the_best_cosine_with_a_patch_of_the_own_picture():
    draw = torch.Generator().manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(3, 7, 5, generator=draw), dim=2)
    text = torch.nn.functional.normalize(torch.randn(3, 4, 5, generator=draw), dim=2)
    levels = noise_levels(image, text)
    for n in range(3):
        for i in range(4):
            assert float(levels[n, i]) == pytest.approx(1 - max(float(text[n, i] @ image[n, j]) for j in range(7)), abs=1e-6)


def test_marks_and_padding_are_not_real_tokens():
    ids = np.array([[98, 5, 6, 99, 99, 99], [98, 1, 2, 3, 4, 99], [98, 99, 99, 99, 99, 99]])
    assert real_tokens(ids, VOCABULARY).tolist() == [[False, True, True, False, False, False], [False, *[True] * 4, False], [False] * 6]


def test_probability_is_level_minus_the_captions_own_mean_plus_p_and_clipped():
    noise = np.array([[9.0, 0.2, 0.4, 0.9, 9.0], [9.0, 0.0, 1.9, 9.0, 9.0]])
    real = np.array([[False, True, True, True, False], [False, True, True, False, False]])
    expected = [[0, 0.2 - 0.5 + 0.15, 0.4 - 0.5 + 0.15, 0.9 - 0.5 + 0.15, 0], [0, 0, 1, 0, 0]]
    expected[0][1] = 0  # -0.15 before clipping
    np.testing.assert_allclose(masking_probability(noise, real, mean=0.15), expected, atol=1e-12)


def test_a_caption_without_levels_is_masked_equally():
    noise = np.array([[np.nan] * 4, [np.nan, 0.5, np.nan, np.nan]])
    real = np.array([[False, True, True, False]] * 2)
    np.testing.assert_array_equal(masking_probability(noise, real, mean=0.15), np.where(real, 0.15, 0))


def test_a_text_without_words_is_left_alone():
    assert not masking_probability(np.full((1, 3), np.nan), np.zeros((1, 3), bool), mean=0.15).any()


def test_draws_depend_on_seed_epoch_and_text_and_not_on_batch_or_padding():
    one = masking_draws(7, 2, [10, 11, 12], 20)
    np.testing.assert_array_equal(masking_draws(7, 2, [12, 10], 8), one[[2, 0], :8])
    for other in (masking_draws(8, 2, [10], 20), masking_draws(7, 3, [10], 20), masking_draws(7, 2, [13], 20)):
        assert not np.isclose(other[0], one[0]).any()


def test_a_chosen_token_becomes_mask_random_or_itself_in_the_shares_of_bert():
    count = 200_000
    ids = np.random.default_rng(0).integers(0, 98, (count // 50, 50))
    out, chosen = corrupt(ids, np.full(ids.shape, 0.15), masking_draws(0, 0, range(count // 50), 50), VOCABULARY, spare_none=None)
    assert (out[~chosen] == ids[~chosen]).all()
    total = chosen.sum()
    assert total / count == pytest.approx(0.15, abs=4 * math.sqrt(0.15 * 0.85 / count))
    tolerance = 4 * math.sqrt(0.25 / total)
    masked, same = out[chosen] == VOCABULARY.mask_id, out[chosen] == ids[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=tolerance)
    assert same.mean() == pytest.approx(0.1 + 0.1 / 98, abs=tolerance)
    random = out[chosen][~masked & ~same]
    assert np.bincount(random, minlength=98).min() > 0
    assert random.max() < 98


def test_probability_zero_and_one_are_certain():
    ids = np.array([[1, 2, 3, 4]])
    out, chosen = corrupt(ids, np.array([[0.0, 1.0, 0.0, 1.0]]), masking_draws(0, 0, [0], 4), VOCABULARY, spare_none=None)
    assert chosen.tolist() == [[False, True, False, True]]
    assert out[0, [0, 2]].tolist() == [1, 3]


def test_a_caption_of_which_chance_chooses_nothing_has_its_first_word_masked():
    real = np.array([[False, True, True, False], [False, True, True, True], [False, False, False, False]])
    ids = np.array([[1, 5, 6, 2], [1, 5, 6, 7], [1, 2, 2, 2]])
    draws = np.full((3, 4, 3), 0.99)
    draws[1, 2] = 0.0
    probability = np.where(real, 0.15, 0.0)
    probability[0, 1] = 0.0  # a word that is certain is masked all the same
    out, chosen = corrupt(ids, probability, draws, VOCABULARY, spare_none=real)
    assert chosen.tolist() == [[False, True, False, False], [False, False, True, False], [False] * 4]
    assert out[0, 1] == out[1, 2] == VOCABULARY.mask_id
    assert (out == ids).sum() == 10


def test_the_mask_token_of_clip_is_its_start_mark_and_random_tokens_are_never_marks():
    from reid_ray.model.dual.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["a man in a red coat"] * 3, vocab_size=300, context=12)
    vocabulary = vocabulary_of(tokenizer)
    assert vocabulary.mask_id == vocabulary.start_id == tokenizer.bos_token_id
    assert not set(vocabulary.ordinary_V.tolist()) & {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert len(vocabulary.ordinary_V) == len(tokenizer) - 2
