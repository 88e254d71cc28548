"""Numbers that are not numbers: who is at fault is named, all workers stop together, and no such score or weight is ever kept."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from refusals import refused
from torch_workers import start_workers

from reid_ray.config.base import load_config
from reid_ray.errors import TrainingError
from reid_ray.retrieval.metrics import GroundTruth
from reid_ray.train.checkpoint.contents import Progress
from reid_ray.train.collectives import all_reduce_any, broadcast
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.validation import ranked
from reid_ray.train.finite import NORM, not_finite
from reid_ray.train.log.run_log import RunLog, read_metrics
from reid_ray.train.loop import train
from reid_ray.train.mllm.validation import _scores
from reid_ray.train.parts import Loss, TrainBatch
from reid_ray.train.recipe import BEST, Selection

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")
NEEDED = ["images.path=x", "captions.paths=[x]", "output.path=x", "workers.count=2", "batches.size=4"]
SELECTION = Selection("val", "r1", "R@1")


def loss_of(**terms: float) -> Loss:
    raw = {name: torch.tensor(value) for name, value in terms.items()}
    return Loss(torch.stack(list(raw.values())).sum(), raw, raw)


def rows() -> list[str]:
    return ["caption a", "caption b", "caption c"]


def test_terms_and_rows_at_fault_are_named():
    image = torch.ones(3, 2)
    image[1, 0] = NAN
    found = not_finite(loss_of(sdm=NAN, id=1.0), 1.0, {"image": image, "text": torch.ones(3, 2)}, device=CPU, rows=rows)
    assert (found.terms, found.ranks, found.rows, found.every_row) == (["loss", "sdm"], [0], ["caption b"], False)
    said = found.sentence(step=7, checkpoint=6, precision="bf16")
    for part in ("step 7", "sdm", "caption b", "checkpoint of step 6 is kept", "optimizer.lr", "engine.precision"):
        assert part in said
    assert "id" not in said.split(" not finite")[0].split(": ")[1].split(", ")


@pytest.mark.parametrize(
    ("loss", "norm", "terms"),
    [(loss_of(sdm=INF), 1.0, ["loss", "sdm"]), (loss_of(sdm=1.0), NAN, [NORM]), (loss_of(sdm=1.0), INF, [NORM])],
)
def test_where_no_row_is_at_fault_the_whole_batch_is_named(loss, norm, terms):
    found = not_finite(loss, norm, {"image": torch.ones(3, 2)}, device=CPU, rows=rows)
    assert (found.terms, found.rows, found.every_row) == (terms, rows(), True)


def test_finite_numbers_do_not_even_ask_for_names():
    assert not_finite(loss_of(sdm=1.0, id=3e38), 1e30, {"image": torch.ones(3, 2)}, device=CPU, rows=lambda: 1 / 0) is None


def test_a_metric_that_is_not_a_number_is_written_as_unknown(tmp_path):
    log = RunLog(tmp_path, load_config(TrainJob, None, [*NEEDED, "log.to=[]"]).log, start=0, writes=True, settings={})
    log.numbers("validation", step=1, numbers={"r1": NAN, "map": 0.5, "mfu": None, "x": INF})
    log.close()
    assert read_metrics(tmp_path) == [
        {"step": 1, "kind": "validation", "exposure": ["UNKNOWN"], "r1": None, "map": 0.5, "mfu": None, "x": None}
    ]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_feature_that_is_not_a_number_leaves_no_score():
    """Sorted as a number, NaN would rank first, and the picture that could not be encoded would be everybody's best hit."""
    gallery_GD, truth = torch.eye(3), GroundTruth.text_to_image([0, 1], [0, 1, 2])
    found = ranked(torch.eye(3)[:2], gallery_GD, truth)
    assert (found.first_rank_Q.tolist(), found.ap_Q.tolist()) == ([1, 1], [1, 1])
    for broken in (NAN, INF):
        lost_GD = gallery_GD.clone()
        lost_GD[2, 0] = broken
        assert ranked(torch.eye(3)[:2], lost_GD, truth) is None
        assert ranked(lost_GD[1:], gallery_GD, truth) is None
    assert all(math.isnan(value) for value in _scores("visual", None).values())


class Engine:
    """Two workers' engine without DeepSpeed: one weight, and collectives where the real one has them."""

    stage, device = 0, CPU

    def __init__(self) -> None:
        self.rank, self.weight = dist.get_rank() if dist.is_initialized() else 0, torch.ones(1)

    def forward(self, inputs):
        return {"image": inputs["x"] * self.weight, "text": inputs["x"]}

    def step(self, loss, *, lr):
        return float(loss)

    def train(self, mode):
        pass

    def weights_finite(self):
        return bool(torch.isfinite(self.weight).all())

    def full_state(self, *, frozen):
        self.barrier()
        return {"weight": self.weight}

    def barrier(self):
        if dist.is_initialized():
            dist.all_reduce(torch.zeros(1))


