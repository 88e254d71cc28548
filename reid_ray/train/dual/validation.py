"""Validation of a dual encoder: text-to-image R@1 and mAP on the validation split, by which the best weights are selected.

Work is divided among the workers: each encodes its share of pictures and texts and scores its own texts against all pictures. Knows
the prepared files and an engine; ranks and average precision are those of the final evaluation (reid_ray.retrieval).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from reid_ray.data.images import decode_image
from reid_ray.model.dual.dual_encoder import tokenise
from reid_ray.model.dual.preprocess import ImageTransform
from reid_ray.retrieval.metrics import GroundTruth, QueryResults
from reid_ray.retrieval.ranking.blocks import BLOCK_BYTES
from reid_ray.retrieval.ranking.exact_torch import rank_on_device
from reid_ray.train.dual.held_out import GALLERY
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import PICTURES, VALIDATION, RowFile
from reid_ray.train.losses.across_workers import gather_constant

Forward = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


class Validation:
    """Queries are the split's captions, the gallery its pictures, a match the same identity; every caption counts once.

    Args:
        folder: what prepare_pairs wrote, or prepare_held_out.
        transform: the model's image preprocessing.
        tokenizer: the model's tokenizer.
        context: tokens per text at most.
        batch_size: pictures or texts per forward pass.
        rank: this worker.
        world: how many workers share the work.
    """

    def __init__(
        self, folder: Path, *, transform: ImageTransform, tokenizer: Any, context: int, batch_size: int, rank: int, world: int
    ) -> None:
        self._pairs, self._pictures = RowFile(folder / VALIDATION), PictureStore(folder / PICTURES)
        self._transform, self._tokenizer, self._context = transform, tokenizer, context
        self._batch_size, self._rank, self._world = batch_size, rank, world
        self._picture_G, self._person_G = self._gallery(folder)

    @torch.no_grad()
    def __call__(self, forward: Forward) -> dict[str, float]:
        """{"r1", "map"} in [0, 1]; every worker must call it. NaN if a feature is NaN or infinite: its rank would mean nothing."""
        gallery_row, _ = self._share(len(self._picture_G))
        query_row, real_Q = self._share(len(self._pairs))
        images = [
            forward({"pixel_values": self._pixels(self._picture_G[rows])})["image"]
            for rows in np.split(gallery_row, range(self._batch_size, len(gallery_row), self._batch_size))
        ]
        gallery_GD = gather_constant(torch.cat(images))[: len(self._picture_G)]
        sums = torch.zeros(3, dtype=torch.float64, device=gallery_GD.device)
        for start in range(0, len(query_row), self._batch_size):
            rows, real = query_row[start : start + self._batch_size], real_Q[start : start + self._batch_size]
            asked = self._pairs.take(rows)
            input_ids = tokenise(self._tokenizer, asked["text"].to_pylist(), context=self._context)
            truth = GroundTruth.text_to_image(asked["person"].to_numpy(), self._person_G)
            found = ranked(forward({"input_ids": input_ids})["text"], gallery_GD, truth)
            if found is None:
                sums += float("nan")
            else:
                sums += torch.tensor([(found.first_rank_Q[real] == 1).sum(), found.ap_Q[real].sum(), real.sum()]).to(sums)
        if self._world > 1:
            dist.all_reduce(sums)
        return {"r1": float(sums[0] / sums[2]), "map": float(sums[1] / sums[2])}

    def _gallery(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Row and person of each picture."""
        if (folder / GALLERY).is_file():
            person_G = RowFile(folder / GALLERY).column("person")
            return np.arange(len(person_G)), person_G
        pictures, first = np.unique(self._pairs.column("picture"), return_index=True)
        return pictures, self._pairs.column("person")[first]

    def _share(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of this worker, as many on every worker (ZeRO-3 needs equal numbers of forward passes), and which of them are real."""
        each = -(-count // self._world)
        rows = np.arange(self._rank * each, (self._rank + 1) * each)
        return np.minimum(rows, count - 1), rows < count

    def _pixels(self, pictures: np.ndarray) -> torch.Tensor:
        decoded = [self._transform.resize(decode_image(self._pictures[int(row)])) for row in pictures]
        return torch.from_numpy(self._transform.normalise(np.stack(decoded)))


def ranked(query_QD: torch.Tensor, gallery_GD: torch.Tensor, truth: GroundTruth) -> QueryResults | None:
    """The exact ranking of evaluation, on the device of the features; None if a feature is NaN or infinite: its rank would mean nothing."""
    if not (torch.isfinite(query_QD).all() and torch.isfinite(gallery_GD).all()):
        return None
    return rank_on_device(query_QD, gallery_GD, truth, top_k=0, block_bytes=BLOCK_BYTES).results
