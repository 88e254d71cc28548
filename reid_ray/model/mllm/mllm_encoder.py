"""Encoder over a multimodal LLM: pictures, and texts, to unit vectors, by its visual or its latent feature.

"visual" is the visual encoder's own feature (fast; pictures only), "latent" the pooled hidden states of the language model at image or
caption tokens. Knows how to batch; not Ray, indexes or training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from reid_ray.errors import DataError
from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.model_folder import HEADS, OpenMllm, load_mllm
from reid_ray.model.mllm.reid_heads import Neck, Pool
from reid_ray.model.strict_loading import load_state
from reid_ray.storage import sha256_of

Feature = Literal["visual", "latent"]


class MllmEncoder:
    """reid_ray.model.encoder.Encoder over a multimodal LLM.

    Args:
        opened: of load_mllm (tuned) or open_mllm (a base as it is).
        feature: visual or latent.
        neck: take the feature behind the batch-norm neck, where the classifier looks, instead of before it, where distances were trained.
        device: torch device.
        batch_size: pictures or texts per forward pass.

    Raises:
        DataError: `neck` is asked for, but this feature was trained without a classifier.
    """

    def __init__(
        self, opened: OpenMllm, *, feature: Feature = "latent", neck: bool = False, device: str = "cpu", batch_size: int = 16
    ) -> None:
        self._mllm = opened.mllm.to(device).eval()
        self._chat = Chat(opened.processor, context=opened.mllm.context)
        self.context = opened.mllm.context
        self._feature, self._device, self._batch_size = feature, device, batch_size
        self._pool, self._neck = _heads(opened, feature, neck=neck)
        self.dim = self._mllm.visual_dim if feature == "visual" else self._mllm.hidden_dim
        self.reads_texts = feature == "latent" and has_text_latents(opened.manifest)
        self.fingerprint = _fingerprint(
            opened.manifest.get("fingerprint", opened.base["digest"]),
            feature,
            neck,
            opened.config.min_pixels,
            opened.config.max_pixels,
            kind=opened.mllm.model.config.model_type,
        )

    @torch.inference_mode()
    def encode_images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """N RGB pictures of any size -> float32 [N, dim], L2-normalised."""
        batches = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(pictures), self._batch_size):
            part = pictures[start : start + self._batch_size]
            # Nothing after the picture can change its hidden states, so nothing is asked.
            turns = self._chat.picture_turns(part, [""] * len(part))
            visual_features = self._mllm.encode_pictures({name: value.to(self._device) for name, value in turns.pictures.items()})
            if self._feature == "visual":
                batches.append(self._unit(visual_features.visual_AV.float()))
                continue
            hidden = self._mllm.hidden_states(turns.input_ids.to(self._device), turns.attention_mask.to(self._device), visual_features)
            batches.append(self._unit(self._pool(hidden, turns.shown.to(self._device))))
        return np.concatenate(batches)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts, cut at the model's context -> float32 [N, dim], L2-normalised; see encode_and_measure."""
        return self.encode_and_measure(texts)[0]

    @torch.inference_mode()
    def encode_and_measure(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """N texts, cut at the model's context -> (float32 [N, dim], L2-normalised; tokens of their turns before the cut, int64 [N]).

        Raises:
            DataError: the visual encoder has no texts, or a text is empty.
        """
        if self._feature == "visual":
            raise DataError("feature visual: a visual encoder knows no texts; use feature latent")
        empty = [row for row, text in enumerate(texts) if not text.strip()]
        if empty:
            raise DataError(f"text {empty[0]} of {len(texts)} is empty")
        batches, lengths = [np.zeros((0, self.dim), np.float32)], [np.zeros(0, np.int64)]
        for start in range(0, len(texts), self._batch_size):
            fitted = [self._chat.fit(text) for text in texts[start : start + self._batch_size]]
            turns = self._chat.caption_turns([caption for caption, _ in fitted], [""] * len(fitted))
            tokens_B, over_B = turns.attention_mask.sum(dim=1).numpy(), np.array([over for _, over in fitted])
            lengths.append(np.where(over_B > 0, np.maximum(tokens_B + over_B, self.context + 1), tokens_B))
            hidden = self._mllm.hidden_states(turns.input_ids.to(self._device), turns.attention_mask.to(self._device))
            batches.append(self._unit(self._pool(hidden, turns.shown.to(self._device))))
        return np.concatenate(batches), np.concatenate(lengths)

    def _unit(self, feature_ND: torch.Tensor) -> np.ndarray:
        if self._neck is not None:
            feature_ND = self._neck(feature_ND)
        return torch.nn.functional.normalize(feature_ND.float(), dim=-1).cpu().numpy()


def load_mllm_encoder(
    folder: str | Path,
    *,
    base: str | None = None,
    feature: Feature = "latent",
    neck: bool = False,
    device: str = "cpu",
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> MllmEncoder:
    """The encoder in a tuned folder; see load_mllm and MllmEncoder."""
    opened = load_mllm(folder, base=base, dtype=dtype)
    return MllmEncoder(opened, feature=feature, neck=neck, device=device, batch_size=batch_size)


def has_text_latents(manifest: Mapping[str, Any]) -> bool:
    """Whether a tuned model's latent captions were brought to its latent images (objective.sdm), so that it can be searched by text."""
    return bool(manifest) and bool(manifest["facts"]["text_latents"])


def identity_of_tuned(manifest: Mapping[str, Any], feature: Feature) -> tuple[int, str]:
    """(dimension, fingerprint) of the encoder that load_mllm_encoder makes of a tuned folder, from its manifest alone."""
    config = manifest["config"]
    fingerprint = _fingerprint(manifest["fingerprint"], feature, False, config["min_pixels"], config["max_pixels"], kind=manifest["family"])
    return int(manifest["visual_dim" if feature == "visual" else "hidden_dim"]), fingerprint


def _fingerprint(weights: str, feature: Feature, neck: bool, min_pixels: int | None, max_pixels: int | None, *, kind: str) -> str:
    # A latent of an earlier version, which pooled LLaVA's padding too, is another feature.
    pooled = " picture tokens" if feature == "latent" and kind == "llava" else ""
    return sha256_of(f"{weights} {feature} {neck} {min_pixels} {max_pixels}{pooled}".encode())[:16]


def _heads(opened: OpenMllm, feature: Feature, *, neck: bool) -> tuple[Pool, Neck | None]:
    """Pooling and neck of a tuned folder; the mean of a base as it is."""
    pooling = opened.manifest["facts"]["pooling"] if opened.manifest else "mean"
    device = next(opened.mllm.parameters()).device
    pool = Pool(pooling, opened.mllm.hidden_dim).to(device)
    load_state(pool, _below(opened.heads, "pool."), origin=HEADS)
    if not neck:
        return pool, None
    state = _below(opened.heads, f"identity.{feature}.neck.")
    if not state:
        raise DataError(f"neck: this model's {feature} feature was trained without a classifier, so it has no neck; set neck to false")
    found = Neck(len(state["weight"])).to(device)
    load_state(found, state, origin=HEADS)
    return pool, found.eval()


def _below(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
