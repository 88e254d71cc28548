"""Training an editor under DeepSpeed: two workers equal one, and a run that goes on from a checkpoint equals one that was not disturbed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch_workers import start_workers

from reid_ray.model.editor.config import DrawingConfig
from reid_ray.model.editor.edit_request import EditReference, EditRequest
from reid_ray.model.editor.reference_editor import Editor
from reid_ray.train.editor.config import TrainEditorJob

pytestmark = pytest.mark.slow
STEPS, CUT = 4, 2


def worker(rank: int, world: int, config: str, prepared: str, out: str) -> None:
    """Train STEPS steps, with a checkpoint after CUT; then go on from that with fresh parts."""
    from reid_ray.train.checkpoint.contents import Progress, read_parts, write_parts
    from reid_ray.train.editor.worker_parts import build_parts

    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    folder, job = Path(out), TrainEditorJob.model_validate_json(config)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)

    def train(parts, start, stop):
        for batch in parts.feed.batches(start, stop):
            loss = parts.objective(parts.engine.forward(batch.inputs), batch.person_A)
            parts.engine.step(loss.total, lr=1e-3)

    parts = build_parts(job, Path(prepared))
    train(parts, 0, CUT)
    manifest = write_parts(folder / "checkpoint", parts, Progress(step=CUT), world=world)
    if rank == 0:
        files = [path for path in (folder / "checkpoint").rglob("*") if path.is_file()]
        sizes = {str(path.relative_to(folder / "checkpoint")): path.stat().st_size for path in files}
        (folder / "checkpoint" / "manifest.json").write_text(json.dumps({**manifest, "files": sizes}))
    dist.barrier()
    train(parts, CUT, STEPS)
    keep(parts, folder / "undisturbed.safetensors")
    again = build_parts(job, Path(prepared))
    assert read_parts(folder / "checkpoint", again.engine, None).step == CUT
    train(again, CUT, STEPS)
    keep(again, folder / "resumed.safetensors")


def keep(parts, file: Path) -> None:
    state = parts.engine.full_state(frozen=False)
    if parts.engine.rank == 0:
        save_file(state, file)


@pytest.fixture(scope="module")
def runs(job_of, prepared, tmp_path_factory):
    """Of one worker and of two: the folder with the weights."""
    folders = {}
    for world, stage in ((1, 0), (2, 2)):
        folders[world] = tmp_path_factory.mktemp(f"workers{world}")
        config = job_of(f"workers.count={world}", f"engine.zero_stage={stage}").model_dump_json()
        start_workers(worker, (world, config, str(prepared[0]), str(folders[world])), world)
    return folders


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_goes_on_from_a_checkpoint_equals_an_undisturbed_one_bit_by_bit(runs, world):
    undisturbed, resumed = (load_file(runs[world] / f"{name}.safetensors") for name in ("undisturbed", "resumed"))
    assert undisturbed.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in undisturbed.items())


def test_two_workers_equal_one(runs):
    one, two = (load_file(runs[world] / "undisturbed.safetensors") for world in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=5e-5, rtol=1e-3, msg=name)


def test_the_checkpoints_model_is_an_editor(runs):
    editor = Editor.open(runs[1] / "checkpoint" / "model", DrawingConfig(steps=2))
    picture, mask = np.full((64, 32, 3), 90, np.uint8), np.zeros((64, 32), bool)
    mask[20:40, 8:24] = True
    crop = np.full((10, 8, 4), 255, np.uint8)
    (edited,) = editor.edit([EditRequest(picture, mask, "a man in a coat", (EditReference(11, 15, crop),), 0)])
    assert (edited[~mask] == picture[~mask]).all()
    assert (edited[mask] != picture[mask]).any()
