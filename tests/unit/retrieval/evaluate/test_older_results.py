"""Results of an older version, in which what was left out was called failed, too."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from reid_ray.migrate.format_steps import migrated_json
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import read_result, run_evaluate

pytestmark = pytest.mark.slow


def test_what_was_left_out_is_told_apart_by_whoever_reads_an_older_result_and_by_migrate(tmp_path):
    vector_ND = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2]] + np.float32(0.1)
    rows = [
        {
            "item_id": f"i{n}", "image_id": f"i{n}", "kind": "image", "status": "ok", "embedding": vector.tolist(),
            "split": "test", "person_id": (0, 0, 1, 1, None)[n], "camera_id": n,
        }
        for n, vector in enumerate(vector_ND)
    ]  # fmt: skip
    rows.append({"item_id": "bad", "image_id": "bad", "kind": "image", "status": "failed", "reason": "truncated: cut off", "split": "test"})
    pq.write_table(table_of(EMBEDDINGS, rows), tmp_path / "vectors.parquet")
    both = dict.fromkeys(("query_embeddings", "gallery_embeddings"), f"{tmp_path}/vectors.parquet")
    run_evaluate(EvaluateJob.model_validate({"protocol": "image_to_image", **both, "output": {"path": f"{tmp_path}/out"}}))
    today = json.loads((tmp_path / "out" / "result.json").read_text())
    apart = {name: today[name] for name in ("failed", "left_out")}
    assert (apart["failed"]["queries"], apart["left_out"]["queries"]) == ({"truncated": 1}, {"unknown_person": 1})
    failed = {side: {**apart["failed"][side], **apart["left_out"][side]} for side in ("queries", "gallery")}
    older = {**{name: value for name, value in today.items() if name != "left_out"}, "format": 3, "failed": failed}
    (tmp_path / "out" / "result.json").write_text(json.dumps(older))
    read, migrated = read_result(tmp_path / "out"), migrated_json("evaluation", older, 3)
    for found in (read, migrated):
        assert {name: found[name] for name in apart} == apart
