"""Retrieval metrics: CMC, average precision, mAP, mINP; evaluation protocols, which say what counts as a match.

Pure definitions on person ids, cameras and ranks; knows neither features nor models. How ranks are found quickly is
reid_ray.retrieval.ranking.exact's business. All shares are floats in 0..1, ranks start at 1.

Protocols: text_to_image keeps the whole gallery, a match is an image of the same person. image_to_image removes, for each query,
the gallery images of the same person from the same camera (they are near copies of the query, or the query itself). leave_one_out
asks with images of the gallery, and removes the query itself and the images of the same person and track. A query without a match in
what is left is skipped, counted, and enters no mean.

Ties: among equal scores the image that comes first in the gallery ranks first, as in a stable sort. The order is part of the
data, so the result is the same on every machine and for every block size, and a model that gives one score to everything
scores near chance, neither best nor worst. Put the gallery in an order that says nothing about the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np

from reid_ray.errors import DataError

ProtocolName = Literal["text_to_image", "image_to_image", "leave_one_out"]
UNKNOWN = -(2**62)  # person id of a row whose identity nobody knows: in the gallery a distractor, as a query without a match


class RowNames(Protocol):
    """Anything that gives a row's name: a list of ids, or a column of a table."""

    def __getitem__(self, row: int, /) -> str:
        """Name of a row."""
        ...


