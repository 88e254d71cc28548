"""A tune run goes on after its machine went down, with other workers, ZeRO stage and offload; its adapter alone makes vLLM's captioner."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kills import kill_driver_after
from refusals import refused
from safetensors.torch import load_file, save_file
from tiny_answers import TINY, greedy_answers
from tune_reference import assert_same, job, plain_torch_run, weights_in, write_people

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.job import run_caption
from reid_ray.caption.prompts import STATIC
from reid_ray.config.base import load_config
from reid_ray.data.images import decode_image
from reid_ray.data.seen_rows import seen_by
from reid_ray.errors import ConfigError, DataError
from reid_ray.model.merge.config import MergeJob
from reid_ray.model.merge.job import run_merge
from reid_ray.model.mllm.model_folder import HEADS, TRAINED, adapters_in, fingerprint_of
from reid_ray.model.weight_files import read_state
from reid_ray.records import IMAGES, SEEN
from reid_ray.storage import MANIFEST, read_manifest, read_table, write_json
from reid_ray.train.log.run_log import read_metrics
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.job import run_tune

pytestmark = pytest.mark.slow

LLM_ONLY = [
    "model.train_projector=false",
    "model.lora.visual=[]",
    "objective.visual_id.weight=0",
    "objective.visual_triplet.weight=0",
]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.mark.soak("training")
def test_a_tune_killed_with_its_machine_ends_on_one_worker_that_offloads_as_plain_torch_does(local_ray, root, people, tmp_path):
    """Begun by two workers under ZeRO-3, killed with its machine, and ended by one under ZeRO-2 that offloads; adapters of the LLM only."""
    changes = ["engine.zero_stage=3", *LLM_ONLY, "schedule.max_steps=8", "schedule.checkpoint_every=1"]
    written = job(people, tmp_path / "out", *changes)
    file = tmp_path / "tune.yaml"
    file.write_text(json.dumps(written.model_dump(mode="json", exclude_unset=True)))
    kill_driver_after(1, [sys.executable, str(root / "jobs" / "tune.py"), "--config", str(file), "ray.address=local"], tmp_path)
    other = ["workers.count=1", "engine.zero_stage=2", "engine.offload_optimizer=true", "ray.address=local"]
    config = load_config(TuneJob, file, other)
    manifest = run_tune(config)

    lines = read_metrics(tmp_path / "out")
    starts = [(line["step"], len(line["workers"])) for line in lines if line.get("event") == "start"]
    assert starts[0] == (0, 2)
    assert 0 < starts[1][0] < 8
    assert starts[1][1] == 1
    assert manifest["facts"]["restarts"] == 1
    losses = [line["loss"] for line in lines if line.get("kind") == "train"]
    assert_same((losses, weights_in(tmp_path / "out" / "model")), plain_torch_run(config, tmp_path / "plain"))


def test_an_adapter_alone_captions_as_its_merged_model_does(local_ray, people, tmp_path):
    config = job(people, tmp_path / "run", *LLM_ONLY, "workers.count=1")
    manifest = run_tune(config)
    assert manifest["facts"]["model"]["adapter_serves_alone"]
    tuned = Path(shutil.copytree(Path(config.output.path) / "model", tmp_path / "tuned"))
    file = tuned / "adapter" / "adapter_model.safetensors"
    # Exaggerated, or four steps would not be heard in greedy captions.
    save_file({name: weight * 20 if "lora_B" in name else weight for name, weight in load_file(file).items()}, file)
    with refused(DataError, str(tuned), "changed"):
        run_merge(load_config(MergeJob, None, [f"model={tuned}", f"output.path={tmp_path}/merged"]))
    told = read_manifest(tuned)
    states = adapters_in(tuned) | read_state(tuned / TRAINED), read_state(tuned / HEADS)
    write_json(tuned / MANIFEST, {**told, "fingerprint": fingerprint_of(told["base"], *states)})
    run_merge(load_config(MergeJob, None, [f"model={tuned}", f"output.path={tmp_path}/merged", "dtype=float32"]))
    run_merge(load_config(MergeJob, None, [f"model={config.output.path}/model", f"output.path={tmp_path}/as-tuned"]))
    as_tuned, changed = (pa.concat_tables(seen_by(tmp_path / name)) for name in ("as-tuned", "merged"))
    assert as_tuned.equals(read_table(tuned / "seen.parquet", SEEN))
    assert [row["weights"] for row in as_tuned.to_pylist() if row["role"] == "unknown"] == [config.model.base]
    assert changed["role"].to_pylist() == ["unknown"]  # what the tuned weights saw says nothing of those that were put in their place
    adapter, greedy = {"adapter": f"{tuned}/adapter"}, {"sampling": {"temperature": 0}, "instructions": ["static"]}
    captioners = {"alone": adapter | greedy, "whole": {"model": f"{tmp_path}/merged"} | greedy}
    values = [
        "images.source=parquet",
        f"images.path={people}/images",
        "images.split=test",
        "rewriter.share=0",
        f"output.path={tmp_path}/out",
    ]
    run_caption(load_config(CaptionJob, None, [*values, f"captioners={json.dumps(captioners)}"]))
    said = {name: {} for name in captioners}
    for row in pq.read_table(tmp_path / "out" / "captions").to_pylist():
        said[row["captioner"]][row["image_id"]] = row["text"]
    assert all(said["alone"].values())
    assert said["alone"] == said["whole"]
    rows = read_table(people / "images", IMAGES).to_pylist()
    pictures = {row["image_id"]: decode_image(row["image"]) for row in rows if row["image_id"] in sorted(said["alone"])[:4]}
    untuned = dict(zip(pictures, greedy_answers(TINY, list(pictures.values()), [STATIC] * len(pictures), tokens=96), strict=True))
    assert len(pictures) == 4
    assert not all(said["alone"][name] in answer for name, answer in untuned.items())  # the adapter is heard
    mixed = {"mixed": adapter | captioners["whole"]}
    with refused(ConfigError, "captioners.mixed.adapter", "builtin:tiny-mllm"):
        run_caption(load_config(CaptionJob, None, [*values, f"captioners={json.dumps(mixed)}", f"output.path={tmp_path}/other"]))
