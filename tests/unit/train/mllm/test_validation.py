"""What validation scores while a multimodal LLM is tuned, against a double loop that sorts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_ray.train.dual.validation import ranked
from reid_ray.train.mllm.validation import _scores, each_against_others


def _by_sorting(feature_GD, person_G, camera_G):
    hits, precisions = [], []
    for query, score_G in enumerate(feature_GD @ feature_GD.T):
        kept = [
            other
            for other in sorted(range(len(person_G)), key=lambda other: (-score_G[other], other))
            if other != query and not (person_G[other] == person_G[query] and camera_G[other] == camera_G[query] >= 0)
        ]
        right = [person_G[other] == person_G[query] for other in kept]
        if any(right):
            hits.append(right[0])
            precisions.append(np.mean([sum(right[: place + 1]) / (place + 1) for place, good in enumerate(right) if good]))
    return np.mean(hits), np.mean(precisions)


@pytest.mark.parametrize("seed", range(3))
def test_pictures_search_each_other_as_market_1501_has_it_ties_and_unknown_cameras_included(seed):
    rng = np.random.default_rng(seed)
    person_G, camera_G = rng.integers(0, 6, 40), rng.integers(-1, 3, 40)
    feature_GD = rng.integers(-1, 2, (40, 3)).astype(np.float32)  # whole numbers: many equal scores, computed exactly
    feature = torch.from_numpy(feature_GD)
    found = _scores("visual", ranked(feature, feature, each_against_others(person_G, camera_G)))
    r1, mean_ap = _by_sorting(feature_GD, person_G, camera_G)
    assert found == {"visual_r1": pytest.approx(r1), "visual_map": pytest.approx(mean_ap)}


def test_nobody_with_a_second_camera_scores_nothing():
    feature = torch.eye(3)
    found = ranked(feature, feature, each_against_others(np.array([0, 1, 2]), np.array([0, 0, 0])))
    assert _scores("visual", found) == {"visual_map": 0.0, "visual_r1": 0.0}
