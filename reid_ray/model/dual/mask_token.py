"""A mask token for dual encoders that have none: one more entry of the vocabulary, with an embedding that trains.

CLIP's and SigLIP's vocabularies have no mask. The new entry begins as a copy of the token that stands in for one otherwise, so training
starts where it would have started, and moves on its own. Knows a model's table of tokens and its tokenizer; not masking or losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reid_ray.model.dual.dual_encoder import DualEncoder

MASK = "<|mask|>"


def stand_in(tokenizer: Any) -> int:
    """The token that masks: the tokenizer's mask, else its start mark, which never occurs inside a text, else its unknown token."""
    tokens = (tokenizer.mask_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    return next(int(token) for token in tokens if token is not None)


def with_mask_token(encoder: DualEncoder) -> DualEncoder:
    """The encoder with a mask token of its own; the same one if it has one. Texts are embedded as before, for none holds the token."""
    model, tokenizer = encoder.model, encoder.tokenizer
    if tokenizer.mask_token_id is not None:
        return encoder
    begins_as = stand_in(tokenizer)
    tokenizer.add_special_tokens({"mask_token": MASK})
    mask = tokenizer.convert_tokens_to_ids(MASK)
    old_VW = model.text_model.embeddings.token_embedding.weight.detach()
    table = nn.Embedding(max(len(old_VW), mask + 1), old_VW.shape[1])
    with torch.no_grad():
        table.weight[: len(old_VW)] = old_VW
        table.weight[mask] = old_VW[begins_as]
    model.text_model.embeddings.token_embedding = table
    text = model.config.text_config
    text.vocab_size = table.num_embeddings
    if hasattr(model.text_model, "eos_token_id"):
        # Published configurations of CLIP name 2, with which transformers pools at the highest number: from now on, that would be the mask.
        text.eos_token_id = model.text_model.eos_token_id = tokenizer.eos_token_id
    return DualEncoder(model, tokenizer, encoder.transform, batch_size=encoder.batch_size, left_out=encoder.left_out)
