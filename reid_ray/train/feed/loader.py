"""Data loader with prefetching: each step's pictures are read, decoded, augmented and collated with their texts, ahead of the step.

Knows the prepared files and the plan; not the model or losses. Pictures and texts become tensors by what the model brings, so pictures
may differ in size if its collate takes that. The same step gives the same tensors on every run; threads here, or Ray Data's actors
elsewhere, change the speed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reid_ray.config.common import PoolConfig
from reid_ray.train.feed.augment import Fill
from reid_ray.train.feed.batches import BatchPlan, IdentityOrder, Order, ShuffledOrder
from reid_ray.train.feed.config import BatchesConfig
from reid_ray.train.feed.decoding import Decoder, PictureRequest, Resize
from reid_ray.train.feed.prepared import IDS, PICTURES, SAMPLES, RowFile
from reid_ray.train.feed.ray_decoders import decoded_in_order
from reid_ray.train.parts import TrainBatch

# A samples' pictures, uint8 [H, W, 3] each, and their texts -> the module's inputs.
Collate = Callable[[list[np.ndarray], list[str]], dict[str, torch.Tensor]]
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class BatchShard:
    """A worker's shard of one step, before pictures are read and texts become tokens."""

    request: PictureRequest
    texts: list[str]
    person_A: np.ndarray
    text_A: np.ndarray


class Feed:
    """The data loader of one worker: its shard of every global batch, prefetched.

    Args:
        folder: what prepare_pairs wrote.
        config: size, sampler, seed and augmentation.
        rewrite_share: LLM-DA's beta.
        resize: the model's; before augmentation.
        fill: colours of padding and of erased rectangles.
        collate: the model's; after augmentation.
        rank: this worker.
        world: how many workers share each batch.

    elsewhere: finds the folder on whatever node it is called; None where all nodes see it at the same place.
    """

    elsewhere: Callable[[], Path] | None = None

    def __init__(
        self,
        folder: Path,
        config: BatchesConfig,
        *,
        rewrite_share: float,
        resize: Resize,
        fill: Fill,
        collate: Collate,
        rank: int,
        world: int,
    ) -> None:
        self._folder, self._samples = folder, RowFile(folder / SAMPLES)
        self._open_in = partial(_decoder_in, config=config, resize=resize, fill=fill)
        self._decoder = self._open_in(partial(Path, folder))
        self._config, self._collate, self._rank, self._world = config, collate, rank, world
        rewrites_S = self._samples.lengths("rewrites")
        # Texts are numbered as texts_of gives them: captions first, then each caption's rewrites.
        self._first_rewrite_S = len(rewrites_S) + np.cumsum(rewrites_S) - rewrites_S
        self.texts = len(rewrites_S) + int(rewrites_S.sum())
        # Identities of the training split alone, counted from 0, as a classifier wants them.
        persons, self._person_S = np.unique(self._samples.column("person"), return_inverse=True)
        self.persons = len(persons)
        self.plan = BatchPlan(rewrites_S, _order(config, self._samples), rewrite_share=rewrite_share, seed=config.seed)

    def texts_at(self, rows: np.ndarray) -> list[str]:
        """The texts of rows in the numbering of TrainBatch.text_A."""
        sample = self._sample_of(rows)
        rewrite = np.where(rows < len(self._samples), -1, rows - self._first_rewrite_S[sample])
        found = self._samples.take(sample)
        return [
            text if number < 0 else rewrites[number]
            for text, rewrites, number in zip(found["text"].to_pylist(), found["rewrites"].to_pylist(), rewrite.tolist(), strict=True)
        ]

    def _sample_of(self, rows: np.ndarray) -> np.ndarray:
        """The sample that each row in the numbering of TrainBatch.text_A belongs to."""
        return np.where(rows < len(self._samples), rows, np.searchsorted(self._first_rewrite_S, rows, side="right") - 1)

    def names_of(self, rows: np.ndarray) -> list[str]:
        """Which caption and image rows in the numbering of TrainBatch.text_A are, for messages."""
        captions, sample = len(self._samples), self._sample_of(rows)
        if not (self._folder / IDS).is_file():  # prepared by an older version
            return [f"sample {row}" for row in sample.tolist()]
        ids = RowFile(self._folder / IDS).take(sample)
        return [
            f"{'caption' if row < captions else 'a rewrite of caption'} {caption} of image {image}"
            for row, caption, image in zip(rows.tolist(), ids["caption_id"].to_pylist(), ids["image_id"].to_pylist(), strict=True)
        ]

    def batches(self, start: int, stop: int) -> Iterator[TrainBatch]:
        """The batches of steps start .. stop - 1, prefetched.

        Raises:
            TimeoutError: decoding actors gave nothing for ten minutes.
        """
        if self._config.decoders is None:
            return ahead_by_threads(self.make, start, stop, threads=self._config.threads)
        return _prefetch(self._by_actors(start, stop, self._config.decoders))

    def make(self, step: int) -> TrainBatch:
        """The batch of one step."""
        shard = self._shard(step)
        return self._batch(shard, self._decoder(shard.request))

    def _by_actors(self, start: int, stop: int, pool: PoolConfig) -> Iterator[TrainBatch]:
        asked: deque[BatchShard] = deque()

        def requests() -> Iterator[PictureRequest]:
            for step in range(start, stop):
                asked.append(self._shard(step))
                yield asked[-1].request

        open_decoder = partial(self._open_in, self.elsewhere or partial(Path, self._folder))
        for pictures in decoded_in_order(requests(), open_decoder, pool, world=self._world):
            yield self._batch(asked.popleft(), pictures)

    def _shard(self, step: int) -> BatchShard:
        shard = self.plan.shard(step, rank=self._rank, world=self._world)
        rows = self._samples.take(shard.sample_B)
        texts = [
            text if rewrite < 0 else rewrites[rewrite]
            for text, rewrites, rewrite in zip(rows["text"].to_pylist(), rows["rewrites"].to_pylist(), shard.rewrite_B, strict=True)
        ]
        text_A = np.where(shard.rewrite_B < 0, shard.sample_B, self._first_rewrite_S[shard.sample_B] + shard.rewrite_B)
        return BatchShard(PictureRequest(step, rows["picture"].to_numpy(), shard.place_B), texts, self._person_S[shard.sample_B], text_A)

    def _batch(self, shard: BatchShard, pictures: list[np.ndarray]) -> TrainBatch:
        return TrainBatch(self._collate(pictures, shard.texts), torch.from_numpy(shard.person_A), torch.from_numpy(shard.text_A))


