"""Do 1, 2 and 4 workers, ZeRO 0, 2 and 3, with and without GradCache, train the same model?

    python benchmarks/equivalence.py --out benchmarks/results/equivalence-DATE.json [--quick]

Every cell of the grid is a run of the train job's own workers under Ray Train and DeepSpeed: synthetic people, a small dual encoder in
float32, the same seed and the same global batch, 12 steps of AdamW at 1e-3, no weight left whole by ZeRO-3. One group of workers runs
all cells of its size, one after the other. Each is compared with one worker at
ZeRO 0 without GradCache: the largest relative difference of a step's loss, and the largest difference of a final weight, which is to stay
below a hundredth of what one step may move it. It is no measurement of time. --quick runs the reference and the farthest cell of two
workers.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.fs
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark
from reid_ray.config.base import load_config
from reid_ray.config.common import RayConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.runtime import ray_session
from reid_ray.storage import Counts, TableWriter
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import DualEncoderRecipe
from reid_ray.train.log.run_log import read_metrics
from reid_ray.train.recipe import BEST

Cell = tuple[int, int, int | None]
REFERENCE: Cell = (1, 0, None)
GRID: list[Cell] = list(itertools.product((1, 2, 4), (0, 2, 3), (None, 2)))
QUICK: list[Cell] = [REFERENCE, (2, 3, 2)]
RATE, STEPS, BATCH = 1e-3, 12, 16
SHAPE = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 400, "context": 32}


def people(folder: Path) -> None:
    made = SyntheticPeople(SyntheticConfig(identities=20, images_per_identity=2))
    with TableWriter(folder / "images", IMAGES) as images, TableWriter(folder / "captions", CAPTIONS) as captions:
        images.append(made.image_table())
        captions.append(made.caption_table())


def recipe(folder: Path, cell: Cell) -> DualEncoderRecipe:
    workers, stage, chunk = cell
    values = [
        f"images={{path: {folder}/images, val_split: null}}",
        f"captions={{paths: [{folder}/captions], rewrite_share: 0}}",
        f"model={{image_height: 64, image_width: 32, scratch: {SHAPE}}}",
        f"batches={{size: {BATCH}, chunk: {'null' if chunk is None else chunk}}}",
        "objective={sdm: {temperature: 0.1}, infonce: {weight: 0.5}, id: {weight: 0.5}}",
        # Where a gradient is rounding noise, Adam with a tiny eps turns its sign into a step of full size.
        f"optimizer={{name: adamw, lr: {RATE}, weight_decay: 0.05, eps: 0.0001}}",
        f"schedule={{epochs: 20, max_steps: {STEPS}, log_every: 1, checkpoint_every: 100}}",
        f"engine={{zero_stage: {stage}, persistence_threshold: 0}}",
        f"workers={{count: {workers}, num_cpus: 0.5}}",
        f"output.path={folder}/out",
    ]
    return DualEncoderRecipe(load_config(TrainJob, None, values))


def place(folder: Path, cell: Cell) -> Path:
    return folder / "-".join(str(part) for part in cell)


def train_cells(settings: dict[str, Any]) -> None:
    """On each worker of a group: all cells of the group's size."""
    from reid_ray.train.shipment import ship
    from reid_ray.train.worker import train_worker

    folder = Path(settings["folder"])
    for cell in settings["cells"]:
        here = place(folder, cell)
        train_worker(
            {
                "recipe": recipe(folder, cell),
                "folder": str(here),
                "shipment": ship(here),
                "exposure": {},
                "filesystem": pyarrow.fs.LocalFileSystem(),
                "checkpoints": str(here / "checkpoints"),
            }
        )


def train(folder: Path, workers: int, cells: list[Cell]) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    for cell in cells:
        (place(folder, cell) / "checkpoints").mkdir(parents=True)
        recipe(folder, cell).prepare(place(folder, cell), Counts())
    TorchTrainer(
        train_cells,
        train_loop_config={"folder": str(folder), "cells": cells},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name=f"ray-{workers}", storage_path=str(folder)),
    ).fit()


def result(folder: Path, cell: Cell) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses of all steps, and the last weights."""
    here = place(folder, cell)
    losses = [line["loss"] for line in read_metrics(here) if line.get("kind") == "train"]
    return torch.tensor(losses, dtype=torch.float64), load_file(here / BEST / "model.safetensors")


def run(report: Report, quick: bool) -> None:
    cells = QUICK if quick else GRID
    with tempfile.TemporaryDirectory(prefix="reid-ray-") as name:
        folder = Path(name)
        people(folder)
        with ray_session(RayConfig(address="local")):
            for workers in sorted({cell[0] for cell in cells}):
                train(folder, workers, [cell for cell in cells if cell[0] == workers])
        expected_losses, expected_weights = result(folder, REFERENCE)
        for cell in cells:
            losses, weights = result(folder, cell)
            report.row(
                workers=cell[0],
                zero_stage=cell[1],
                grad_cache_chunk=cell[2],
                steps=len(losses),
                first_loss=round(float(losses[0]), 6),
                last_loss=round(float(losses[-1]), 6),
                max_relative_loss_difference=float(((losses - expected_losses) / expected_losses).abs().max()),
                max_weight_difference=max(float((weights[key] - value).abs().max()) for key, value in expected_weights.items()),
            )
    for column, title, goal in (
        ("max_relative_loss_difference", "largest relative difference of a loss", 1e-5),
        ("max_weight_difference", "largest difference of a weight", RATE / 100),
    ):
        report.claim(title, max(row[column] for row in report.rows), "<=", goal)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
