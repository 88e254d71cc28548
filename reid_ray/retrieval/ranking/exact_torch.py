"""Exact ranking on a CUDA (or any other torch) device: that of reid_ray.retrieval.ranking.exact in torch operations.

Each score becomes a 64-bit key, score first and gallery place second, so that keys are never equal and a plain comparison holds
the rule for ties. Binary search then counts the keys above each match.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reid_ray.errors import DataError
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth, QueryResults
from reid_ray.retrieval.ranking.blocks import PersonGroups, Ranking, block_rows

_BYTES_PER_SCORE = 4 + 8 + 8 + 8  # the score, its key, its place among the matches, and scratch


def rank_on_device(query_QD: Any, gallery_GD: Any, truth: GroundTruth, *, top_k: int, block_bytes: int) -> Ranking:
    """rank_queries on the device that holds the features; see there for arguments and errors."""
    import torch

    groups = PersonGroups.of(truth)
    rows = block_rows(len(gallery_GD), bytes_per_score=_BYTES_PER_SCORE, block_bytes=block_bytes)
    parts, top_index, top_score = [], [], []
    with torch.no_grad():
        gallery_GD = gallery_GD.to(torch.float32)
        for start in range(0, len(query_QD), rows):
            block = slice(start, min(start + rows, len(query_QD)))
            query_BD = query_QD[block].to(device=gallery_GD.device, dtype=torch.float32)
            result, index_BK, score_BK = _rank_block(query_BD @ gallery_GD.T, block, truth, groups, top_k)
            parts.append(result)
            top_index.append(index_BK)
            top_score.append(score_BK)
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return Ranking(QueryResults.from_ranks(nothing, nothing, nothing), np.zeros((0, top_k), np.int64), np.zeros((0, top_k), np.float32))
    return Ranking(QueryResults.concatenate(parts), np.concatenate(top_index), np.concatenate(top_score))


def _rank_block(
    score_BG: Any, block: slice, truth: GroundTruth, groups: PersonGroups, top_k: int
) -> tuple[QueryResults, np.ndarray, np.ndarray]:
    import torch

    if not bool(torch.isfinite(score_BG).all()):
        row = block.start + int(torch.nonzero(~torch.isfinite(score_BG).all(dim=1))[0])
        raise DataError(f"query {row}: a score is NaN or infinite; check the features with unit_rows")
    device, width = score_BG.device, score_BG.shape[1]
    key_BG = _keys(score_BG)
    positive_BP, removed_BR = (torch.as_tensor(index, device=device) for index in _members(truth, groups, block))
    smallest, largest = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    removed_key_BR = _gather(key_BG, removed_BR, filler=smallest)
    positive_key_BP = _gather(key_BG, positive_BP, filler=largest).sort(dim=1).values
    # Keys above the p-th match in ascending order: the gallery's, less the removed ones'.
    before_BP = _count_above(positive_key_BP, key_BG) - _count_above(positive_key_BP, removed_key_BR.sort(dim=1).values)
    relevant_B = (positive_BP >= 0).sum(dim=1)
    removed_B = (removed_BR >= 0).sum(dim=1)
    rank_BP = torch.where(positive_key_BP == largest, 0, before_BP + 1).flip(1)  # descending keys are ascending ranks
    results = QueryResults.from_ranks(rank_BP[rank_BP > 0].cpu().numpy(), relevant_B.cpu().numpy(), (width - removed_B).cpu().numpy())
    index_BK, score_BK = _top(key_BG, score_BG, removed_BR, top_k)
    return results, index_BK, score_BK


def _keys(score_BG: Any) -> Any:
    """int64 keys that sort as (score, earlier gallery place), all different within a row."""
    import torch

    bits = (score_BG + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0, which is its equal
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)  # negative floats sort backwards as integers
    place_G = torch.arange(score_BG.shape[1] - 1, -1, -1, device=score_BG.device)
    return (ordered << 32) + place_G


def _gather(key_BG: Any, index_BP: Any, *, filler: int) -> Any:
    import torch

    return torch.where(index_BP >= 0, key_BG.gather(1, index_BP.clamp(min=0)), filler)


def _count_above(limit_BP: Any, key_BN: Any) -> Any:
    """int64 [B, P]: how many keys of each row are larger than each (ascending) limit."""
    import torch

    place_BN = torch.searchsorted(limit_BP.contiguous(), key_BN.contiguous())  # limits strictly below the key
    histogram = torch.zeros(limit_BP.shape[0], limit_BP.shape[1] + 1, dtype=torch.int64, device=limit_BP.device)
    histogram.scatter_add_(1, place_BN, torch.ones_like(place_BN))
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:]


def _members(truth: GroundTruth, groups: PersonGroups, block: slice) -> tuple[np.ndarray, np.ndarray]:
    """Gallery rows of each query's matches and of its removed items, int64 [B, most of them], padded with -1."""
    positives, removals = [], []
    for query in range(block.start, block.stop):
        members = groups.order_G[groups.start_Q[query] : groups.stop_Q[query]]
        if truth.query_camera_Q is not None and truth.gallery_camera_G is not None and truth.query_person_Q[query] != UNKNOWN:
            gone = truth.gallery_camera_G[members] == truth.query_camera_Q[query]
            positives.append(members[~gone])
            removals.append(members[gone])
        else:
            positives.append(members)
            removals.append(members[:0])
    return _padded(positives), _padded(removals)


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    matrix = np.full((len(rows), max((len(row) for row in rows), default=0)), -1, dtype=np.int64)
    for line, row in zip(matrix, rows, strict=True):
        line[: len(row)] = row
    return matrix


def _top(key_BG: Any, score_BG: Any, removed_BR: Any, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    rows, width = key_BG.shape
    index_BK = np.full((rows, top_k), -1, dtype=np.int64)
    score_BK = np.full((rows, top_k), -np.inf, dtype=np.float32)
    if not top_k:
        return index_BK, score_BK
    smallest = torch.iinfo(torch.int64).min
    row_N, place_N = torch.nonzero(removed_BR >= 0, as_tuple=True)
    key_BG[row_N, removed_BR[row_N, place_N]] = smallest
    best_BK, found_BK = key_BG.topk(min(top_k, width), dim=1)
    keep_BK = (best_BK != smallest).cpu().numpy()
    count = keep_BK.shape[1]
    index_BK[:, :count] = np.where(keep_BK, found_BK.cpu().numpy(), -1)
    score_BK[:, :count] = np.where(keep_BK, score_BG.gather(1, found_BK).cpu().numpy(), -np.inf)
    return index_BK, score_BK
