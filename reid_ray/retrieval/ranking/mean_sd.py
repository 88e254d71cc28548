"""mSD, the mean similarity distribution of UFineBench, over any number of queries: a block of scores at a time.

The definition is reid_ray.retrieval.metrics.similarity_distribution. It sorts whole rows, which ranks do not need: 38,000 queries of 7,400
images take some half a minute.
"""

from __future__ import annotations

import numpy as np

from reid_ray.errors import DataError
from reid_ray.retrieval.metrics import GroundTruth, similarity_distribution
from reid_ray.retrieval.ranking.blocks import BLOCK_BYTES, block_rows
from reid_ray.retrieval.ranking.exact import product_with, scores_of_block

_BYTES_PER_SCORE = 64  # seven rows of float64 and two of bool


def mean_similarity_distribution(
    query_QD: np.ndarray, gallery_GD: np.ndarray, truth: GroundTruth, *, block_bytes: int = BLOCK_BYTES
) -> float:
    """Mean of SD (mSD) in 0..1 over the queries that have a match.

    Args:
        query_QD: unit rows, float32.
        gallery_GD: likewise.
        truth: text to image; nothing is removed from the gallery.
        block_bytes: held at once.

    Raises:
        DataError: no query has a match.
    """
    import torch

    product, queries = product_with(torch.from_numpy(gallery_GD)), torch.from_numpy(query_QD)
    rows = block_rows(len(gallery_GD), bytes_per_score=_BYTES_PER_SCORE, block_bytes=block_bytes)
    parts = []
    for start in range(0, len(query_QD), rows):
        block = slice(start, start + rows)
        parts.append(similarity_distribution(scores_of_block(queries[block], product), truth.masks(block)[0]))
    sd_Q = np.concatenate(parts) if parts else np.zeros(0)
    counted_Q = ~np.isnan(sd_Q)
    if not counted_Q.any():
        raise DataError(f"none of {len(sd_Q)} queries has a match in the gallery, so there is no mSD")
    return float(sd_Q[counted_Q].mean())
