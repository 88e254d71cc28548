"""Noise-aware masking, NAM (Tan et al., CVPR 2024): the noise level of each caption token, its masking probability, BERT's corruption.

noise_levels compares tokens with patches; masking_probability turns last epoch's levels into probabilities; corrupt applies BERT's
80/10/10. All pure: nothing here knows models, workers, files or what a caption says. N texts of T tokens, M patches, D dimensions.

The mask token is the tokenizer's where there is one (masking.mask_token trained adds it). CLIP's vocabulary has none; there the start
mark stands in: it has an embedding of its own and never occurs inside a text, so no word is lost to it. SigLIP's has neither; there it
is the unknown token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reid_ray.model.dual.mask_token import stand_in

# Its own stream of random numbers: masking draws are independent of order, rewrites and augmentation, whatever those use.
_STREAM = 0x6D61736B


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer: its marks, the token that masks, and the ordinary tokens that may replace another."""

    start_id: int | None
    end_id: int
    mask_id: int
    ordinary_V: np.ndarray


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The Vocabulary of a transformers tokenizer that ends every text with an end mark, and may begin it with a start mark."""
    ordinary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    return Vocabulary(tokenizer.bos_token_id, tokenizer.eos_token_id, stand_in(tokenizer), np.array(ordinary, np.int64))


def real_tokens(ids_NT: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Where a token is part of the text: not the start mark, not the first end mark, nothing after it (padding)."""
    ended_NT = np.cumsum(ids_NT == vocabulary.end_id, axis=1) > 0
    started_NT = ids_NT != vocabulary.start_id if vocabulary.start_id is not None else np.ones_like(ended_NT)
    return ~ended_NT & started_NT


def noise_levels(image_NMD: torch.Tensor, text_NTD: torch.Tensor) -> torch.Tensor:
    """r_i = 1 - max_j cos(token i, patch j) of each text with its own picture: 0 for a token that some patch shows, at most 2.

    Args:
        image_NMD: unit vectors of patches, without the class token.
        text_NTD: unit vectors of tokens.

    Returns:
        [N, T], also for marks and padding, whose levels mean nothing.
    """
    return 1 - (text_NTD @ image_NMD.transpose(1, 2)).amax(dim=2)


def masking_probability(noise_NT: np.ndarray, real_NT: np.ndarray, *, mean: float) -> np.ndarray:
    """r_i - E_r + p for the real tokens of each text, clipped to [0, 1]; 0 for the others.

    Args:
        noise_NT: r of last epoch; NaN where it is not known. A text of which any real token is unknown is masked equally with p.
        real_NT: bool, which tokens count; E_r is the mean over them.
        mean: p, 0.15 in the paper.
    """
    count_N1 = real_NT.sum(axis=1, keepdims=True)
    level_NT = np.where(real_NT, noise_NT, 0.0)
    mean_N1 = level_NT.sum(axis=1, keepdims=True) / np.maximum(count_N1, 1)
    probability_NT = np.where(np.isnan(mean_N1), mean, np.clip(level_NT - mean_N1 + mean, 0.0, 1.0))
    return np.where(real_NT, probability_NT, 0.0)


def masking_draws(seed: int, epoch: int, text_N: Sequence[int] | np.ndarray, tokens: int) -> np.ndarray:
    """The random numbers in [0, 1) that mask texts `text_N` in `epoch`: float64 [N, tokens, 3].

    A text's numbers depend on (seed, epoch, text) alone: not on its batch, its worker, or how far the batch is padded.
    """
    draws = [np.random.default_rng([seed, _STREAM, epoch, int(text)]).random((tokens, 3)) for text in text_N]
    return np.stack(draws) if draws else np.zeros((0, tokens, 3))


def corrupt(
    ids_NT: np.ndarray, probability_NT: np.ndarray, draw_NT3: np.ndarray, vocabulary: Vocabulary, *, spare_none: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose each token with its probability; a chosen one becomes the mask 80 %, a random ordinary token 10 %, itself 10 %.

    Args:
        ids_NT: tokens.
        probability_NT: of choosing each.
        draw_NT3: of masking_draws.
        vocabulary: the mask, and what may replace a token.
        spare_none: the real tokens, bool [N, T]: of a text of which chance chooses none, the first becomes the mask (IRRA's and NAM's
            code); None leaves such a text whole.

    Returns:
        (ids after corruption, bool: which tokens were chosen), both [N, T].
    """
    chosen_NT = draw_NT3[..., 0] < probability_NT
    fate_NT = draw_NT3[..., 1]
    random_NT = vocabulary.ordinary_V[(draw_NT3[..., 2] * len(vocabulary.ordinary_V)).astype(np.int64)]
    replacement_NT = np.where(fate_NT < 0.8, vocabulary.mask_id, np.where(fate_NT < 0.9, random_NT, ids_NT))
    out_NT = np.where(chosen_NT, replacement_NT, ids_NT)
    if spare_none is not None:
        spared_N = np.flatnonzero(~chosen_NT.any(axis=1) & spare_none.any(axis=1))
        first_N = spare_none[spared_N].argmax(axis=1)
        chosen_NT[spared_N, first_N] = True
        out_NT[spared_N, first_N] = vocabulary.mask_id
    return out_NT, chosen_NT
