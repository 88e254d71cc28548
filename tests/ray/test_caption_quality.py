"""Calibration, template mining and LLM-DA with real weights: SmolLM2 in vLLM actors, all-MiniLM in this process or beside it."""

from __future__ import annotations

import json

import pytest
import yaml

from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.job import run_calibrate
from reid_ray.caption.existing.config import RewriteJob
from reid_ray.caption.existing.job import run_rewrite
from reid_ray.caption.mine.config import MineJob
from reid_ray.caption.mine.job import run_mine
from reid_ray.caption.mine.patterns import check_template, load_templates
from reid_ray.config.base import load_config
from reid_ray.config.common import OutputConfig, SyntheticConfig
from reid_ray.config.shipped import find_config
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.storage import TableWriter, read_table
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train
from reid_ray.train.log.run_log import read_metrics

pytestmark = pytest.mark.slow


def test_with_real_rewrites_the_cosine_misses_the_target_and_the_attributes_reach_it(local_ray, tmp_path):
    people = SyntheticConfig(identities=100, images_per_identity=1, seed=21)
    manifest = run_calibrate(CalibrateJob(people=people, rewrites=8, output=OutputConfig(path=str(tmp_path / "out"))))
    files = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert files == {"calibration.md", "calibration.json", "roc.png", "pairs.jsonl", "manifest.json"}
    result = json.loads((tmp_path / "out" / "calibration.json").read_text())
    rewritten = sum(count for name, count in result["pairs"].items() if name.startswith("rewriter"))
    assert rewritten + sum(manifest["counts"]["failed"].values()) == 8
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
    run_mine(MineJob(captions=str(tmp_path / "captions"), max_templates=4, output=OutputConfig(path=str(tmp_path / "out"))))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["variants"]["by_model"] == 4
    templates = load_templates(tmp_path / "out" / "templates.yaml")
    assert len(templates) == 4 == sum(report["templates"].values())
    by_origin = yaml.safe_load((tmp_path / "out" / "templates.yaml").read_text())["templates"]
    assert all(check_template(entry["text"]) is None for entry in by_origin)
    refused = sum(report["variants"]["refused"].get("model", {}).values())
    assert 4 - refused >= report["templates"].get("model", 0)


def test_captions_of_people_in_a_published_layout_are_rewritten_trained_on_with_the_learnt_scale_and_scored(local_ray, tmp_path):
    """LLM-DA from end to end: export makes the layout of CUHK-PEDES, as nobody can ship it; the rest is what its user types."""
    people = SyntheticPeople(SyntheticConfig(identities=10, images_per_identity=2, val_share=0.2, test_share=0.3, seed=3))
    with TableWriter(tmp_path / "people" / "images", IMAGES) as images, TableWriter(tmp_path / "people" / "captions", CAPTIONS) as captions:
        images.append(people.image_table())
        captions.append(people.caption_table())
    run_export(load_config(ExportJob, None, [f"tables={tmp_path}/people", "format=cuhk_pedes", f"output.path={tmp_path}/CUHK-PEDES"]))
    tables = tmp_path / "ingest"
    run_ingest(
        load_config(IngestJob, find_config("ingest_cuhk_pedes.yaml"), [f"source.path={tmp_path}/CUHK-PEDES", f"output.path={tables}"])
    )
    rewriter = "rewriter={share: 0.4, sampling: {temperature: 0.3, max_tokens: 60}}"
    rewritten = run_rewrite(
        load_config(
            RewriteJob, None, [f"captions.path={tables}/captions", "captions.kinds=[human]", rewriter, f"output.path={tmp_path}/rewritten"]
        )
    )
    rows = read_table(tmp_path / "rewritten" / "captions", CAPTIONS).to_pylist()
    accepted = [row for row in rows if row["kind"] == "rewrite" and row["status"] == "ok"]
    assert 0 < len(accepted) == rewritten["facts"]["rewrites"]["accepted"]
    assert {row["split"] for row in rows if row["kind"] == "rewrite"} == {"train"}
    assert [row for row in rows if row["kind"] == "human"] == read_table(tables / "captions", CAPTIONS).to_pylist()

    shape = "{vision_width: 32, vision_layers: 1, text_width: 32, text_layers: 1, embed_dim: 16, vocab_size: 400}"
    small = ["model={init: null, image_height: 64, image_width: 32, scratch: " + shape + "}", "batches.size=8", "engine.precision=fp32"]
    places = [f"images.path={tables}/images", f"captions.paths=[{tmp_path}/rewritten/captions]", f"output.path={tmp_path}/trained"]
    steps = ["schedule.max_steps=4", "schedule.log_every=1", "optimizer.lr=0.01", "workers={count: 1, num_cpus: 1, num_gpus: 0}"]
    trained = run_train(load_config(TrainJob, find_config("train_llm_da_cuhk_pedes.yaml"), [*places, *small, *steps]))
    assert trained["facts"]["rewrites"] == len(accepted)
    assert trained["facts"]["selected"]["selection"] == "best text-to-image mAP"
    scales = [line["logit_scale"] for line in read_metrics(tmp_path / "trained") if line.get("kind") == "train"]
    assert scales[0] == pytest.approx(1 / 0.07, rel=1e-3)  # where a CLIP that nobody has trained begins
    assert len(set(scales)) == 4
    saved = load_encoder(tmp_path / "trained" / "model").model.logit_scale.exp().item()
    assert saved != pytest.approx(50, rel=0.1)
    assert saved == pytest.approx(scales[-1], rel=0.05)

    values = [f"encoder={tmp_path}/trained/model", f"images={tables}/images", f"captions={tmp_path}/rewritten/captions"]
    scored = run_evaluate(load_config(EvaluateJob, None, [*values, f"output.path={tmp_path}/scores"]))
    asked = [row for row in rows if row["split"] == "test"]
    assert scored["facts"]["queries"] == len(asked) > 0
