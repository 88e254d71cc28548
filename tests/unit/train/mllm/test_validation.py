"""What validation scores while a multimodal LLM is tuned, against a double loop that sorts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.train.dual.validation import ranked
from reid_ray.train.feed.prepared import PAIRS, VALIDATION, write_rows
from reid_ray.train.mllm.job import refuse_lone_pictures
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


@pytest.mark.parametrize(
    ("person", "camera", "scored"),
    [
        ([0, 0, 1, 1], [3, 3, 3, 3], False),  # one camera
        ([0, 1, 2, 3], [1, 2, 1, 2], False),  # nobody twice
        ([0, 0, 1, 1], [3, 3, 3, 4], True),
        ([0, 0, 1, 1], [-1, -1, -1, -1], True),  # unknown cameras: a picture is set apart from itself alone
    ],
)
def test_pictures_that_could_choose_nothing_are_refused_before_anything_is_trained(tmp_path, person, camera, scored):
    columns = {"person": person, "picture": list(range(4)), "camera": camera, "synthetic": [False] * 4}
    table = pa.table({"text": ["a"] * 4, "rewrites": [[]] * 4, **columns}, schema=PAIRS)
    write_rows(tmp_path / VALIDATION, PAIRS, [table])
    if scored:
        refuse_lone_pictures(tmp_path, images="crops")
        return
    with refused(DataError, "crops", "4 pictures", "select", "val_split"):
        refuse_lone_pictures(tmp_path, images="crops")


def test_nobody_with_a_second_camera_scores_nothing():
    feature = torch.eye(3)
    found = ranked(feature, feature, each_against_others(np.array([0, 1, 2]), np.array([0, 0, 0])))
    assert _scores("visual", found) == {"visual_map": 0.0, "visual_r1": 0.0}