def ahead_by_threads(make: Callable[[int], TrainBatch], start: int, stop: int, *, threads: int) -> Iterator[TrainBatch]:
    """The batches that `make` gives for steps start .. stop - 1, made by threads ahead of the step."""
    with ThreadPoolExecutor(threads, thread_name_prefix="feed") as pool:
        ahead: deque[Future[TrainBatch]] = deque()
        following = start
        try:
            for _ in range(start, stop):
                while following < stop and len(ahead) <= threads:
                    ahead.append(pool.submit(make, following))
                    following += 1
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _decoder_in(find: Callable[[], Path], *, config: BatchesConfig, resize: Resize, fill: Fill) -> Decoder:
    """The decoder of the pictures in a folder that is found where this is called."""
    return Decoder(find() / PICTURES, config, resize=resize, fill=fill)


def _prefetch(batches: Iterator[TrainBatch]) -> Iterator[TrainBatch]:
    """`batches`, drawn by a thread two steps before they are asked for."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
    try:
        drawn = deque(pool.submit(next, batches, None) for _ in range(2))
        while (batch := drawn.popleft().result(timeout=_TIMEOUT_S)) is not None:
            drawn.append(pool.submit(next, batches, None))
            yield batch
    except TimeoutError:
        raise TimeoutError(f"batches.decoders: no picture in {_TIMEOUT_S:g} s; is there room for the actors in the cluster?") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a thread that waits for the cluster may never end


def _order(config: BatchesConfig, samples: RowFile) -> Order:
    share = config.edited_share
    edited_S = samples.column("synthetic").astype(bool) if share is not None else None  # which an older version did not write
    if config.sampler == "shuffle":
        return ShuffledOrder(len(samples), size=config.size, seed=config.seed, edited_S=edited_S, edited_share=share)
    return IdentityOrder(
        *(samples.column(name) for name in ("person", "picture", "camera")),
        size=config.size,
        per_identity=config.samples_per_identity,
        seed=config.seed,
        edited_S=edited_S,
        edited_share=share,
    )
