"""Two DeepSpeed processes tune a multimodal LLM as one plain torch process does, on each family and stage."""

import json

import pytest
from torch_workers import outputs_of
from tune_reference import assert_same, job, plain_torch_run, weights_in, write_people

from reid_ray.model.tiny.tiny_llava import build_tiny_llava
from reid_ray.model.tiny.tiny_qwen3_vl import build_tiny_qwen3_vl

pytestmark = pytest.mark.slow

# One of two processes that train several jobs in turn with the parts that a Ray worker would build, without Ray.
WORKER = """
import json, os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.worker_parts import build_parts
from reid_ray.train.optimizer import learning_rate

torch.set_num_threads(1)
os.environ |= {"LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}  # DeepSpeed would ask a launcher
rank, store, jobs = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
for values, folder in jobs:
    config = TuneJob.model_validate(values)
    parts = build_parts(config, Path(folder))
    losses = []
    for step in range(config.schedule.max_steps):
        batch = parts.feed.make(step)
        total = parts.objective(parts.engine.forward(batch.inputs), batch.person_A).total
        lr = learning_rate(step, steps=config.schedule.max_steps, steps_per_epoch=1, config=config.optimizer)
        parts.engine.step(total, lr=lr)
        value = total.detach().clone()
        dist.all_reduce(value)
        losses.append(value.item() / 2)
    state = parts.engine.full_state(frozen=parts.whole_model)
    if rank == 0:
        parts.write(state, Path(folder) / "model", {})
        (Path(folder) / "losses.json").write_text(json.dumps(losses))
    dist.barrier()
# DeepSpeed would hand an optimizer that is not used to torch's compiler, whose import takes each worker a second.
assert "torch._inductor.compile_fx" not in sys.modules
"""


def test_two_zero_workers_equal_plain_torch_on_each_family(tmp_path):
    people, llava = write_people(tmp_path / "people"), build_tiny_llava(tmp_path / "llava")
    qwen3 = build_tiny_qwen3_vl(tmp_path / "qwen3")
    cases = {
        "llava-2": [f"model.base={llava}", "engine.zero_stage=2", "instruction.kind=specific"],
        "llava-3": [f"model.base={llava}", "engine.zero_stage=3", "model.lora.visual=[q_proj]", "objective.pooling=last"],
        "qwen3-3": [f"model.base={qwen3}", "engine.zero_stage=3"],
        "qwen-2": ["engine.zero_stage=2", "model.lora.visual=[qkv]", "objective.sdm.weight=1"],
    }
    configs = {name: job(people, tmp_path / "unused", "schedule.max_steps=3", *values) for name, values in cases.items()}
    expected = {}
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        expected[name] = plain_torch_run(config, tmp_path / name)
    jobs = json.dumps([[config.model_dump(mode="json", exclude_unset=True), str(tmp_path / name)] for name, config in configs.items()])
    outputs_of(WORKER, [(rank, tmp_path / "store", jobs) for rank in range(2)], tmp_path)
    for name in cases:
        losses = json.loads((tmp_path / name / "losses.json").read_text())
        assert_same((losses, weights_in(tmp_path / name / "model")), expected[name])
