"""Ranking on CUDA against ranking on the CPU: the same ranks for the same scores, and the evaluate job by its key `device` alone."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from reid_ray.records import EMBEDDINGS, HITS, table_of
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth, unit_rows
from reid_ray.storage import read_table

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"


def truth_of(rng, queries, gallery, *, cameras):
    person_Q, person_G = rng.integers(0, 60, queries), rng.integers(0, 50, gallery)
    person_G[::7] = UNKNOWN
    if not cameras:
        return GroundTruth.text_to_image(person_Q, person_G)
    camera_Q, camera_G = rng.integers(0, 4, queries), rng.integers(0, 4, gallery)
    return GroundTruth.image_to_image(person_Q, person_G, query_camera_Q=camera_Q, gallery_camera_G=camera_G)


@pytest.mark.parametrize("cameras", [False, True])
@pytest.mark.parametrize("rows", [1, 37, 1000])
def test_cuda_gives_the_ranks_of_the_cpu_ties_included(rows, cameras):
    """Small whole numbers: every score is exact on both, and most are tied."""
    import torch

    from reid_ray.retrieval.ranking.exact import rank_queries

    rng = np.random.default_rng(rows)
    query_QD = rng.integers(-2, 3, (200, 8)).astype(np.float32)
    gallery_GD = rng.integers(-2, 3, (5000, 8)).astype(np.float32)
    truth = truth_of(rng, 200, 5000, cameras=cameras)
    here = rank_queries(query_QD, gallery_GD, truth, top_k=20)
    there = rank_queries(
        torch.from_numpy(query_QD).to(DEVICE), torch.from_numpy(gallery_GD).to(DEVICE), truth, top_k=20, block_bytes=28 * rows * 5000
    )
    np.testing.assert_array_equal(there.top_index_QK, here.top_index_QK)
    np.testing.assert_array_equal(there.top_score_QK, here.top_score_QK)
    for name in ("first_rank_Q", "last_rank_Q", "relevant_Q", "candidates_Q"):
        np.testing.assert_array_equal(getattr(there.results, name), getattr(here.results, name), err_msg=name)
    np.testing.assert_allclose(there.results.ap_Q, here.results.ap_Q, atol=1e-12)


def test_the_evaluate_job_ranks_on_cuda_by_its_key_device(tmp_path):
    from reid_ray.retrieval.evaluate.job import run_evaluate

    rng = np.random.default_rng(0)
    centre_PD = rng.standard_normal((20, 64), dtype=np.float32)
    for kind, count in (("text", 80), ("image", 400)):
        person_N = rng.integers(0, 20, count)
        vector_ND = unit_rows(centre_PD[person_N] + 2.5 * rng.standard_normal((count, 64), dtype=np.float32), what=kind)
        rows = [
            {
                "item_id": f"{kind}-{n}",
                "image_id": f"{n}",
                "kind": kind,
                "embedding": vector_ND[n],
                "status": "ok",
                "person_id": person_N[n],
            }
            for n in range(count)
        ]
        pq.write_table(table_of(EMBEDDINGS, [{**row, "split": "test", "dataset": "toy"} for row in rows]), tmp_path / f"{kind}.parquet")
    config = {"query_embeddings": str(tmp_path / "text.parquet"), "gallery_embeddings": str(tmp_path / "image.parquet")}
    found = []
    for device in ("cpu", DEVICE):
        output = tmp_path / device.replace(":", "")
        run_evaluate(EvaluateJob.model_validate({**config, "device": device, "output": {"path": str(output)}}))
        result = json.loads((output / "result.json").read_text())
        found.append(([result[name] for name in ("r1", "r5", "r10", "map", "minp")], read_table(output / "hits", HITS)))
    # sums of 64 products are rounded in another order, so two scores may swap
    np.testing.assert_allclose(found[1][0], found[0][0], atol=0.02)
    np.testing.assert_allclose(found[1][1]["score"].to_numpy(), found[0][1]["score"].to_numpy(), atol=1e-5)
