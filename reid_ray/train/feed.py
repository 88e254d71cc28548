"""From the plan to tensors: each step's pictures are read, decoded, augmented and handed with their texts to a model's collate, ahead.

Knows the prepared files and the plan; not the model, losses or Ray. Pictures and texts become tensors by what the model brings, so
pictures may differ in size if its collate takes that. The same step gives the same tensors on every run; threads change the speed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from reid_ray.config.train import BatchesConfig
from reid_ray.data.batches import BatchPlan, IdentityOrder, Order, ShuffledOrder
from reid_ray.data.decoding import Decoder, Resize
from reid_ray.data.pairs import PICTURES, SAMPLES, read_pairs
from reid_ray.train.parts import TrainBatch

# A samples' pictures, uint8 [H, W, 3] each, and their texts -> the module's inputs.
Collate = Callable[[list[np.ndarray], list[str]], dict[str, torch.Tensor]]


class Feed:
    """The batches of one worker.

    Args:
        folder: what prepare_pairs wrote.
        config: size, sampler, seed and augmentation.
        rewrite_share: LLM-DA's beta.
        resize: the model's; before augmentation.
        fill: colour of padding and erased rectangles, the model's mean colour.
        collate: the model's; after augmentation.
        rank: this worker.
        world: how many workers share each batch.
    """

    def __init__(
        self,
        folder: Path,
        config: BatchesConfig,
        *,
        rewrite_share: float,
        resize: Resize,
        fill: tuple[int, int, int],
        collate: Collate,
        rank: int,
        world: int,
    ) -> None:
        self._samples = read_pairs(folder / SAMPLES)
        self._decoder = Decoder(folder / PICTURES, config, resize=resize, fill=fill)
        self._config, self._collate, self._rank, self._world = config, collate, rank, world
        rewrites_S = pc.list_value_length(self._samples["rewrites"]).to_numpy()
        # Texts are numbered as texts_of gives them: captions first, then each caption's rewrites.
        self._first_rewrite_S = len(rewrites_S) + np.cumsum(rewrites_S) - rewrites_S
        self.texts = len(rewrites_S) + int(rewrites_S.sum())
        # Identities of the training split alone, counted from 0, as a classifier wants them.
        persons, self._person_S = np.unique(self._samples["person"].to_numpy(), return_inverse=True)
        self.persons = len(persons)
        self.plan = BatchPlan(rewrites_S, _order(config, self._samples), rewrite_share=rewrite_share, seed=config.seed)

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
        pictures = self._decoder(rows["picture"].to_pylist(), step=step, place_A=share.place_B.tolist())
        text_A = np.where(share.rewrite_B < 0, share.sample_B, self._first_rewrite_S[share.sample_B] + share.rewrite_B)
        return TrainBatch(self._collate(pictures, texts), torch.from_numpy(self._person_S[share.sample_B]), torch.from_numpy(text_A))


def _order(config: BatchesConfig, samples: pa.Table) -> Order:
    if config.sampler == "shuffle":
        return ShuffledOrder(len(samples), size=config.size, seed=config.seed)
    person_S, picture_S, camera_S = (samples[name].to_numpy() for name in ("person", "picture", "camera"))
    return IdentityOrder(person_S, picture_S, camera_S, size=config.size, per_identity=config.samples_per_identity, seed=config.seed)
