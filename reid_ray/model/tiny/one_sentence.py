"""A decoder that answers everything with one sentence, by weights set by hand: what an untrained tiny model needs to pass for a captioner.

Knows embeddings, layers and heads of the Llama kind; no model's class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reid_ray.model.plain_text import plain_tokens

_CERTAINTY = 8.0  # logits differ by about this times the square root of the width


def teach_sentence(layers: Iterable[Any], embedding: Any, head: Any, tokenizer: Any, *, asked: str, sentence: str) -> None:
    """Set weights so that no layer adds to a token's embedding, and the head leads from each token of the answer to the next one.

    Args:
        layers: with self_attn.o_proj and mlp.down_proj.
        embedding: of tokens.
        head: from the width to the vocabulary, not tied to the embedding.
        tokenizer: of the model.
        asked: with what every prompt ends.
        sentence: the answer, of tokens that all differ.

    Raises:
        ValueError: a token stands in it twice, so what follows it cannot be told.
    """
    import torch

    asked_ids, said_ids = plain_tokens(tokenizer, [asked, f" {sentence}"], add_special_tokens=False)["input_ids"]
    chain = [asked_ids[-1], *said_ids, tokenizer.eos_token_id]
    if len(set(chain)) < len(chain):
        raise ValueError(f"{sentence!r} has a token twice")
    with torch.no_grad():
        for layer in layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding_VW = torch.nn.functional.normalize(embedding.weight, dim=-1)
        head.weight.zero_()
        head.weight[chain[1:]] = _CERTAINTY * embedding_VW[chain[:-1]]
