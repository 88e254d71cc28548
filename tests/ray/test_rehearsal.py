"""IRRA's fine-tuning for a benchmark is rehearsed whole: published layouts, pre-training with noise-aware masking, fine-tuning, scores."""

import json
import re

import pytest

from reid_ray.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.soak("rehearsals")]
CHAIN = [
    "data/ingest_rstpreid.yaml",
    "data/ingest_luperson_mllm.yaml",
    "data/ingest_cuhk_pedes.yaml",
    "data/ingest_icfg_pedes.yaml",
    "train/train_luperson_mllm.yaml",
    "train/train_irra_rstpreid.yaml",
    "retrieval/evaluate.yaml",
]


def test_irra_from_the_weights_of_luperson_mllm_is_rehearsed_from_published_layouts_to_a_score(local_ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["rehearse", "train_irra_rstpreid.yaml", "--report", "table.json"]) == 0
    rows = {row["configuration"]: row for row in json.loads((tmp_path / "table.json").read_text())["rows"]}
    assert list(rows) == CHAIN
    assert {row["verdict"] for row in rows.values()} == {"ok"}
    pretrained, tuned, scored = (rows[name] for name in CHAIN[-3:])
    # 24 crops with four captions each, of which one crop is damaged; batches of 32 in two epochs, the second with masks by noise.
    assert (pretrained["read"], pretrained["written"]) == (96, 92)
    assert pretrained["said"].startswith("4 steps")
    assert re.findall(r"([\w-]+) test R@1 \d\.\d+", pretrained["said"]) == ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"]
    assert "masking.kind" not in " ".join([*pretrained["changes"], *tuned["changes"]])
    assert re.match(r"R@1 \d\.\d+, mAP \d\.\d+ \([A-Z, -]+\), \d+ queries", scored["said"])
