"""Validation of a multimodal LLM: image-to-image mAP and R@1 on the validation split, by which the best weights are selected.

Every picture of the split is a query against all others; those of its own identity on its own camera are left out, as Market-1501 has it.
Both features are scored, and captions against pictures where captions have latents. Work is divided among the workers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reid_ray.data.images import decode_image
from reid_ray.model.mllm.inputs import Chat
from reid_ray.retrieval.metrics import GroundTruth, QueryResults
from reid_ray.train.dual.validation import Forward, ranked
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import PICTURES, VALIDATION, RowFile
from reid_ray.train.losses.across_workers import gather_constant
from reid_ray.train.mllm.config import TuneObjective
from reid_ray.train.mllm.module import CAPTION, IMAGE, inputs_of


class ImageValidation:
    """Scores of the validation split.

    Args:
        folder: what prepare_pairs wrote.
        chat: writes turns.
        objective: which features there are.
        batch_size: pictures per forward pass.
        rank: this worker.
        world: how many workers share the work.
    """

    def __init__(self, folder: Path, *, chat: Chat, objective: TuneObjective, batch_size: int, rank: int, world: int) -> None:
        self._pairs, self._pictures = RowFile(folder / VALIDATION), PictureStore(folder / PICTURES)
        self._chat, self._objective, self._batch_size, self._rank, self._world = chat, objective, batch_size, rank, world
        self._picture_G, first = np.unique(self._pairs.column("picture"), return_index=True)
        self._person_G, self._camera_G = (self._pairs.column(name)[first] for name in ("person", "camera"))

    @torch.no_grad()
    def __call__(self, forward: Forward) -> dict[str, float]:
        """{"visual_map", "visual_r1", "latent_map", ...} in [0, 1] or NaN; every worker must call it."""
        features = self._encode(forward, "picture", self._picture_G)
        others = each_against_others(self._person_G, self._camera_G)
        scores: dict[str, float] = {}
        for name, key in (("visual", "visual"), ("latent", "image")):
            if key in features:
                scores |= _scores(name, ranked(features[key], features[key], others))
        if self._objective.sdm.weight:
            text_QD = self._encode(forward, "text", np.arange(len(self._pairs)))["text"]
            truth = GroundTruth.text_to_image(self._pairs.column("person"), self._person_G)
            scores |= _scores("text", ranked(text_QD, features["image"], truth))
        return scores

    def _encode(self, forward: Forward, kind: str, numbers: np.ndarray) -> dict[str, torch.Tensor]:
        """Features of all, on CPU; each worker encodes as many (ZeRO-3 needs equal numbers of forward passes)."""
        each = -(-len(numbers) // self._world)
        rows = np.minimum(np.arange(self._rank * each, (self._rank + 1) * each), len(numbers) - 1)
        found: dict[str, list[torch.Tensor]] = {}
        for start in range(0, each, self._batch_size):
            for name, value in forward(self._inputs(kind, numbers[rows[start : start + self._batch_size]])).items():
                found.setdefault(name, []).append(value)
        return {name: gather_constant(torch.cat(values))[: len(numbers)].cpu() for name, values in found.items()}

    def _inputs(self, kind: str, numbers: np.ndarray) -> dict[str, torch.Tensor]:
        unasked = [""] * len(numbers)  # nothing behind an image or a caption can change its features
        if kind == "text":
            return inputs_of(self._chat.caption_turns(self._pairs.take(numbers)["text"].to_pylist(), unasked), CAPTION)
        return inputs_of(self._chat.picture_turns([decode_image(self._pictures[int(number)]) for number in numbers], unasked), IMAGE)


def each_against_others(person_G: np.ndarray, camera_G: np.ndarray) -> GroundTruth:
    """Each picture against all others, without those of its person on its camera; one of unknown camera (-1) leaves out itself alone."""
    camera_G = np.where(camera_G >= 0, camera_G, -1 - np.arange(len(camera_G)))
    return GroundTruth.image_to_image(person_G, person_G, query_camera_Q=camera_G, gallery_camera_G=camera_G)


def _scores(name: str, found: QueryResults | None) -> dict[str, float]:
    """Mean average precision and R@1 over queries that have a match left; NaN without a ranking, 0 without any such query."""
    if found is None:
        return {f"{name}_map": float("nan"), f"{name}_r1": float("nan")}
    if not found.counted.any():
        return {f"{name}_map": 0.0, f"{name}_r1": 0.0}
    return {f"{name}_map": found.mean_ap(), f"{name}_r1": float(found.cmc(1)[0])}
