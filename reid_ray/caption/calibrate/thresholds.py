"""ROC analysis and threshold selection: true paraphrases against rewrites with a changed attribute, for one filter or both (Pareto front).

Pure arrays. `same_N` says which pairs are true paraphrases; a filter keeps a pair whose score reaches its threshold. "kept" is the share
of paraphrases kept, "removed" the share of changed rewrites removed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Choice = Literal["removed", "rejected", "balanced"]


@dataclass(frozen=True)
class Roc:
    """All thresholds of a score, from keeping everything to keeping nothing."""

    threshold_T: np.ndarray  # float64 [T], rising; a pair is kept if its score is >= the threshold
    kept_T: np.ndarray  # share of paraphrases kept
    removed_T: np.ndarray  # share of changed rewrites removed
    auc: float  # chance that a paraphrase scores above a changed rewrite, ties counted half


@dataclass(frozen=True)
class Quality:
    """What a filter does to labelled pairs."""

    kept: float
    removed: float
    precision: float  # of the pairs kept, the share that are paraphrases; depends on how many of each there are
    balanced_accuracy: float
    same: int  # how many paraphrases it was measured on
    changed: int

    def meets(self, *, removed: float, kept: float) -> bool:
        """Whether both targets are reached."""
        return self.removed >= removed and self.kept >= kept

    def as_dict(self) -> dict[str, Any]:
        """For JSON, rounded to four digits."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def roc(score_N: np.ndarray, same_N: np.ndarray) -> Roc:
    """The ROC of a score; thresholds are its distinct values and infinity.

    Raises:
        ValueError: there are no paraphrases or no changed rewrites.
    """
    score_N, same_N = np.asarray(score_N, np.float64), np.asarray(same_N, bool)
    same, changed = np.sort(score_N[same_N]), np.sort(score_N[~same_N])
    if not len(same) or not len(changed):
        raise ValueError(f"a ROC needs both labels, but there are {len(same)} paraphrases and {len(changed)} changed rewrites")
    threshold_T = np.append(np.unique(score_N), np.inf)
    below = np.searchsorted(changed, same, "left").sum()
    upto = np.searchsorted(changed, same, "right").sum()
    return Roc(
        threshold_T=threshold_T,
        kept_T=1 - np.searchsorted(same, threshold_T, "left") / len(same),
        removed_T=np.searchsorted(changed, threshold_T, "left") / len(changed),
        auc=float((below + upto) / 2 / (len(same) * len(changed))),
    )


def quality(keep_N: np.ndarray, same_N: np.ndarray) -> Quality:
    """What a decision per pair (True: kept) comes to."""
    keep_N, same_N = np.asarray(keep_N, bool), np.asarray(same_N, bool)
    same, changed = int(same_N.sum()), int((~same_N).sum())
    kept = float(keep_N[same_N].mean()) if same else 0.0
    removed = float((~keep_N[~same_N]).mean()) if changed else 0.0
    precision = float(same_N[keep_N].mean()) if keep_N.any() else 0.0
    return Quality(kept, removed, precision, (kept + removed) / 2, same, changed)


def choose_threshold(curve: Roc, choice: Choice, *, target_removed: float, target_kept: float) -> float:
    """The threshold that a choice picks (see CalibrateJob.choose), halfway to the next score below, so that equal scores are kept.

    A target that only infinity reaches gives the largest finite threshold: a filter that keeps nothing is of no use.
    """
    finite = slice(0, len(curve.threshold_T) - 1)
    if choice == "removed":
        reached = np.flatnonzero(curve.removed_T[finite] >= target_removed)
        at = int(reached[0]) if len(reached) else len(curve.threshold_T) - 2
    elif choice == "rejected":
        at = int(np.flatnonzero(curve.kept_T[finite] >= target_kept)[-1])
    else:
        at = int(np.argmax((curve.kept_T + curve.removed_T)[finite]))
    threshold = curve.threshold_T[at]
    return float(threshold if at == 0 else (threshold + curve.threshold_T[at - 1]) / 2)


@dataclass(frozen=True)
class Frontier:
    """Pareto front of two filters that both must pass: for each share removed the best share kept, and the thresholds that give it."""

    first_F: np.ndarray
    second_F: np.ndarray
    kept_F: np.ndarray
    removed_F: np.ndarray


def frontier(first_N: np.ndarray, second_N: np.ndarray, same_N: np.ndarray, *, steps: int = 120) -> Frontier:
    """The Pareto-best pairs of thresholds for "both scores reach theirs", `steps` quantiles of each tried."""
    same_N = np.asarray(same_N, bool)
    grids = [_grid(np.asarray(score, np.float64), steps) for score in (first_N, second_N)]
    keep_AN = np.asarray(first_N)[None] >= grids[0][:, None]
    keep_BN = np.asarray(second_N)[None] >= grids[1][:, None]
    kept_AB = keep_AN[:, same_N].astype(np.float64) @ keep_BN[:, same_N].T / max(1, same_N.sum())
    removed_AB = 1 - keep_AN[:, ~same_N].astype(np.float64) @ keep_BN[:, ~same_N].T / max(1, (~same_N).sum())
    order = np.lexsort((-kept_AB.ravel(), -removed_AB.ravel()))
    best, chosen = -1.0, []
    for flat in order:
        if kept_AB.ravel()[flat] > best:
            best = kept_AB.ravel()[flat]
            chosen.append(flat)
    a, b = np.unravel_index(np.array(chosen), kept_AB.shape)
    return Frontier(grids[0][a], grids[1][b], kept_AB[a, b], removed_AB[a, b])


def choose_pair(edge: Frontier, choice: Choice, *, target_removed: float, target_kept: float) -> tuple[float, float]:
    """The two thresholds on the frontier that a choice picks, as choose_threshold does for one."""
    if choice == "removed":
        reached = np.flatnonzero(edge.removed_F >= target_removed)
        at = reached[np.argmax(edge.kept_F[reached])] if len(reached) else int(np.argmax(edge.removed_F))
    elif choice == "rejected":
        reached = np.flatnonzero(edge.kept_F >= target_kept)
        at = reached[np.argmax(edge.removed_F[reached])]
    else:
        at = int(np.argmax(edge.kept_F + edge.removed_F))
    return float(edge.first_F[at]), float(edge.second_F[at])


def _grid(score_N: np.ndarray, steps: int) -> np.ndarray:
    """Thresholds between neighbouring distinct scores (at most `steps`), and one below all."""
    values = np.unique(np.quantile(score_N, np.linspace(0, 1, steps)))
    return np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2]) if len(values) > 1 else values - 1e-6
