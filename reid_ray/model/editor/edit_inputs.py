"""An edit's arrays -> the tensors of its network: prompt tokens, where the nouns lie in them, crops, the window and its mask.

Training and editing share it, so that the model meets what it has learnt from. Knows tokenizers and arrays; not weights or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reid_ray.model.editor.edit_network import EditConditions
from reid_ray.model.editor.edit_request import MOST_REFERENCES, EditReference
from reid_ray.model.editor.reference_crop import normalised, reference_pixels
from reid_ray.model.plain_text import plain_tokens


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt's token ids, int64 [T], padded to the context, and the token of each noun; -1: it lies beyond the context."""

    token_T: np.ndarray
    position_K: list[int]


class PromptReader:
    """Tokenizes prompts.

    Args:
        tokenizer: a fast one of transformers, which knows the characters of its tokens; model_max_length is the context.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.context = int(tokenizer.model_max_length)

    def __call__(self, prompt: str, spans: Sequence[tuple[int, int]]) -> ReadPrompt:
        """Tokens of a prompt with the nouns at `spans`.

        A noun of several tokens is stood for by its last, which in a causal text encoder has read them all [ours].
        """
        return self.together([(prompt, spans)])[0]

    def together(self, prompts: Sequence[tuple[str, Sequence[tuple[int, int]]]]) -> list[ReadPrompt]:
        """Tokens of several prompts, each with its spans."""
        options = {"padding": "max_length", "truncation": True, "max_length": self.context, "return_offsets_mapping": True}
        encoded = plain_tokens(self._tokenizer, [prompt for prompt, _ in prompts], **options)
        read = zip(np.asarray(encoded["input_ids"], np.int64), encoded["offset_mapping"], prompts, strict=True)
        return [ReadPrompt(token_T, [_last_token(offsets, *span) for span in spans]) for token_T, offsets, (_, spans) in read]

    def empty(self) -> np.ndarray:
        """Tokens of the empty prompt, what guidance leads away from."""
        return self("", []).token_T


def _last_token(offsets: Sequence[tuple[int, int]], start: int, end: int) -> int:
    """The last token with a character of a span; -1: none has."""
    return max((at for at, (left, right) in enumerate(offsets) if left < end and right > start), default=-1)


def conditions_of(prompts: Sequence[ReadPrompt], crops: Sequence[Sequence[np.ndarray]], *, size: int) -> EditConditions:
    """The conditions of N edits.

    Args:
        prompts: read.
        crops: of each, its references' pixels, uint8 [s, s, 3] (reference_crop.reference_pixels); those whose noun lies beyond the
            context are left out, as is what exceeds MOST_REFERENCES.
        size: their side s.
    """
    count = len(prompts)
    laid = np.zeros((count, MOST_REFERENCES, size, size, 3), np.uint8)
    position, given = np.zeros((count, MOST_REFERENCES), np.int64), np.zeros((count, MOST_REFERENCES), bool)
    for row, (prompt, own) in enumerate(zip(prompts, crops, strict=True)):
        pairs = [(at, crop) for at, crop in zip(prompt.position_K, own, strict=True) if at >= 0]
        for place, (at, crop) in enumerate(pairs[:MOST_REFERENCES]):
            laid[row, place], position[row, place], given[row, place] = crop, at, True
    pixels = np.zeros((count, MOST_REFERENCES, 3, size, size), np.float32)
    pixels[given] = normalised(laid[given])
    tokens = np.stack([prompt.token_T for prompt in prompts])
    return EditConditions(torch.from_numpy(tokens), torch.from_numpy(pixels), torch.from_numpy(position), torch.from_numpy(given))


def crops_of(references: Sequence[EditReference], *, size: int) -> list[np.ndarray]:
    """References' pixels for conditions_of."""
    return [reference_pixels(each.crop, size=size) for each in references]


def unit_pixels(pictures_NHWC: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures_NHWC.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1)


def grey_levels(pictures: torch.Tensor) -> np.ndarray:
    """The way back: [N, 3, H, W] -> uint8 [N, H, W, 3], clipped."""
    return pictures.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
