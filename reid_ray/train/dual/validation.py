"""Text-to-image retrieval on the validation split while training runs: the number that chooses the weights.

Work is divided among the workers: each encodes its share of pictures and texts and scores its own texts against all pictures. Knows
the prepared files and an engine; the exact protocols of the final evaluation are elsewhere.
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
from reid_ray.train.dual.held_out import GALLERY
from reid_ray.train.feed.pairs import PICTURES, VALIDATION, PictureStore, read_pairs
from reid_ray.train.losses.objective import gather_constant

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
        self._pairs, self._pictures = read_pairs(folder / VALIDATION), PictureStore(folder / PICTURES)
        self._transform, self._tokenizer, self._context = transform, tokenizer, context
        self._batch_size, self._rank, self._world = batch_size, rank, world
        self._picture_G, self._person_G = self._gallery(folder)

    @torch.no_grad()
    def __call__(self, forward: Forward) -> dict[str, float]:
        """{"r1", "map"} in [0, 1]; every worker must call it. NaN if a feature is NaN or infinite: its rank would mean nothing."""
        gallery_row, _ = self._share(len(self._picture_G))
        query_row, real_Q = self._share(self._pairs.num_rows)
        images = [
            forward({"pixel_values": self._pixels(self._picture_G[rows])})["image"]
            for rows in np.split(gallery_row, range(self._batch_size, len(gallery_row), self._batch_size))
        ]
        gallery_GD = gather_constant(torch.cat(images))[: len(self._picture_G)]
        person_G = torch.from_numpy(self._person_G).to(gallery_GD.device)
        sums = torch.zeros(3, dtype=torch.float64, device=gallery_GD.device)
        for start in range(0, len(query_row), self._batch_size):
            rows, real = query_row[start : start + self._batch_size], real_Q[start : start + self._batch_size]
            asked = self._pairs.take(rows)
            input_ids = tokenise(self._tokenizer, asked["text"].to_pylist(), context=self._context)
            score_QG = forward({"input_ids": input_ids})["text"] @ gallery_GD.T
            person_Q = torch.tensor(asked["person"].to_numpy()).to(score_QG.device)
            hit, precision = _first_hit_and_precision(score_QG, person_Q[:, None] == person_G[None, :])
            keep = torch.from_numpy(real).to(score_QG.device)
            sums += torch.stack([hit[keep].sum(), precision[keep].sum(), keep.sum().double()])
        if self._world > 1:
            dist.all_reduce(sums)
        return {"r1": float(sums[0] / sums[2]), "map": float(sums[1] / sums[2])}

    def _gallery(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Row and person of each picture."""
        if (folder / GALLERY).is_file():
            person_G = read_pairs(folder / GALLERY)["person"].to_numpy()
            return np.arange(len(person_G)), person_G
        pictures, first = np.unique(self._pairs["picture"].to_numpy(), return_index=True)
        return pictures, self._pairs["person"].to_numpy()[first]

    def _share(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of this worker, as many on every worker (ZeRO-3 needs equal numbers of forward passes), and which of them are real."""
        each = -(-count // self._world)
        rows = np.arange(self._rank * each, (self._rank + 1) * each)
        return np.minimum(rows, count - 1), rows < count

    def _pixels(self, pictures: np.ndarray) -> torch.Tensor:
        decoded = [self._transform.resize(decode_image(self._pictures[int(row)])) for row in pictures]
        return torch.from_numpy(self._transform.normalise(np.stack(decoded)))


def _first_hit_and_precision(score_QG: torch.Tensor, match_QG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per query, float64: whether the best picture matches, and the average precision; NaN where a score is not finite.

    Ties go by the gallery's order.
    """
    order_QG = score_QG.argsort(dim=1, descending=True, stable=True)
    ranked_QG = match_QG.gather(1, order_QG).double()
    rank_G = torch.arange(1, ranked_QG.shape[1] + 1, device=ranked_QG.device)
    precision_QG = ranked_QG.cumsum(dim=1) / rank_G
    lost_Q = ~torch.isfinite(score_QG).all(dim=1)
    average_Q = (precision_QG * ranked_QG).sum(dim=1) / ranked_QG.sum(dim=1)
    return ranked_QG[:, 0].masked_fill(lost_Q, float("nan")), average_Q.masked_fill(lost_Q, float("nan"))
