"""Data loader of multimodal LLMs: chat turns of pictures and captions, each followed by an instruction and the same continuation.

Batch sampler, prefetching and pictures are those of reid_ray.train.feed. Knows samples and chat turns; not the model, losses or Ray.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reid_ray.model.mllm.inputs import Chat
from reid_ray.train.feed.augment import fill_of
from reid_ray.train.feed.loader import BatchShard, Feed
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.continuation import Continuations, draws
from reid_ray.train.mllm.module import CAPTION, IMAGE, inputs_of
from reid_ray.train.parts import TrainBatch


class InstructionFeed(Feed):
    """The data loader of one worker: turns of pictures and captions with target texts.

    Args:
        folder: what prepare_pairs wrote.
        config: the job.
        chat: writes turns as the model's template has them.
        rank: this worker.
        world: how many workers share each batch.
    """

    def __init__(self, folder: Path, config: TuneJob, *, chat: Chat, rank: int, world: int) -> None:
        super().__init__(
            folder,
            config.batches,
            rewrite_share=0.0,  # rewrites are continuations here, so a text's row is its sample's
            resize=np.asarray,  # the processor resizes, each crop to its own shape
            fill=fill_of(config.batches.fill, mean=chat.processor.image_processor.image_mean, std=chat.processor.image_processor.image_std),
            collate=lambda pictures, texts: {},
            rank=rank,
            world=world,
        )
        self._job, self._chat = config, chat
        self._continuations = Continuations(self._samples, config.captions.continuation)

    def _batch(self, shard: BatchShard, pictures: list[np.ndarray]) -> TrainBatch:
        job, sample_A = self._job, shard.text_A
        draw_A2 = draws(job.batches.seed, shard.request.step, shard.request.place_A)
        asked = job.instruction.texts
        instructions = [asked[int(number * len(asked))] for number in draw_A2[:, 1]]
        answers = None
        if job.objective.answers:
            answers = [self._continuations.draw(int(row), number) for row, number in zip(sample_A, draw_A2[:, 0], strict=True)]
        inputs: dict[str, torch.Tensor] = {}
        if job.objective.reads_images or job.objective.has_visual:
            inputs |= inputs_of(self._chat.picture_turns([Image.fromarray(each) for each in pictures], instructions, answers), IMAGE)
        if job.objective.reads_captions:
            inputs |= inputs_of(self._chat.caption_turns(shard.texts, instructions, answers), CAPTION)
        return TrainBatch(inputs, torch.from_numpy(shard.person_A), torch.from_numpy(sample_A))
