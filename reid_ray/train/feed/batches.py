"""Batch sampler: which samples each step sees, shuffled or PK (P identities with K samples each), as a pure function of (seed, step).

It does not depend on workers, time or what was read before, so a resumed run, and a run on another number of workers, draws the same
global batches. Knows counts and indices; not images, texts or Ray.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import numpy as np

# One stream of random numbers for each use, so that turning one off leaves the others as they were.
_ORDER, _REWRITES, _AUGMENT, _MEMBERS, _EDITED_ORDER, _PLACES = range(6)


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


class Order(Protocol):
    """Which samples make up each global batch."""

    steps_per_epoch: int
    size: int
    unit: int  # neighbours in a batch that must stay on one worker

    def samples(self, step: int) -> np.ndarray:
        """Sample of each place of `step`'s batch, int64 [size]."""
        ...


@dataclass(frozen=True)
class Mixture:
    """How many of a batch's places, samples or identities, show people whom an editor made: `share` of all up to any step
    of an epoch, rounded down.
    """

    places: int
    share: float

    def edited_before(self, step: int) -> int:
        """Places of edited people in the first `step` batches."""
        exact = Fraction(str(self.share))
        return step * self.places * exact.numerator // exact.denominator

    def photographs_before(self, step: int) -> int:
        """The other places."""
        return step * self.places - self.edited_before(step)

    @property
    def most_edited(self) -> int:
        """The most places of edited people in a batch; at least 1."""
        return math.ceil(self.places * Fraction(str(self.share)))

    @property
    def most_photographs(self) -> int:
        """The most other places in a batch."""
        return math.ceil(self.places * (1 - Fraction(str(self.share))))


