"""From the plan to tensors: each step's pictures are read, decoded, augmented and its texts tokenised, a few steps ahead.

Knows the prepared files, the plan and the model's preprocessing; not the model, losses or Ray. The same step gives the same tensors
on every run; threads change the speed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from reid_ray.config.train import BatchesConfig
from reid_ray.data.augment import augment
from reid_ray.data.batches import BatchPlan
from reid_ray.data.images import decode_image
from reid_ray.data.pairs import PICTURES, SAMPLES, PictureStore, read_pairs
from reid_ray.model.dual_encoder import tokenise
from reid_ray.model.preprocess import ImageTransform


@dataclass(frozen=True)
class TrainBatch:
    """A worker's share of one step: `inputs` of the module, and of each of its A samples the identity and the row of its text."""

    inputs: dict[str, torch.Tensor]
    person_A: torch.Tensor
    text_A: torch.Tensor


class Feed:
    """The batches of one worker.

    Args:
        folder: what prepare_pairs wrote.
        config: size, seed and augmentation.
        rewrite_share: LLM-DA's beta.
        transform: the model's image preprocessing.
        tokenizer: the model's tokenizer.
        context: tokens per text at most.
        rank: this worker.
        world: how many workers share each batch.
    """

    def __init__(
        self,
        folder: Path,
        config: BatchesConfig,
        *,
        rewrite_share: float,
        transform: ImageTransform,
        tokenizer: Any,
        context: int,
        rank: int,
        world: int,
    ) -> None:
        self._samples = read_pairs(folder / SAMPLES)
        self._pictures = PictureStore(folder / PICTURES)
        self._config, self._transform, self._tokenizer, self._context = config, transform, tokenizer, context
        self._rank, self._world = rank, world
        self._fill = tuple(round(255 * value) for value in transform.mean)
        rewrites_S = pc.list_value_length(self._samples["rewrites"]).to_numpy()
        # Texts are numbered as texts_of gives them: captions first, then each caption's rewrites.
        self._first_rewrite_S = len(rewrites_S) + np.cumsum(rewrites_S) - rewrites_S
        self.texts = len(rewrites_S) + int(rewrites_S.sum())
        # Identities of the training split alone, counted from 0, as a classifier wants them.
        persons, self._person_S = np.unique(self._samples["person"].to_numpy(), return_inverse=True)
        self.persons = len(persons)
        self.plan = BatchPlan(rewrites_S, size=config.size, rewrite_share=rewrite_share, seed=config.seed)

    def texts_at(self, rows: np.ndarray) -> list[str]:
        """The texts of rows in the numbering of TrainBatch.text_A."""
        captions = len(self._samples)
        rewrites = pc.list_flatten(self._samples["rewrites"]) if rows.max(initial=0) >= captions else None
        return [
            (self._samples["text"][row] if row < captions or rewrites is None else rewrites[row - captions]).as_py()
            for row in rows.tolist()
        ]

    def batches(self, start: int, stop: int) -> Iterator[TrainBatch]:
        """The batches of steps start .. stop - 1, prepared ahead by threads."""
        with ThreadPoolExecutor(self._config.threads, thread_name_prefix="feed") as pool:
            ahead: deque[Future[TrainBatch]] = deque()
            following = start
            try:
                for _ in range(start, stop):
                    while following < stop and len(ahead) <= self._config.threads:
                        ahead.append(pool.submit(self.make, following))
                        following += 1
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def make(self, step: int) -> TrainBatch:
        """The batch of one step."""
        share = self.plan.share(step, rank=self._rank, world=self._world)
        rows = self._samples.take(share.sample_B)
        texts = [
            text if rewrite < 0 else rewrites[rewrite]
            for text, rewrites, rewrite in zip(rows["text"].to_pylist(), rows["rewrites"].to_pylist(), share.rewrite_B, strict=True)
        ]
        pixels_NHWC = np.stack(
            [self._picture(row, step, place) for row, place in zip(rows["picture"].to_pylist(), share.place_B, strict=True)]
        )
        inputs = {
            "pixel_values": torch.from_numpy(self._transform.normalise(pixels_NHWC)),
            "input_ids": tokenise(self._tokenizer, texts, context=self._context),
        }
        text_A = np.where(share.rewrite_B < 0, share.sample_B, self._first_rewrite_S[share.sample_B] + share.rewrite_B)
        return TrainBatch(inputs, torch.from_numpy(self._person_S[share.sample_B]), torch.from_numpy(text_A))

    def _picture(self, row: int, step: int, place: int) -> np.ndarray:
        pixels_HWC = self._transform.resize(decode_image(self._pictures[row]))
        return augment(
            pixels_HWC,
            self.plan.augmentation(step, place),
            flip=self._config.flip,
            crop_padding=self._config.crop_padding,
            erase=self._config.erase,
            fill=(self._fill[0], self._fill[1], self._fill[2]),
        )
