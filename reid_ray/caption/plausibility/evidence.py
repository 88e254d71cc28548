"""Statistics of captions, alone and against their pictures: pure functions over facets (facets.py) and CropLooks.

Knows no thresholds. Whatever depends on chance is compared with shuffled captions, or with what two captions of any two pictures do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reid_ray.caption.plausibility.crop_looks import COLORS, HALVES, CropLooks

Facets = Mapping[str, str]
_CLUSTERS, _ROUNDS, _SHUFFLES = 16, 15, 20
_SEEN = 0.2  # share of a half's pixels from which a colour is there


class CommonestValue(NamedTuple):
    """The commonest value of a facet, how often it is said, and of how many captions that say the facet."""

    value: str
    times: int
    of: int


def commonest(said: Sequence[Facets], facet: str) -> CommonestValue:
    """The commonest value of a facet."""
    values = Counter(each[facet] for each in said if facet in each)
    value, times = values.most_common(1)[0] if values else ("", 0)
    return CommonestValue(value, times, values.total())


def same_text(texts: Sequence[str]) -> float:
    """How probably two captions are the same text: an estimate that does not depend on how many there are."""
    count = len(texts)
    equal = sum(n * (n - 1) for n in Counter(texts).values())
    return equal / (count * (count - 1)) if count > 1 else 0.0


class Information(NamedTuple):
    """CommonestValue of what captions say that depends on the picture, less that of shuffled captions, and its spread over shuffles."""

    share: float
    spread: float


def picture_information(said: Sequence[Facets], look_ND: np.ndarray, rng: np.random.Generator) -> Information:
    """Mutual information of facets with clusters of pictures, over the facets' entropy; 0 where captions do not vary.

    Args:
        said: of N captions.
        look_ND: of their pictures, a point each.
        rng: of the clusters' starts and the shuffles.
    """
    cluster_N = _clusters(look_ND, rng)
    facets = sorted({facet for each in said for facet in each})
    code_NF = (
        np.stack([_codes([each.get(facet, "") for each in said]) for facet in facets], axis=1) if facets else np.zeros((len(said), 0), int)
    )
    entropy = sum(_entropy(code_N) for code_N in code_NF.T)
    if entropy <= 0:
        return Information(0.0, 0.0)
    chance = [sum(_mutual(code_N, rng.permutation(cluster_N)) for code_N in code_NF.T) for _ in range(_SHUFFLES)]
    found = sum(_mutual(code_N, cluster_N) for code_N in code_NF.T)
    return Information(float((found - np.mean(chance)) / entropy), float(np.std(chance) / entropy))


class ColorAgreement(NamedTuple):
    """Said colours that are in the picture, as a share of those that are not in another picture as well; and of how many."""

    value: float
    of: int


def color_agreement(said: Sequence[Facets], picture_N: np.ndarray, pictures: CropLooks) -> ColorAgreement:
    """How far said colours are in the pixels, 0 as by chance, 1 always.

    Args:
        said: of N captions.
        picture_N: row of each caption's picture.
        pictures: the pictures.
    """
    found, by_chance, count = 0.0, 0.0, 0
    for half in HALVES:
        words = [(at, each[half].split("/")) for at, each in enumerate(said) if half in each]
        if not words:
            continue
        there_MC = pictures.colors[half][picture_N] > _SEEN
        often_C = there_MC.mean(axis=0)
        for at, colors in words:
            columns = [COLORS.index(color) for color in colors if color in COLORS]
            if columns:
                found += bool(there_MC[at, columns].any())
                by_chance += float(often_C[columns].max()) if len(columns) == 1 else float(there_MC[:, columns].any(axis=1).mean())
                count += 1
    return ColorAgreement((found - by_chance) / (count - by_chance) if count - by_chance > 0 else 0.0, count)


class Contradictions(NamedTuple):
    """Facets in which captions of near-duplicates differ, how many would of any two pictures, and of how many pairs."""

    found: int
    by_chance: float
    pairs: int


def contradictions(said: Sequence[Facets], bits_NB: np.ndarray, near_bits: int) -> Contradictions:
    """Of one caption for each of N pictures, each in one pair at most: of many pictures that are alike all pairs would say one thing often.

    Args:
        said: N captions.
        bits_NB: the pictures' hashes as 0 and 1.
        near_bits: bits in which near-duplicates differ at most.
    """
    bits_NB = bits_NB.astype(np.float32)
    apart_NN = bits_NB @ (1 - bits_NB).T
    pairs = _apart(zip(*(at.tolist() for at in np.nonzero(np.triu(apart_NN + apart_NN.T <= near_bits, k=1))), strict=True))
    differ = {facet: 1 - _repeated([each[facet] for each in said if facet in each]) for facet in {facet for each in said for facet in each}}
    found, by_chance = 0, 0.0
    for first, second in pairs:
        for facet in said[first].keys() & said[second].keys():
            found += said[first][facet] != said[second][facet]
            by_chance += differ[facet]
    return Contradictions(found, by_chance, len(pairs))


def _apart(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of pairs those that share nothing with an earlier one."""
    taken: set[int] = set()
    kept = []
    for pair in pairs:
        if taken.isdisjoint(pair):
            taken.update(pair)
            kept.append(pair)
    return kept


def pair_score(text_ND: np.ndarray, image_ND: np.ndarray) -> float:
    """How probably a caption is nearer to its own picture than to another's; ties count half. Unit vectors, N of each."""
    score_NN = text_ND @ image_ND.T
    own_N1 = np.diag(score_NN)[:, None]
    others = len(score_NN) * (len(score_NN) - 1)
    return float(((own_N1 > score_NN).sum() + 0.5 * ((own_N1 == score_NN).sum() - len(score_NN))) / others) if others else 0.5


def _repeated(values: Sequence[str]) -> float:
    return sum((n / len(values)) ** 2 for n in Counter(values).values())


def _codes(values: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(values, dtype=object).astype(str), return_inverse=True)[1]


def _entropy(code_N: np.ndarray) -> float:
    share_V = np.bincount(code_N) / len(code_N)
    return float(-(share_V[share_V > 0] * np.log2(share_V[share_V > 0])).sum())


def _mutual(code_N: np.ndarray, cluster_N: np.ndarray) -> float:
    both_N = code_N * (int(cluster_N.max()) + 1) + cluster_N
    return _entropy(code_N) + _entropy(cluster_N) - _entropy(np.unique(both_N, return_inverse=True)[1])


def _clusters(point_ND: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """k-means: which of at most _CLUSTERS each point is in."""
    center_KD = point_ND[rng.choice(len(point_ND), min(_CLUSTERS, len(point_ND)), replace=False)]
    for _ in range(_ROUNDS):
        nearest_N = ((point_ND[:, None] - center_KD[None]) ** 2).sum(axis=2).argmin(axis=1)
        center_KD = np.stack(
            [point_ND[nearest_N == k].mean(axis=0) if (nearest_N == k).any() else center_KD[k] for k in range(len(center_KD))]
        )
    return nearest_N
