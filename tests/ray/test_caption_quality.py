"""Calibration and template mining with real weights: SmolLM2 in vLLM actors, all-MiniLM in this process."""

from __future__ import annotations

import json

import pytest
import yaml

from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.job import run_calibrate
from reid_ray.caption.mine.config import MineJob
from reid_ray.caption.mine.job import run_mine
from reid_ray.caption.mine.patterns import check_template, load_templates
from reid_ray.config.common import OutputConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.records import CAPTIONS
from reid_ray.storage import TableWriter

pytestmark = pytest.mark.slow


def test_with_real_rewrites_the_cosine_misses_the_target_and_the_attributes_reach_it(local_ray, tmp_path):
    people = SyntheticConfig(identities=100, images_per_identity=1, seed=21)
    manifest = run_calibrate(CalibrateJob(people=people, rewrites=24, output=OutputConfig(path=str(tmp_path / "out"))))
    files = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert files == {"calibration.md", "calibration.json", "roc.png", "pairs.jsonl", "manifest.json"}
    result = json.loads((tmp_path / "out" / "calibration.json").read_text())
    rewritten = sum(count for name, count in result["pairs"].items() if name.startswith("rewriter"))
    assert rewritten + sum(manifest["counts"]["failed"].values()) == 24
    assert rewritten > 0
    assert not result["filters"]["cosine"]["meets_targets"]
    assert result["filters"]["cosine"]["auc_held_out"] < 0.7
    assert result["filters"]["attributes"]["meets_targets"]
    assert result["filters"]["both"]["meets_targets"]
    pairs = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == sum(result["pairs"].values()) == manifest["counts"]["written"]


def test_what_a_small_language_model_makes_of_patterns_is_checked_and_counted(local_ray, tmp_path):
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        writer.append(SyntheticPeople(SyntheticConfig(identities=60, images_per_identity=1)).caption_table())
    run_mine(MineJob(captions=str(tmp_path / "captions"), max_templates=16, output=OutputConfig(path=str(tmp_path / "out"))))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["variants"]["by_model"] == 16
    templates = load_templates(tmp_path / "out" / "templates.yaml")
    assert len(templates) == 16 == sum(report["templates"].values())
    by_origin = yaml.safe_load((tmp_path / "out" / "templates.yaml").read_text())["templates"]
    assert all(check_template(entry["text"]) is None for entry in by_origin)
    refused = sum(report["variants"]["refused"].get("model", {}).values())
    assert 16 - refused >= report["templates"].get("model", 0)
