"""Target texts of instruction tuning: the continuation that the model learns to say after an image and after its caption (MLLMReID).

It is the same for both, drawn from the captions at hand.
Knows samples and random draws; not tokens or models. A step's draws are a function of seed, step and place, not of workers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reid_ray.train.feed.prepared import RowFile

_DRAWS = 4  # this stream's number beside those of reid_ray.train.feed.batches


class Continuations:
    """The continuations of samples.

    Args:
        samples: the file SAMPLES (reid_ray.train.feed.prepared).
        sources: captions.continuation of the tune job; the first that a sample has is drawn from.
    """

    def __init__(self, samples: RowFile, sources: Sequence[str]) -> None:
        self._samples, self._sources = samples, sources
        self._rewrites_S = samples.lengths("rewrites")
        self._picture_S = samples.column("picture")
        self._groups = {"image": _Groups(self._picture_S), "identity": _Groups(samples.column("person"))}

    def available(self) -> np.ndarray:
        """Which samples have a continuation, bool [S]."""
        rows = range(len(self._samples))
        return np.fromiter((any(len(self._others(row, source)) for source in self._sources) for row in rows), bool, len(self._samples))

    def draw(self, row: int, number: float) -> str:
        """One continuation of sample `row`; `number` in [0, 1) chooses among those of its first source."""
        for source in self._sources:
            others = self._others(row, source)
            if len(others):
                chosen = int(others[int(number * len(others))])
                found = self._samples.take(np.array([row if source == "rewrite" else chosen]))
                return str(found["rewrites"][0][chosen].as_py() if source == "rewrite" else found["text"][0].as_py())
        raise ValueError(f"sample {row} has no continuation among {self._sources}")

    def _others(self, row: int, source: str) -> np.ndarray:
        """Numbers of rewrites of sample `row`, or of other samples."""
        if source == "rewrite":
            return np.arange(self._rewrites_S[row])
        if source == "caption":
            return np.array([row])
        members = self._groups[source].of(row)
        if source == "image":
            return members[members != row]
        return members[self._picture_S[members] != self._picture_S[row]]


class _Groups:
    """Rows of equal keys."""

    def __init__(self, key_S: np.ndarray) -> None:
        _, self._group_S = np.unique(key_S, return_inverse=True)
        self._order = np.argsort(self._group_S, kind="stable")
        self._first = np.concatenate([[0], np.cumsum(np.bincount(self._group_S))])

    def of(self, row: int) -> np.ndarray:
        group = self._group_S[row]
        return self._order[self._first[group] : self._first[group + 1]]


def draws(seed: int, step: int, places: np.ndarray) -> np.ndarray:
    """Two numbers in [0, 1) for each place of `step`'s global batch: for the continuation and for the instruction, [A, 2]."""
    return np.stack([np.random.default_rng([seed, _DRAWS, step, int(place)]).random(2) for place in places])
