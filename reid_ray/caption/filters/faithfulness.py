"""Semantic similarity (cosine of sentence embeddings) of two captions: the text faithfulness filter of LLM-DA.

Knows a sentence encoder of the all-MiniLM kind, through transformers; not who wrote the texts or what follows from a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class FaithfulnessScorer(Protocol):
    """What rewriting asks of a scorer."""

    def score(self, originals: Sequence[str], rewrites: Sequence[str]) -> np.ndarray:
        """N pairs of texts -> float32 [N] in [-1, 1]."""
        ...


class SentenceEncoder:
    """A BERT-like encoder with mean pooling over real tokens, as sentence-transformers/all-MiniLM-L6-v2 was trained.

    Args:
        model: a local folder or a hub name (resolved).
        revision: commit or tag of a hub model.
        batch_size: texts per forward pass.
        device: of torch.
        field: the dotted configuration key, named in errors.

    Raises:
        DataError: the hub does not give it, or the weights are not those that its configuration needs. A pooler may lack, for nothing reads
            it.
    """

    def __init__(
        self, model: str, *, revision: str | None = None, batch_size: int = 64, device: str = "cpu", field: str = "faithfulness.model"
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        from reid_ray.model.hub_models import fetch_model
        from reid_ray.model.strict_loading import load_pretrained

        folder = fetch_model(model, revision=revision, field=field)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = load_pretrained(AutoModel, folder, not_needed=("pooler.",), not_known=("cls.", "lm_head."))
        self._model.to(device)
        self._device = device
        self._batch_size = batch_size
        self._max_tokens = min(256, self._model.config.max_position_embeddings)  # beyond, all-MiniLM was never trained

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> float32 [N, D], L2-normalised."""
        import torch

        from reid_ray.model.plain_text import plain_tokens

        pooled_ND = []
        for start in range(0, len(texts), self._batch_size):
            tokens = plain_tokens(
                self._tokenizer,
                texts[start : start + self._batch_size],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                hidden_BTD = self._model(**tokens).last_hidden_state
            real_BT1 = tokens["attention_mask"].unsqueeze(-1).to(hidden_BTD.dtype)
            mean_BD = (hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1)
            pooled_ND.append(torch.nn.functional.normalize(mean_BD.float(), dim=1).cpu().numpy())
        return np.concatenate(pooled_ND) if pooled_ND else np.zeros((0, self._model.config.hidden_size), np.float32)

    def score(self, originals: Sequence[str], rewrites: Sequence[str]) -> np.ndarray:
        """Cosines of N pairs, float32 [N]; a text that occurs twice is encoded once."""
        if not originals:
            return np.zeros(0, np.float32)
        distinct = list(dict.fromkeys([*originals, *rewrites]))
        place = {text: number for number, text in enumerate(distinct)}
        vector_ND = self.encode(distinct)
        original_PD = vector_ND[[place[text] for text in originals]]
        rewrite_PD = vector_ND[[place[text] for text in rewrites]]
        return np.clip((original_PD * rewrite_PD).sum(1), -1, 1).astype(np.float32)