@dataclass(frozen=True)
class GroundTruth:
    """Who is who in queries and gallery: which gallery rows are right for a query and which are removed before ranking.

    What is removed are rows of the query's person and "camera", which in leave_one_out is a track, or the row itself.
    """

    query_person_Q: np.ndarray
    gallery_person_G: np.ndarray
    query_camera_Q: np.ndarray | None = None
    gallery_camera_G: np.ndarray | None = None
    protocol: ProtocolName = "text_to_image"

    @classmethod
    def text_to_image(cls, query_person_Q: Sequence[int] | np.ndarray, gallery_person_G: Sequence[int] | np.ndarray) -> Self:
        """Every gallery image stays; a match is the same person."""
        return cls(_ids(query_person_Q), _ids(gallery_person_G))

    @classmethod
    def image_to_image(
        cls,
        query_person_Q: Sequence[int] | np.ndarray,
        gallery_person_G: Sequence[int] | np.ndarray,
        *,
        query_camera_Q: Sequence[int] | np.ndarray,
        gallery_camera_G: Sequence[int] | np.ndarray,
    ) -> Self:
        """Per query, gallery images of the same person from the same camera are removed.

        Raises:
            DataError: persons and cameras differ in number.
        """
        query_person_Q, gallery_person_G = _ids(query_person_Q), _ids(gallery_person_G)
        query_camera_Q, gallery_camera_G = _ids(query_camera_Q), _ids(gallery_camera_G)
        for what, person, camera in (("queries", query_person_Q, query_camera_Q), ("gallery", gallery_person_G, gallery_camera_G)):
            if len(person) != len(camera):
                raise DataError(f"{what}: {len(person)} person ids but {len(camera)} cameras; give one camera per row")
        return cls(query_person_Q, gallery_person_G, query_camera_Q, gallery_camera_G, "image_to_image")

    @classmethod
    def leave_one_out(cls, person_G: Sequence[int] | np.ndarray, *, apart_G: Sequence[int] | np.ndarray, query_Q: np.ndarray) -> Self:
        """Rows of the gallery query the others.

        Args:
            person_G: of the gallery.
            apart_G: equal for rows that are set apart from each other (one track); a row without a track has a number of its own.
            query_Q: the rows that query, int64 or bool [G].

        Raises:
            DataError: as image_to_image.
        """
        person_G, apart_G = _ids(person_G), _ids(apart_G)
        truth = cls.image_to_image(person_G[query_Q], person_G, query_camera_Q=apart_G[query_Q], gallery_camera_G=apart_G)
        return replace(truth, protocol="leave_one_out")

    def masks(self, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """(match, removed) of the queries in `rows`, bool [B, G] each: the definition that the fast paths must agree with."""
        person_B = self.query_person_Q[rows, None]
        match_BG = (person_B == self.gallery_person_G) & (person_B != UNKNOWN)
        if self.query_camera_Q is None or self.gallery_camera_G is None:
            return match_BG, np.zeros_like(match_BG)
        removed_BG = match_BG & (self.query_camera_Q[rows, None] == self.gallery_camera_G)
        return match_BG & ~removed_BG, removed_BG


@dataclass(frozen=True)
class QueryResults:
    """What ranking found for each query. Queries without a match have relevant 0, and then ap is NaN and the ranks are 0."""

    ap_Q: np.ndarray  # float64: mean over the relevant items of (relevant items so far / rank)
    first_rank_Q: np.ndarray  # int64: rank of the best match
    last_rank_Q: np.ndarray  # int64: rank of the worst match
    relevant_Q: np.ndarray  # int64: matches in what is left of the gallery
    candidates_Q: np.ndarray  # int64: gallery items left after removal

    @classmethod
    def from_ranks(cls, rank_P: np.ndarray, relevant_Q: np.ndarray, candidates_Q: np.ndarray) -> Self:
        """From the ranks of all matches, query after query, ascending within each (`relevant_Q` of them per query).

        The one definition of average precision: evaluation, validation while training, and benchmarks come here with their ranks.
        """
        relevant_Q = relevant_Q.astype(np.int64)
        found_Q = relevant_Q > 0
        stop_F = np.cumsum(relevant_Q)[found_Q]
        start_F = stop_F - relevant_Q[found_Q]
        ap_Q = np.full(len(relevant_Q), np.nan)
        first_Q, last_Q = np.zeros_like(relevant_Q), np.zeros_like(relevant_Q)
        if len(stop_F):
            so_far_P = np.arange(1, len(rank_P) + 1) - np.repeat(start_F, relevant_Q[found_Q])
            ap_Q[found_Q] = np.add.reduceat(so_far_P / rank_P, start_F) / relevant_Q[found_Q]
            first_Q[found_Q], last_Q[found_Q] = rank_P[start_F], rank_P[stop_F - 1]
        return cls(ap_Q, first_Q, last_Q, relevant_Q, candidates_Q.astype(np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[QueryResults]) -> Self:
        """The results of consecutive blocks of queries as one."""
        names = ("ap_Q", "first_rank_Q", "last_rank_Q", "relevant_Q", "candidates_Q")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def counted(self) -> np.ndarray:
        """Mask [Q] of the queries that enter the means."""
        return self.relevant_Q > 0

    @property
    def skipped(self) -> int:
        """Queries without a match."""
        return int((~self.counted).sum())

    def cmc(self, max_rank: int) -> np.ndarray:
        """float64 [max_rank]: share of counted queries whose best match is at rank 1, at most 2, ..., at most max_rank."""
        first_F = self.first_rank_Q[self._check_counted()]
        at_rank = np.bincount(np.minimum(first_F, max_rank + 1), minlength=max_rank + 2)[1 : max_rank + 1]
        return np.cumsum(at_rank) / len(first_F)

    def mean_ap(self) -> float:
        """mAP: mean of ap over counted queries."""
        return float(self.ap_Q[self._check_counted()].mean())

    def mean_inp(self) -> float:
        """mINP: mean over counted queries of (number of matches / rank of the worst match)."""
        is_counted_Q = self._check_counted()
        return float((self.relevant_Q[is_counted_Q] / self.last_rank_Q[is_counted_Q]).mean())

    def chance_r1(self) -> float:
        """Expected R@1 of a ranking drawn at random, exactly: mean over counted queries of (matches / items left)."""
        is_counted_Q = self._check_counted()
        return float((self.relevant_Q[is_counted_Q] / self.candidates_Q[is_counted_Q]).mean())

    def summary(self) -> dict[str, float]:
        """{"r1", "r5", "r10", "map", "minp", "chance_r1"}, each in 0..1."""
        cmc = self.cmc(10)
        return {
            "r1": float(cmc[0]),
            "r5": float(cmc[4]),
            "r10": float(cmc[9]),
            "map": self.mean_ap(),
            "minp": self.mean_inp(),
            "chance_r1": self.chance_r1(),
        }

    def _check_counted(self) -> np.ndarray:
        if not self.counted.any():
            raise DataError(
                f"none of {len(self.relevant_Q)} queries has a match in the gallery; check that both come from the same people "
                "(person_id) and, for image_to_image, from more than one camera"
            )
        return self.counted


def similarity_distribution(cosine_BG: np.ndarray, match_BG: np.ndarray) -> np.ndarray:
    """SD of each query (UFineBench, Zuo et al., CVPR 2024): average precision with similarities in the place of counts, times a separation.

    s = (cosine + 1) / 2, the gallery sorted by it. At the rank of a match: sum of s over the matches so far / sum of s over all so far; the
    mean of that over the matches is multiplied by 1 - exp(-(mean s of the matches) / (mean s of the others)). Everything is taken in the
    sorted order. The published script sums similarities in the gallery's order but looks at them where the sorted order has matches, so
    its number changes with the gallery's order and is not this one. Where all similarities are equal, SD is average precision times
    1 - exp(-1).

    Args:
        cosine_BG: in [-1, 1]; ties rank in the gallery's order, as everywhere.
        match_BG: bool, which gallery items are right.

    Returns:
        float64 [B] in 0..1, NaN for a query without a match. Without any other item the separation is 1.
    """
    share_BG = np.clip((cosine_BG.astype(np.float64) + 1) / 2, 0, 1)
    order_BG = np.argsort(-share_BG, axis=1, kind="stable")
    share_BG, match_BG = np.take_along_axis(share_BG, order_BG, axis=1), np.take_along_axis(match_BG, order_BG, axis=1)
    right_BG = np.where(match_BG, share_BG, 0.0)
    so_far_BG, right_so_far_BG = share_BG.cumsum(axis=1), right_BG.cumsum(axis=1)
    precision_BG = np.divide(right_so_far_BG, so_far_BG, out=np.zeros_like(so_far_BG), where=so_far_BG > 0)
    matches_B = match_BG.sum(axis=1)
    others_B = match_BG.shape[1] - matches_B
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_right_B = right_BG.sum(axis=1) / matches_B
        mean_other_B = (share_BG - right_BG).sum(axis=1) / others_B
        ratio_B = np.where((others_B == 0) | (mean_other_B == 0), np.inf, mean_right_B / mean_other_B)
        return np.where(match_BG, precision_BG, 0.0).sum(axis=1) / matches_B * (1 - np.exp(-ratio_B))


def unit_rows(feature_ND: np.ndarray, *, what: str, names: RowNames | None = None) -> np.ndarray:
    """Features as L2-normalised float32 rows; returned as they are where they already are (norm 1 within 1e-4).

    Args:
        feature_ND: one row per item.
        what: what the rows are, for the message: "gallery of runs/x/embeddings".
        names: name of each row (an id), for the message; the row number is always given.

    Raises:
        DataError: names the first row that holds NaN or infinity or is all zero; no direction can be given to it.
    """
    if feature_ND.ndim != 2:
        raise DataError(f"{what}: features must be a matrix [rows, dimensions], but have shape {feature_ND.shape}")
    feature_ND = np.ascontiguousarray(feature_ND, dtype=np.float32)
    norm_N = np.sqrt(np.einsum("nd,nd->n", feature_ND, feature_ND))
    bad_N = ~np.isfinite(norm_N) | (norm_N == 0)
    for row in np.flatnonzero(bad_N).tolist():
        largest = float(np.abs(feature_ND[row]).max()) if feature_ND.shape[1] else 0.0
        name = f"row {row}" + (f" ({names[row]})" if names is not None else "")
        if not np.isfinite(largest):
            raise DataError(f"{what}: {name} holds NaN or infinity; embed it again or drop it ({int(bad_N.sum())} such rows)")
        if largest == 0:
            raise DataError(f"{what}: {name} is the zero vector, which has no direction; embed it again or drop it")
        norm_N[row] = np.linalg.norm(feature_ND[row].astype(np.float64))  # finite, but its square leaves float32
    if (np.abs(norm_N - 1) < 1e-4).all():
        return feature_ND
    scale_N = np.abs(feature_ND).max(axis=1)
    scaled_ND = feature_ND / scale_N[:, None]
    return scaled_ND / np.sqrt(np.einsum("nd,nd->n", scaled_ND, scaled_ND))[:, None]


def _ids(values: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.int64)
