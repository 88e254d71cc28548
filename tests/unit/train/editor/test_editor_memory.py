"""What the memory job predicts of an editor's step is what a real step allocates, and a job that does not fit is refused."""

from __future__ import annotations

import pytest
import torch
from allocated import most_bytes_alive

from reid_ray.errors import ConfigError
from reid_ray.model.editor.editor_folder import open_editor
from reid_ray.train.editor.edit_feed import EditFeed
from reid_ray.train.editor.job import EditorRecipe
from reid_ray.train.editor.objective import EditObjective
from reid_ray.train.editor.worker_parts import build_module
from reid_ray.train.memory.config import MemoryJob
from reid_ray.train.memory.dry_run import parameter_sizes
from reid_ray.train.memory.meta_steps import editor_step
from reid_ray.train.recipe import DATA, START

pytestmark = pytest.mark.slow


def test_a_step_without_memory_holds_what_a_real_step_holds(job_of, prepared):
    torch.set_num_threads(1)
    job = job_of("batches.several_share=1", "batches.drop=0")
    plan = MemoryJob(job="train_editor", config="unused", output={"path": "unused"})
    weights, predicted = editor_step(job, plan, batch=8, checkpointing=False, keep_gradients=True)
    opened = open_editor(prepared[0] / START)
    feed = EditFeed(prepared[0] / DATA, job.batches, job.objective, opened=opened, rank=0, world=1)
    module = build_module(job, opened, values={name: len(values) for name, values in feed.values.items()})
    inputs, objective = feed.make(0).inputs, EditObjective(job.objective)

    def run() -> None:
        objective(module(**inputs), torch.zeros(8, dtype=torch.long)).total.backward()

    measured = most_bytes_alive(run)
    assert predicted.activations + predicted.gradients == pytest.approx(measured, rel=0.2)
    trained, frozen = (sum(sizes) for sizes in parameter_sizes(module))
    assert weights.trained == pytest.approx(trained, rel=0.05)
    assert weights.frozen == pytest.approx(frozen, rel=0.5)  # the text encoder's words, of which a plan has none


def test_a_job_that_does_not_fit_is_refused_before_anything_is_prepared(job_of):
    with pytest.raises(ConfigError, match=r"device_gib.*ZeRO-\d, batch 8 needs"):
        EditorRecipe(job_of("workers.device_gib=0.001")).check()
    EditorRecipe(job_of("workers.device_gib=4", "engine.zero_stage=0")).check()