class _Shuffle:
    """A fresh permutation of U units each epoch, cut into batches of `places`; the rest is left out, or filled up from the front."""

    def __init__(self, units: int, places: int, *, seed: int, fill: bool) -> None:
        self.steps_per_epoch = -(-units // places) if fill else units // places
        self._units, self._places, self._seed, self._fill = units, places, seed, fill
        self._epoch = lru_cache(maxsize=2)(self._permutation)  # threads that prepare ahead ask for two epochs by turns

    def at(self, step: int) -> np.ndarray:
        """The units of a step, int64 [places]."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[within * self._places : (within + 1) * self._places]

    def _permutation(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(self._units)
        return np.resize(order, self.steps_per_epoch * self._places) if self._fill else order


class _MixedShuffle:
    """The same of the photographs' units, with edited ones at a share of the places, from permutations of their own without end.

    No unit is twice in a batch but where an epoch is filled up. Which places are edited is drawn anew for each step, so that every worker's
    part of a batch has its share.
    """

    def __init__(self, edited_U: np.ndarray, mixture: Mixture, *, seed: int, fill: bool) -> None:
        self._edited, self._photographs = np.flatnonzero(edited_U), np.flatnonzero(~edited_U)
        if len(self._edited) < mixture.most_edited or len(self._photographs) < mixture.most_photographs:
            raise ValueError(f"{len(self._edited)} edited and {len(self._photographs)} other units cannot fill batches of {mixture}")
        self._mixture, self._seed = mixture, seed
        steps = int(len(self._photographs) / (mixture.places * (1 - mixture.share)))
        while mixture.photographs_before(steps + 1) <= len(self._photographs):
            steps += 1
        while mixture.photographs_before(steps) > len(self._photographs):
            steps -= 1
        self.steps_per_epoch = steps + (fill and mixture.photographs_before(steps) < len(self._photographs))
        self._epoch = lru_cache(maxsize=2)(self._permutation)
        self._cycle = lru_cache(maxsize=2)(self._edited_permutation)

    def at(self, step: int) -> np.ndarray:
        """The units of a step, int64 [places]."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start, stop = (self._mixture.photographs_before(each) for each in (within, within + 1))
        photographs = self._epoch(epoch)[start:stop]
        cycle, turn = divmod(step, len(self._edited) // self._mixture.most_edited)
        first = turn * self._mixture.most_edited
        edited = self._cycle(cycle)[first : first + self._mixture.places - len(photographs)]
        place = np.random.default_rng([self._seed, _PLACES, step]).permutation(self._mixture.places)
        return np.concatenate([photographs, edited])[place]

    def _permutation(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(self._photographs)
        return np.resize(order, self._mixture.photographs_before(self.steps_per_epoch))

    def _edited_permutation(self, cycle: int) -> np.ndarray:
        return np.random.default_rng([self._seed, _EDITED_ORDER, cycle]).permutation(self._edited)


def _shuffle_of(
    units: int, places: int, edited_U: np.ndarray | None, share: float | None, *, seed: int, fill: bool
) -> _Shuffle | _MixedShuffle:
    if share is None or edited_U is None:
        return _Shuffle(units, places, seed=seed, fill=fill)
    return _MixedShuffle(edited_U, Mixture(places, share), seed=seed, fill=fill)


class ShuffledOrder:
    """Every epoch is a fresh permutation of all samples cut into batches; the rest that fills no batch is left out of that epoch.

    Args:
        samples: how many there are, S.
        size: samples per global batch, at most `samples`.
        seed: of the permutations.
        edited_S: which samples show people whom an editor made, bool.
        edited_share: share of the places for those; an epoch is then a pass over the others. None: all samples are alike.
    """

    unit = 1

    def __init__(
        self, samples: int, *, size: int, seed: int, edited_S: np.ndarray | None = None, edited_share: float | None = None
    ) -> None:
        if not 0 < size <= samples:
            raise ValueError(f"a batch of {size} cannot be drawn from {samples} samples")
        self._shuffle = _shuffle_of(samples, size, edited_S, edited_share, seed=seed, fill=False)
        self.size, self.steps_per_epoch = size, self._shuffle.steps_per_epoch

    def samples(self, step: int) -> np.ndarray:
        """The next `size` samples of the epoch's permutation."""
        return self._shuffle.at(step)


class IdentityOrder:
    """PK sampling: P identities with K samples each (Hermans et al. 2017), the samples of an identity side by side.

    An epoch is a fresh permutation of the identities: each is drawn once before any is drawn again, and the last batch is filled up with
    the first identities of the permutation. An identity's K samples show K different pictures if it has as many, on as many cameras as
    can be; if it has fewer, each comes as often as the others, with another caption where there is one.

    Args:
        person_S: identity of each sample, any integers.
        picture_S: picture of each sample, any integers.
        camera_S: camera of each sample; a negative one is unknown and counts as a camera of its own.
        size: samples per global batch, a multiple of `per_identity`.
        per_identity: K.
        seed: of the permutations and of the choice of samples.
        edited_S: which samples show people whom an editor made, bool; an identity counts as one if any of its samples does.
        edited_share: share of a batch's identities for those; an epoch is then a pass over the others. None: all identities are alike.
    """

    def __init__(
        self,
        person_S: np.ndarray,
        picture_S: np.ndarray,
        camera_S: np.ndarray,
        *,
        size: int,
        per_identity: int,
        seed: int,
        edited_S: np.ndarray | None = None,
        edited_share: float | None = None,
    ) -> None:
        if size % per_identity:
            raise ValueError(f"a batch of {size} is no multiple of {per_identity} samples per identity")
        names, person_S = np.unique(person_S, return_inverse=True)
        self.size, self.unit, self._persons = size, per_identity, len(names)
        self._per_batch = size // per_identity
        if not 0 < self._per_batch <= self._persons:
            raise ValueError(f"a batch of {self._per_batch} identities cannot be drawn from {self._persons}")
        edited_P = edited_persons(person_S, edited_S) if edited_S is not None else None
        self._shuffle = _shuffle_of(self._persons, self._per_batch, edited_P, edited_share, seed=seed, fill=True)
        self.steps_per_epoch = self._shuffle.steps_per_epoch
        self._picture_S, self._seed = picture_S, seed
        self._camera_S = np.where(camera_S < 0, -1 - picture_S, camera_S)
        # The samples of identity p are members[first[p] : first[p + 1]].
        self._members_S = np.argsort(person_S, kind="stable")
        self._first = np.concatenate([[0], np.cumsum(np.bincount(person_S, minlength=self._persons))])

    def samples(self, step: int) -> np.ndarray:
        """K samples of each of the step's P identities."""
        person_P = self._shuffle.at(step)
        count_P = self._first[person_P + 1] - self._first[person_P]
        slot_M = np.repeat(np.arange(len(person_P)), count_P)
        start_P = np.cumsum(count_P) - count_P
        member_M = self._members_S[np.arange(len(slot_M)) - start_P[slot_M] + self._first[person_P][slot_M]]
        draw_M = np.random.default_rng([self._seed, _MEMBERS, step]).random(len(member_M))
        # How many samples of the same picture, and then of the same camera, come before this one: new pictures first, new cameras next.
        repeat_M = _place_in_group(draw_M, slot_M, self._picture_S[member_M])
        camera_turn_M = _place_in_group(draw_M, slot_M, repeat_M, self._camera_S[member_M])
        ranked_M = member_M[np.lexsort((draw_M, camera_turn_M, repeat_M, slot_M))]
        taken_PK = start_P[:, None] + np.arange(self.unit)[None] % count_P[:, None]
        return ranked_M[taken_PK.reshape(-1)]


def edited_persons(person_S: np.ndarray, edited_S: np.ndarray) -> np.ndarray:
    """Which persons, in ascending order, have a sample that an editor made; bool [P]."""
    _, number_S = np.unique(person_S, return_inverse=True)
    return np.bincount(number_S, weights=edited_S) > 0


def _place_in_group(draw_M: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Per row, its rank by `draw_M` among the rows with equal `keys`, from 0."""
    order = np.lexsort((draw_M, *keys))
    sorted_keys = np.stack([key[order] for key in keys])
    fresh = np.concatenate([[True], (sorted_keys[:, 1:] != sorted_keys[:, :-1]).any(axis=0)])
    place = np.arange(len(order))
    turn_M = np.empty(len(order), np.int64)
    turn_M[order] = place - np.maximum.accumulate(np.where(fresh, place, 0))
    return turn_M


class BatchPlan:
    """The global batches of a whole run: an order of samples, and with probability `rewrite_share` a rewrite in place of its caption.

    Each rewrite of a caption is equally likely (the balanced sampling strategy of LLM-DA).

    Args:
        rewrites_S: how many accepted rewrites each of the S samples has.
        order: which samples make up each batch.
        rewrite_share: LLM-DA's beta in [0, 1].
        seed: of rewrites and augmentation.
    """

    def __init__(self, rewrites_S: np.ndarray, order: Order, *, rewrite_share: float, seed: int) -> None:
        self.size, self.steps_per_epoch = order.size, order.steps_per_epoch
        self.seed, self.rewrite_share = seed, rewrite_share
        self._rewrites_S, self._order = rewrites_S, order

    def batch(self, step: int) -> Batch:
        """The global batch of `step` (counted from 0 over the whole run)."""
        sample_B = self._order.samples(step)
        draw_2B = np.random.default_rng([self.seed, _REWRITES, step]).random((2, self.size))
        count_B = self._rewrites_S[sample_B]
        replaced_B = (draw_2B[0] < self.rewrite_share) & (count_B > 0)
        rewrite_B = np.where(replaced_B, (draw_2B[1] * count_B).astype(np.int64), -1)
        return Batch(step, sample_B, rewrite_B, np.arange(self.size))

    def shard(self, step: int, *, rank: int, world: int) -> Batch:
        """The shard of `step`'s global batch that `rank` of `world` workers computes: a contiguous slice of whole identities."""
        if self.size % (world * self._order.unit):
            raise ValueError(f"a batch of {self.size} in groups of {self._order.unit} does not divide among {world} workers")
        whole, each = self.batch(step), self.size // world
        part = slice(rank * each, (rank + 1) * each)
        return Batch(step, whole.sample_B[part], whole.rewrite_B[part], whole.place_B[part])


def augmentation(seed: int, step: int, place: int) -> np.random.Generator:
    """The random numbers that augment the sample at `place` of `step`'s global batch."""
    return np.random.default_rng([seed, _AUGMENT, step, place])