class Feed:
    plan = SimpleNamespace(steps_per_epoch=1)

    def __init__(self, values) -> None:
        self.values = values

    def batches(self, start, stop):
        for step in range(start, stop):
            value = torch.tensor([[1.0], [self.values.get(step, 1.0)]])
            yield TrainBatch({"x": value}, torch.zeros(2), torch.tensor([2 * step, 2 * step + 1]))

    def names_of(self, numbers):
        return [f"caption {number} of worker {dist.get_rank() if dist.is_initialized() else 0}" for number in numbers]


class Checkpoints:
    def __init__(self) -> None:
        self.saved: list[Progress] = []

    def save(self, parts, progress):
        parts.engine.barrier()
        self.saved.append(progress)

    def steps(self):
        return [progress.step for progress in self.saved]


def run(folder: Path, scores, *, values=None, steps=4, engine=None, overrides=()) -> tuple[Progress, Checkpoints]:
    """A run whose validations give `scores` one after the other, on this worker, and whose second row of a step is `values`."""
    given, engine = iter(scores), engine or Engine()

    def write(state, path, facts):
        path.mkdir()
        (path / "manifest.json").write_text(json.dumps({"facts": facts}))

    parts = SimpleNamespace(
        engine=engine,
        objective=lambda features, person_A: loss_of(sdm=float(features["image"].mean())),
        feed=Feed(values or {}),
        write=write,
        masking=None,
        validate=lambda: {"r1": next(given)},
        transfer=(),
        whole_model=True,
    )
    config = load_config(TrainJob, None, [*NEEDED, "schedule.validate_every=1", "schedule.checkpoint_every=1", "log.to=[]", *overrides])
    checkpoints = Checkpoints()
    log = RunLog(folder, config.log, start=0, writes=engine.rank == 0, settings={})
    progress = train(
        parts, folder=folder, selection=SELECTION, checkpoints=checkpoints, log=log, progress=Progress(), steps=steps, config=config
    )
    return progress, checkpoints


def test_a_score_that_is_not_a_number_is_never_better_and_is_said(tmp_path):
    progress, _ = run(tmp_path, [0.5, NAN, 0.4, NAN])
    assert (progress.best_step, progress.best_score, progress.without_better) == (1, 0.5, 3)
    lines = read_metrics(tmp_path)
    assert [line["r1"] for line in lines if line.get("kind") == "validation"] == [0.5, None, 0.4, None]
    assert [line["step"] for line in lines if line.get("event") == "not_finite"] == [2, 4]
    progress, _ = run(tmp_path, [NAN, 0.1, 0.2, NAN])
    assert (progress.best_step, progress.best_score) == (3, 0.2)


def test_a_run_without_any_score_keeps_nothing(tmp_path):
    with refused(TrainingError, "R@1", "val"):
        run(tmp_path, [NAN] * 4)
    assert not (tmp_path / BEST).exists()


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    engine = Engine()
    engine.forward = lambda inputs: {"image": inputs["x"], "text": inputs["x"]}
    engine.weight = torch.tensor([NAN])
    with refused(TrainingError, "step 1", "weights"):
        run(tmp_path, [0.5] * 4, engine=engine)
    assert not (tmp_path / BEST).exists()


def _worker(rank: int, folder: Path) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    said = {"broadcast": broadcast(0.1 + rank), "raised": all_reduce_any([rank == 1, False], device=CPU)}
    # The second validation is as good as the first on worker 0, and better by the last bit on worker 1; the third the other way round.
    mine = ([0.5, 0.5, math.nextafter(0.5, 1), 0.1], [0.5, math.nextafter(0.5, 1), 0.5, 0.1])[rank]
    progress, _ = run(folder, mine)
    said["best"] = (progress.best_step, progress.best_score, progress.without_better)
    # Early stop after two without better, which worker 1 alone would not see.
    stopped, _ = run(folder, [0.5, 0.4, 0.4] if rank == 0 else [0.1, 0.2, 0.3, 0.4], overrides=["schedule.patience=2"])
    said["stopped"] = stopped.step
    try:
        run(folder, [0.5] * 4, values={2: NAN} if rank == 1 else {})
    except TrainingError as error:
        said["error"] = str(error)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_take_one_decision_whatever_each_has_computed(tmp_path):
    context = start_workers(_worker, (tmp_path,), 2, join=False)
    try:
        ended = time.time() + 300
        while not context.join(timeout=5):  # one of them has ended
            assert time.time() < ended, "a worker waits for the other for ever"
    finally:
        for process in context.processes:
            process.kill()
    one, other = (json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in range(2))
    assert one == other
    assert one["broadcast"] == 0.1
    assert one["raised"] == [True, False]
    assert one["best"] == [3, math.nextafter(0.5, 1), 1]
    assert one["stopped"] == 3
    assert "step 3: loss, sdm, gradient norm are not finite, on 1 row of rank 1 (caption 5 of worker 1)" in one["error"]
    assert "checkpoint of step 2 is kept" in one["error"]
