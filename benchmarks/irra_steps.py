"""Does a training step move the weights where IRRA's recipe, written again in plain torch, moves them?

    python benchmarks/irra_steps.py --out benchmarks/results/irra_steps-DATE.json [--quick]

20 steps of train_irra_cuhk_pedes.yaml's objective, masking and optimizer, through this package's module, losses, optimizer and DeepSpeed
engine, beside benchmarks/irra/plain_irra.py, which shares no line with it: one start (a checkpoint in IRRA's own form, read as model.init
is), the same pictures, texts and random numbers, float32, epochs of two steps so that the rate rises and falls on the way. Both leave
padding out of IRR's blocks, where the authors' release does not, so what this holds is the recipe but for that.

Three numbers, each the worst over all tensors, for no single one says it all. Of weights: the largest difference in a tensor by its
largest weight. Of learnt: the largest difference by the largest change since the start; a wrong rate is 1 or more there, and hides in the
first, for a step moves a weight by 1e-5 at most. Of each weight: every element by its own size, or 1e-6, the strictest; those near zero
have few digits in float32. Beside them the same where one part of the recipe is left out of the plain script.

It is no measurement of time. --quick takes small towers; else they are those of ViT-B/16 with random weights. Each side runs in a process
of its own, one after the other, and leaves its weights in a file, of which one tensor at a time is compared: 200 M weights with gradients
and two moments are enough for one process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, in_own_process, run_benchmark
from benchmarks.irra.plain_irra import LEFT_OUT, Batch, PlainIrra, Recipe, Shape, adam, set_epoch
from reid_ray.config.base import load_config
from reid_ray.model.dual.clip import CLIP
from reid_ray.model.dual.irra_weights import load_irra
from reid_ray.model.dual.open_clip_weights import convert_weights
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.towers import LossHeads, TwoTowers
from reid_ray.train.losses.objective import build_objective
from reid_ray.train.masking.noise_aware import Vocabulary, masking_draws
from reid_ray.train.masking.noise_store import NoiseStore
from reid_ray.train.masking.step_masks import StepMasks
from reid_ray.train.optimizer import build_optimizer, learning_rate

SHIPPED = Path(__file__).resolve().parents[1] / "jobs/configs/train/train_irra_cuhk_pedes.yaml"
SMALL = Shape(96, 32, 16, 128, 2, 64, 2, 64, vocabulary=300, context=20, persons=10)
REAL = Shape(384, 128, 16, 768, 12, 512, 12, 512, vocabulary=49408, context=77, persons=11003)
STEPS_PER_EPOCH = 2
GOAL = 1e-5
NEAR_ZERO = 1e-6
SPACINGS = 100  # what rounding may move a weight by, of float32 numbers of the tensor's largest size

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Trial:
    """One start, and the batches of every step."""

    shape: Shape
    epochs: int
    batch: int
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of the whole trial."""
        return self.epochs * STEPS_PER_EPOCH

    def start(self) -> PlainIrra:
        """The plain model, as every run begins: heads with random biases too, so that no gradient is zero by symmetry."""
        torch.manual_seed(self.seed)
        model = PlainIrra(self.shape)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("bias"):
                    weight.normal_(std=0.02)
        return model

    def step(self, step: int) -> Batch:
        """The batch of a step; its random numbers are those that this package's masking draws."""
        draw = torch.Generator().manual_seed(1000 + step)
        shape, marks = self.shape, self.shape.vocabulary - 2
        ids = torch.randint(1, marks, (self.batch, shape.context), generator=draw)
        ids[:, 0] = marks
        for row in range(self.batch):
            end = 4 + (row * 7 + step) % (shape.context - 5)
            ids[row, end], ids[row, end + 1 :] = marks + 1, 0
        pixels = torch.randn(self.batch, 3, shape.height, shape.width, generator=draw)
        person = torch.randint(0, min(self.batch // 2, shape.persons), (self.batch,), generator=draw)
        numbers = masking_draws(self.seed, step // STEPS_PER_EPOCH, self.texts(step), shape.context)
        return Batch(pixels, ids, torch.from_numpy(numbers), person)

    def texts(self, step: int) -> np.ndarray:
        """Numbers of a step's texts."""
        return np.arange(self.batch) + step % STEPS_PER_EPOCH * self.batch


class Eager:
    """An engine without DeepSpeed, for a quick look."""

    def __init__(self, module: TwoTowers, optimizer: torch.optim.Optimizer) -> None:
        self._module, self._optimizer = module, optimizer

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features of a batch."""
        return self._module(**batch)

    def step(self, loss: torch.Tensor, *, lr: float) -> None:
        """Backward pass and one step."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def shipped(trial: Trial, *changes: str) -> TrainJob:
    """The shipped configuration for a trial's shape, in float32."""
    heads = trial.shape.dim // 64
    return load_config(
        TrainJob,
        SHIPPED,
        [
            "engine.precision=fp32",
            f"objective.irr.heads={heads}",
            f"schedule.epochs={trial.epochs}",
            f"batches.seed={trial.seed}",
            *changes,
        ],
    )


def recipe_of(config: TrainJob) -> Recipe:
    """IRRA's recipe, with as many epochs as the trial has."""
    epochs = config.schedule.epochs
    return Recipe(epochs=epochs, rising_epochs=round(5 / 60 * epochs))


def plain_weights(trial: Trial, recipe: Recipe) -> Weights:
    """Where the plain script ends, under this package's names."""
    model = trial.start()
    optimizer = adam(model, recipe)
    for step in range(trial.steps):
        set_epoch(optimizer, step // STEPS_PER_EPOCH, recipe)
        optimizer.zero_grad()
        model.loss(trial.step(step), recipe).backward()
        optimizer.step()
    return our_names(model.state_dict())


def our_weights(trial: Trial, *changes: str, zero: bool) -> Weights:
    """Where this package's step ends, with `changes` of the shipped configuration."""
    config = shipped(trial, *changes)
    module, masker = _module(trial, config)
    optimizer = build_optimizer(module, config.optimizer)
    engine: Any = Eager(module, optimizer)
    if zero:
        from reid_ray.train.zero import ZeroEngine

        engine = ZeroEngine(module, optimizer, config=config.engine, clip_norm=config.optimizer.clip_norm, batch_size=trial.batch)
    objective = build_objective(config.objective)
    for step in range(trial.steps):
        batch, rows = trial.step(step), torch.from_numpy(trial.texts(step))
        ids = torch.where(batch.ids_NT == 0, trial.shape.vocabulary - 1, batch.ids_NT)  # CLIP's tokenizer pads with the end mark
        inputs = masker.before({"pixel_values": batch.pixels_N3HW, "input_ids": ids}, rows, step)
        features = engine.forward(inputs)
        lr = learning_rate(step, steps=trial.steps, steps_per_epoch=STEPS_PER_EPOCH, config=config.optimizer)
        engine.step(objective(features, batch.person_N).total, lr=lr)
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def _module(trial: Trial, config: TrainJob) -> tuple[TwoTowers, StepMasks]:
    shape, start = trial.shape, trial.start()
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": {f"module.{name}": weight for name, weight in start.state_dict().items()}}, Path(folder) / "best.pth")
        model, _ = load_irra(Path(folder) / "best.pth")
    end = shape.vocabulary - 1
    encoder: Any = SimpleNamespace(model=model, family=CLIP, tokenizer=SimpleNamespace(eos_token_id=end))
    heads = LossHeads(config.objective, dim=shape.dim, persons=shape.persons, vocab_size=shape.vocabulary)
    module = TwoTowers(encoder, heads, depth=config.masking.depth).train()
    own = module.state_dict()
    module.load_state_dict(own | {name: value for name, value in our_names(start.state_dict()).items() if name.startswith("heads.")})
    vocabulary = Vocabulary(end - 1, end, end - 1, np.arange(1, end - 1))
    masker = StepMasks(
        config.masking,
        vocabulary,
        NoiseStore(0, shape.context),
        seed=trial.seed,
        steps_per_epoch=STEPS_PER_EPOCH,
        device=torch.device("cpu"),
        targets=True,
    )
    return module, masker


_HEADS = {
    "classifier": "heads.classify",
    "cross_attn": "heads.interaction.cross_attention",
    "ln_pre_t": "heads.interaction.text_norm",
    "ln_pre_i": "heads.interaction.image_norm",
    "ln_post": "heads.interaction.output_norm",
    "mlm_head.dense": "heads.interaction.head.dense",
    "mlm_head.ln": "heads.interaction.head.norm",
    "mlm_head.fc": "heads.interaction.head.classify",
    "cross_modal_transformer.resblocks": "heads.interaction.blocks",
}
_IN_BLOCK = {".attn.": ".self_attn.", ".ln_1.": ".norm1.", ".ln_2.": ".norm2.", ".mlp.c_fc.": ".linear1.", ".mlp.c_proj.": ".linear2."}


def our_names(state: Weights) -> Weights:
    """IRRA's state dictionary under this package's names."""
    towers = convert_weights({name.removeprefix("base_model."): value for name, value in state.items() if name.startswith("base_model.")})
    found = {f"model.{name}": value for name, value in towers.items()}
    for name, value in state.items():
        stem = next((stem for stem in _HEADS if name.startswith(f"{stem}.")), None)
        if stem is None:
            continue
        renamed = _HEADS[stem] + name.removeprefix(stem)
        for theirs, ours in _IN_BLOCK.items():
            renamed = renamed.replace(theirs, ours) if ".blocks." in renamed else renamed
        found[renamed] = value
    return {name: value.detach().clone() for name, value in found.items()}


@dataclass(frozen=True)
class Difference:
    """Of two sets of weights from one start: each number the worst over all tensors, and the tensor of the first."""

    of_weights: float
    of_learnt: float
    of_each_weight: float
    tensor: str


def difference(ours: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]) -> Difference:
    """See this module's first lines. Takes a tensor of each side at a time."""
    if ours.keys() != plain.keys():
        raise ValueError(f"weights of one side alone: {sorted(ours.keys() ^ plain.keys())[:5]}")
    of_weights, of_learnt, of_each_weight = dict[str, float](), [], []
    for name in plain:
        found = plain[name].double()
        gap, size = (ours[name].double() - found).abs(), float(found.abs().max())
        learnt = float((found - start[name].double()).abs().max())
        of_weights[name] = float(gap.max()) / size
        of_each_weight.append(float((gap / found.abs().clamp_min(NEAR_ZERO)).max()))
        # A key's bias has no gradient but rounding: softmax does not see it.
        if learnt > SPACINGS * torch.finfo(torch.float32).eps * size:
            of_learnt.append(float(gap.max()) / learnt)
    worst = max(of_weights, key=lambda name: of_weights[name])
    return Difference(of_weights[worst], max(of_learnt), max(of_each_weight), worst)


class WeightsFile(Mapping[str, torch.Tensor]):
    """The weights in a file of safetensors, each read when it is asked for."""

    def __init__(self, file: Path) -> None:
        self._file = safe_open(file, "pt")
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def trial_of(quick: bool) -> Trial:
    """The trial of the first row."""
    return Trial(SMALL, epochs=10, batch=16) if quick else Trial(REAL, epochs=10, batch=4)


def write_side(side: str, file: Path, quick: bool) -> dict[str, float]:
    """Run one side, ours, plain or the start of both, and write its weights; returns what it took."""
    trial = trial_of(quick)
    if side == "ours":
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it
        dist.init_process_group("gloo", init_method=f"file://{file}.store", rank=0, world_size=1)
        try:
            weights = our_weights(trial, zero=True)
        finally:
            dist.destroy_process_group()
    elif side == "plain":
        weights = plain_weights(trial, recipe_of(shipped(trial)))
    else:
        weights = our_names(trial.start().state_dict())
    save_file({name: weight.contiguous() for name, weight in weights.items()}, file)
    return {"peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)}


def main() -> int:
    if sys.argv[1:2] == ["--side"]:
        print(json.dumps(write_side(sys.argv[2], Path(sys.argv[3]), sys.argv[4] == "quick")))
        return 0
    return run_benchmark(__doc__ or "", run)


def run(report: Report, quick: bool) -> None:
    trial, towers = trial_of(quick), "small" if quick else "ViT-B/16"
    with tempfile.TemporaryDirectory(prefix="irra_steps_") as scratch:
        files = {side: Path(scratch) / f"{side}.safetensors" for side in ("start", "ours", "plain")}
        size = "quick" if quick else "whole"
        peaks = {side: in_own_process(__file__, "--side", side, str(file), size)["peak_gb"] for side, file in files.items()}
        whole = difference(*(WeightsFile(files[side]) for side in ("ours", "plain", "start")))
    report.row(recipe="whole", towers=towers, steps=trial.steps, batch=trial.batch, **_columns(whole), peak_gb=max(peaks.values()))
    report.claim("largest difference by the tensor's largest weight", whole.of_weights, "<=", GOAL)
    small = Trial(SMALL, epochs=10, batch=16)
    recipe = recipe_of(shipped(small))
    begun, near = our_names(small.start().state_dict()), our_weights(small, zero=False)
    found = difference(near, plain_weights(small, recipe), begun).of_learnt
    without = {part: difference(near, plain_weights(small, recipe.without(part)), begun) for part in LEFT_OUT}
    for part, other in without.items():
        report.row(recipe=f"{part} {LEFT_OUT[part]}", towers="small", steps=small.steps, batch=small.batch, **_columns(other))
    report.claim(
        "least difference of what was learnt, one part left out, by that of the whole",
        min(o.of_learnt for o in without.values()) / found,
        ">=",
        3,
    )


def _columns(found: Difference) -> dict[str, Any]:
    return {
        "of_weights": found.of_weights,
        "of_learnt": found.of_learnt,
        "of_each_weight": found.of_each_weight,
        "worst_tensor": found.tensor,
    }


if __name__ == "__main__":
    sys.exit(main())
