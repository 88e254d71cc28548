"""Dual encoder (two-tower model): pictures and texts embedded into one space by transformers' own CLIP or SigLIP classes.

DualEncoder is what index, evaluation and serving use, and one folder on disk: config.json and model.safetensors under transformers'
names, tokenizer, preprocessor and manifest.json. Knows weights, tokens and pictures; not training, Ray or tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reid_ray.errors import ConfigError
from reid_ray.model.dual.architectures import family_of
from reid_ray.model.dual.clip import clip_from_scratch
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.grid import image_size_of, stride_of
from reid_ray.model.dual.preprocess import ImageTransform
from reid_ray.model.dual.tokenizer import pads_to_context, train_tokenizer
from reid_ray.model.plain_text import TruncationCounts, full_lengths, plain_tokens
from reid_ray.model.strict_loading import no_progress_bars
from reid_ray.storage import MANIFEST, environment, write_json
from reid_ray.versions import numbered

KIND = "dual-encoder"
_COUNTED_AT_A_TIME = 4096


class DualEncoder:
    """A CLIP or SigLIP model with its tokenizer and image transform; implements reid_ray.model.encoder.Encoder.

    Args:
        model: of one of reid_ray.model.dual.architectures.FAMILIES.
        tokenizer: transformers tokenizer that ends every text with the model's end mark.
        transform: how pictures become pixels.
        device: torch device of the weights, "cpu" or "cuda:0".
        batch_size: pictures or texts per forward pass.
        left_out: names of weights that its file holds beside the model's, such as those of another training's losses.
    """

    reads_texts = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        transform: ImageTransform,
        *,
        device: str = "cpu",
        batch_size: int = 64,
        left_out: Sequence[str] = (),
    ) -> None:
        self.model = model.to(device).eval()
        self.family = family_of(model)
        self.tokenizer, self.transform, self.left_out = tokenizer, transform, tuple(left_out)
        self.device, self.batch_size = torch.device(device), batch_size
        self.dim = self.family.dim(model.config)
        self.context = min(int(model.config.text_config.max_position_embeddings), int(tokenizer.model_max_length))
        self.fingerprint = encoder_digest(model, tokenizer, transform)

    @torch.inference_mode()
    def encode_images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """N RGB pictures of any size -> float32 [N, dim], L2-normalised."""
        batches = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(pictures), self.batch_size):
            pixels_NHWC = np.stack([self.transform.resize(picture) for picture in pictures[start : start + self.batch_size]])
            pixels = torch.from_numpy(self.transform.normalise(pixels_NHWC)).to(self.device)
            batches.append(_unit(self.model.get_image_features(pixel_values=pixels).pooler_output))
        return np.concatenate(batches)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts, cut at the model's context -> float32 [N, dim], L2-normalised."""
        return self.encode_and_measure(texts)[0]

    @torch.inference_mode()
    def encode_and_measure(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """N texts, cut at the model's context -> (float32 [N, dim], L2-normalised; their tokens before the cut, int64 [N])."""
        batches, lengths = [np.zeros((0, self.dim), np.float32)], [np.zeros(0, np.int64)]
        for start in range(0, len(texts), self.batch_size):
            input_ids, tokens = tokenise_and_measure(self.tokenizer, texts[start : start + self.batch_size], context=self.context)
            batches.append(_unit(self.model.get_text_features(input_ids=input_ids.to(self.device)).pooler_output))
            lengths.append(tokens)
        return np.concatenate(batches), np.concatenate(lengths)

    def save(self, folder: str | Path, facts: Mapping[str, Any]) -> None:
        """Write the encoder as one folder; `facts` (how it was trained and selected) go into its manifest."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with no_progress_bars():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_json(folder / "preprocessor_config.json", _preprocessor(self.transform))
        write_json(
            folder / MANIFEST,
            {
                **numbered("encoder"),
                "kind": KIND,
                "fingerprint": self.fingerprint,
                "dim": self.dim,
                "image_height": self.transform.height,
                "image_width": self.transform.width,
                "context": self.context,
                "family": self.family.model_type,
                "pooling": dict(zip(("image", "text"), self.family.pooling, strict=True)),
                "patch_stride": stride_of(self.model.config.vision_config),
                "parameters": sum(weight.numel() for weight in self.model.parameters()),
                "facts": dict(facts),
                "environment": environment(),
            },
        )


def build_dual_encoder(config: ModelConfig, texts: Iterable[str], *, seed: int = 0) -> DualEncoder:
    """A new, untrained dual encoder of config.scratch whose tokenizer is trained on `texts`.

    Raises:
        ConfigError: config.init is set: then reid_ray.model.pretrained.open_pretrained is the way.
    """
    if config.init is not None:
        raise ConfigError(f"model.init is {config.init}, so the model is loaded, not built; set model.init to null to build one")
    shape = config.scratch
    tokenizer = train_tokenizer(texts, vocab_size=shape.vocab_size, context=shape.context)
    clip = clip_from_scratch(
        shape,
        height=config.image_height,
        width=config.image_width,
        vocab_size=len(tokenizer),
        end_id=tokenizer.eos_token_id,
        stride=config.patch_stride,
        seed=seed,
    )
    height, width = image_size_of(clip.config.vision_config)
    return DualEncoder(clip, tokenizer, ImageTransform(height, width))


def tokenise(tokenizer: Any, texts: Sequence[str], *, context: int) -> torch.Tensor:
    """N texts -> token ids, int64 [N, T]: padded on the right, cut at `context` tokens, the end mark kept.

    CLIP's are padded to the longest of them: its text tower is causal and is read at the end mark, so it never looks at what pads behind
    it. SigLIP's are padded to the context, which its text tower sees as a part of the text. Neither has a mask.
    """
    input_ids: torch.Tensor = _tokenised(tokenizer, texts, context)["input_ids"]
    return input_ids


def tokenise_and_measure(tokenizer: Any, texts: Sequence[str], *, context: int) -> tuple[torch.Tensor, np.ndarray]:
    """As tokenise, and how many tokens each text has before it is cut, int64 [N]."""
    encoded = _tokenised(tokenizer, texts, context)
    if tokenizer.is_fast:
        return encoded["input_ids"], full_lengths(encoded)
    return encoded["input_ids"], np.array([len(row) for row in plain_tokens(tokenizer, texts)["input_ids"]], np.int64)


def count_truncated(tokenizer: Any, texts: Iterable[str], *, context: int) -> TruncationCounts:
    """How many texts a model of this tokenizer and context cannot read to their end; a pass over all of them."""
    cut, rest = TruncationCounts(), iter(texts)
    while batch := list(islice(rest, _COUNTED_AT_A_TIME)):
        cut.add(tokenise_and_measure(tokenizer, batch, context=context)[1], context)
    return cut


def _tokenised(tokenizer: Any, texts: Sequence[str], context: int) -> Any:
    return plain_tokens(
        tokenizer,
        texts,
        padding="max_length" if pads_to_context(tokenizer) else "longest",
        truncation=True,
        max_length=context,
        padding_side="right",
        return_attention_mask=True,
        return_tensors="pt",
    )


def _unit(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def _preprocessor(transform: ImageTransform) -> dict[str, Any]:
    # In the form of transformers' CLIPImageProcessor, so that AutoImageProcessor reads it.
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": transform.height, "width": transform.width},
        "resample": int(Image.Resampling.BICUBIC),
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(transform.mean),
        "image_std": list(transform.std),
    }


def encoder_digest(model: Any, tokenizer: Any, transform: ImageTransform) -> str:
    """Content hash of an encoder: 16 digits that change with any weight, the vocabulary or the preprocessing; a second for each GB."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().float().contiguous().numpy().tobytes())
    digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    digest.update(repr(transform).encode())
    return digest.hexdigest()[:16]
