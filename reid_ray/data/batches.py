"""Which samples each step sees: a plan that is a pure function of (seed, step), not of workers, time or what was read before.

So a resumed run, and a run on another number of workers, draws the same global batches. Knows counts and indices; not images,
texts or Ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# One stream of random numbers for each use, so that turning one off leaves the others as they were.
_ORDER, _REWRITES, _AUGMENT = 0, 1, 2


@dataclass(frozen=True)
class Batch:
    """One global batch, or a rank's share of it. B samples each.

    sample_B: index of each sample (a caption with its image).
    rewrite_B: which rewrite takes the caption's place; -1 is the caption itself.
    place_B: place of each sample in the global batch; with (seed, step) it seeds the sample's augmentation.
    """

    step: int
    sample_B: np.ndarray
    rewrite_B: np.ndarray
    place_B: np.ndarray


class BatchPlan:
    """The global batches of a whole run.

    Every epoch is a fresh permutation of all samples cut into batches of `size`; the rest that fills no batch is left out of that
    epoch. With probability `rewrite_share` a rewrite takes the place of its caption, each of its rewrites equally likely (the
    balanced sampling strategy of LLM-DA).

    Args:
        rewrites_S: how many accepted rewrites each of the S samples has.
        size: samples per global batch, at most S.
        rewrite_share: LLM-DA's beta in [0, 1].
        seed: of the whole plan.
    """

    def __init__(self, rewrites_S: np.ndarray, *, size: int, rewrite_share: float, seed: int) -> None:
        if not 0 < size <= len(rewrites_S):
            raise ValueError(f"a batch of {size} cannot be drawn from {len(rewrites_S)} samples")
        self.size, self.seed, self.rewrite_share = size, seed, rewrite_share
        self.steps_per_epoch = len(rewrites_S) // size
        self._rewrites_S = rewrites_S
        self._epoch, self._order_S = -1, np.zeros(0, np.int64)

    def batch(self, step: int) -> Batch:
        """The global batch of `step` (counted from 0 over the whole run)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order_S = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self._rewrites_S))
            self._epoch = epoch
        sample_B = self._order_S[within * self.size : (within + 1) * self.size]
        draw_2B = np.random.default_rng([self.seed, _REWRITES, step]).random((2, self.size))
        count_B = self._rewrites_S[sample_B]
        replaced_B = (draw_2B[0] < self.rewrite_share) & (count_B > 0)
        rewrite_B = np.where(replaced_B, (draw_2B[1] * count_B).astype(np.int64), -1)
        return Batch(step, sample_B, rewrite_B, np.arange(self.size))

    def share(self, step: int, *, rank: int, world: int) -> Batch:
        """The part of `step`'s global batch that `rank` of `world` workers computes: a contiguous slice."""
        if self.size % world:
            raise ValueError(f"a batch of {self.size} does not divide among {world} workers")
        whole, each = self.batch(step), self.size // world
        part = slice(rank * each, (rank + 1) * each)
        return Batch(step, whole.sample_B[part], whole.rewrite_B[part], whole.place_B[part])

    def augmentation(self, step: int, place: int) -> np.random.Generator:
        """The random numbers that augment the sample at `place` of `step`'s global batch."""
        return np.random.default_rng([self.seed, _AUGMENT, step, place])
