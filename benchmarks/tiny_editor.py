"""Trains the editor that ships, on one GPU in minutes: train_editor's network and objective in a plain loop, people drawn as it runs.

    python benchmarks/tiny_editor.py --out runs/tiny_editor --seconds 240 [--device cuda] [--processes 13] [--batch 1024]

The train_editor job reads tables, and a GPU would wait for them; here processes draw new people beside the training (a person is seen a few
times, not a hundred), all samples lie on the GPU, and each has its reference from the picture itself, from another shot of its person, from
another person who wears such a thing, or from one who wears something else of such looks. Those pairs across people, the average over the
weights of all steps and noise drawn as u ** --noise-power are ours; the rest is Diverse Person's objective as train_editor has it.

Writes OUT/model (an editor's folder, every minute and at the end), OUT/log.jsonl and OUT/samples.png: a column is a case, and its rows are
source, reference, an edit for each way of drawing, and the true drawing.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from benchmarks.diverse.drawn_samples import SHOTS, VALUES, DrawnSamples, draw_samples, people_of, texts_of
from benchmarks.diverse.edit_cases import ReferenceBank, cases_of
from benchmarks.diverse.edit_cases import people_of as cases_people
from benchmarks.diverse.sample_store import SampleStore
from reid_ray.data.seen_binding import bound_schema, weights_at
from reid_ray.model.editor.config import DrawingConfig, EditorModelConfig, EditorScratch
from reid_ray.model.editor.edit_inputs import PromptReader
from reid_ray.model.editor.edit_request import EditReference, EditRequest
from reid_ray.model.editor.editor_folder import OpenEditor, save_editor, start_editor
from reid_ray.model.editor.reference_crop import reference_pixels
from reid_ray.model.editor.reference_editor import Editor
from reid_ray.records import SEEN, SEEN_FILE
from reid_ray.train.editor.config import EditorObjective
from reid_ray.train.editor.editor_training import EditorTraining
from reid_ray.train.editor.objective import EditObjective

PEOPLE = 7_000_000  # seed of whom the editor learns from; those of twice the size have the next
_SHOWN_PEOPLE, _SHOWN_BANK = 930_000, 930_001
_IMAGES = 256  # drawn at a time by one process
_SAVE_EVERY, _LOG_EVERY, _WARMUP = 60.0, 50, 200


def shape_of(channels: list[int], width: int) -> EditorModelConfig:
    """The editor that ships: windows of 32 x 32 pixels, cells of 2 x 2."""
    scratch = EditorScratch(patch=2, channels=channels, width=width)
    return EditorModelConfig(height=32, width=32, crop=32, context=48, grow=2, scratch=scratch, saved="float16")


class Drawer:
    """Draws ranges of people, in a process of its own; every third is of twice the size, as data sets have it.

    Args:
        opened: the editor, for its shape and tokenizer.
        seed: of the draws.
    """

    def __init__(self, opened: OpenEditor, seed: int, *, cameras: int) -> None:
        self._shape, self._tokenizer, self._seed = opened.shape, opened.tokenizer, seed
        self._people = [people_of(PEOPLE + place, height=height, cameras=cameras) for place, height in enumerate((64, 128))]
        for people in self._people:  # installs the cameras before processes are forked
            people.pictures(0, SHOTS)

    def __call__(self, number: int) -> DrawnSamples:
        """The samples of range `number`."""
        torch.set_num_threads(1)
        start = number * _IMAGES
        people = self._people[number % 3 == 2]
        return draw_samples(people, start, start + _IMAGES, shape=self._shape, tokenizer=self._tokenizer, seed=self._seed)


_DRAWERS: list[Drawer] = []  # one, which the processes inherit


def _drawn(number: int) -> DrawnSamples:
    return _DRAWERS[0](number)


class Mean:
    """The exponential average of a module's weights over the steps.

    Args:
        module: whose weights change in place.
        decay: share of the average that stays, a step.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        state = {name: each.detach() for name, each in module.state_dict().items()}
        self.weights = {name: each.clone() for name, each in state.items()}
        self._new, self._old, self._decay, self._step = list(state.values()), list(self.weights.values()), decay, 0

    def update(self) -> None:
        """After a step."""
        self._step += 1
        torch._foreach_lerp_(self._old, self._new, 1 - min(self._decay, (1 + self._step) / (10 + self._step)))


class Training:
    """What trains on the device, a step at a time.

    Args:
        opened: the editor; its network goes to the device.
        own: the command's arguments.
    """

    def __init__(self, opened: OpenEditor, own: argparse.Namespace) -> None:
        self._own, self.device, network = own, own.device, opened.network.to(own.device)
        self.module = EditorTraining(
            *(network, opened.scheduler),
            trains=["unet", "fusion", "attribute_encoder", "text_encoder"],
            localised=True,
            values=VALUES,
        )
        self.module.to(self.device).train()
        self._objective = EditorObjective(attribute=0.1)
        self._loss = EditObjective(self._objective)
        trained = [each for each in self.module.parameters() if each.requires_grad]
        groups = [
            {"params": [each for each in trained if each.dim() > 1], "weight_decay": 0.01},
            {"params": [each for each in trained if each.dim() <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=own.lr, betas=(0.9, 0.98), fused=self.device == "cuda")
        self._draws = torch.Generator(self.device).manual_seed(own.seed)
        self._empty = torch.from_numpy(PromptReader(opened.tokenizer).empty())[None].to(self.device)
        codec, shape = network.codec, opened.shape
        self._grid = (codec.channels, shape.height // codec.pixels, shape.width // codec.pixels)
        self.mean = Mean(network, own.decay)

    def step(self, store: SampleStore, rate: float) -> dict[str, torch.Tensor]:
        """One step; the losses."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        own = self._own
        batch = store.batch(own.batch, self._draws, noise_power=own.noise_power, objective=self._objective, drop=0.1)
        noise = torch.randn((own.batch, *self._grid), generator=self._draws, device=self.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device == "cuda"):
            features = self.module(**batch, noise=noise, empty=self._empty)
        loss = self._loss(features, batch["timesteps"])
        self._optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self._optimizer.step()
        self.mean.update()
        return dict(loss.raw)


def train(opened: OpenEditor, samples: Iterator[DrawnSamples | None], own: argparse.Namespace) -> Path:
    """Trains until the time or the steps are spent; returns the editor's folder."""
    started, folder = time.monotonic(), Path(own.out) / "model"
    whole, store, training = copy.deepcopy(opened.network), SampleStore(own.device), Training(opened, own)
    facts = {"people_seed": PEOPLE, "batch": own.batch, "precision": "bf16 autocast" if own.device == "cuda" else "float32"}
    step, saved, began = 0, started, None
    with (Path(own.out) / "log.jsonl").open("w", encoding="utf-8") as log:
        while (elapsed := time.monotonic() - started) < own.seconds and step < own.steps:
            if not store.fill(samples, own.most, least=own.least):
                time.sleep(0.1)
                continue
            began = elapsed if began is None else began
            rate = own.lr * schedule(step, max((elapsed - began) / max(1.0, own.seconds - began), step / own.steps))
            raw = training.step(store, rate)
            step += 1
            if step % _LOG_EVERY == 0 or step == own.steps:
                line = {"step": step, "seconds": round(elapsed, 1), "samples": len(store), "lr": round(rate, 6)}
                log.write(json.dumps({**line, **{name: round(float(each), 5) for name, each in raw.items()}}) + "\n")
                log.flush()
            if time.monotonic() - saved > _SAVE_EVERY:
                save(whole, training.mean, opened, folder, {**facts, "step": step, "samples": len(store)})
                saved = time.monotonic()
    seconds = {"seconds": round(time.monotonic() - started, 1), "device": _device_name(own.device)}
    save(whole, training.mean, opened, folder, {**facts, **seconds, "step": step, "samples": len(store)})
    return folder


def schedule(step: int, share: float) -> float:
    """The learning rate's share of its peak: up over the first steps, then down by a cosine over the share of the run that is done."""
    return min(1.0, (step + 1) / _WARMUP) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, share)))


def save(whole: torch.nn.Module, mean: Mean, opened: OpenEditor, folder: Path, facts: dict[str, Any]) -> None:
    """The averaged weights as an editor's folder, put in place at once."""
    whole.load_state_dict({name: each.cpu() for name, each in mean.weights.items()})
    beside = folder.with_name("saving")
    shutil.rmtree(beside, ignore_errors=True)
    network: Any = whole
    save_editor(OpenEditor(network, opened.tokenizer, opened.scheduler, opened.shape), beside, facts, half=True)
    # It has seen no picture of anybody's data set: its people were drawn, and are in none.
    pq.write_table(SEEN.empty_table().cast(bound_schema(weights_at(beside))), beside / SEEN_FILE)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


def show(folder: Path, path: Path, *, device: str, drawings: Sequence[DrawingConfig]) -> None:
    """A page of edits: columns are cases; rows are source, reference, an edit for each way of drawing, the true drawing."""
    crowd, bank = cases_people(14, _SHOWN_PEOPLE), ReferenceBank(cases_people(400, _SHOWN_BANK))
    lines = []
    for attribute in ("upper_color", "upper_pattern", "lower_color", "shoes_color"):
        cases = list(cases_of(crowd, bank, attribute, seed=0))[:10]
        requests = [EditRequest(one.source, one.mask, one.prompt, (EditReference(*one.noun, one.crop),), seed=one.index) for one in cases]
        crops = [np.pad(reference_pixels(one.crop, size=32), ((16, 16), (0, 0), (0, 0))) for one in cases]
        edits = [Editor.open(folder, drawing, device=device).edit(requests) for drawing in drawings]
        lines += [[one.source for one in cases], crops, *edits, [one.answer for one in cases]]
    width = max(len(line) for line in lines)
    laid = [np.concatenate([*line, *([np.zeros_like(line[0])] * (width - len(line)))], axis=1) for line in lines]
    page = Image.fromarray(np.concatenate(laid))
    page.resize((page.width * 3, page.height * 3), Image.Resampling.NEAREST).save(path)


def arriving(pool: Any, processes: int) -> Iterator[DrawnSamples | None]:
    """What the processes have drawn; None where nothing is ready at the moment. Never ends."""
    number, running = 0, list[Any]()
    while True:
        while len(running) < 2 * processes:
            running.append(pool.apply_async(_drawn, (number,)))
            number += 1
        ready = next((each for each in running if each.ready()), None)
        if ready is not None:
            running.remove(ready)
        yield None if ready is None else ready.get()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=240, help="after which it stops, drawing and all")
    parser.add_argument("--steps", type=int, default=1_000_000, help="after which it stops, if that is sooner")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=13)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--decay", type=float, default=0.9985, help="of the average over the weights")
    parser.add_argument("--noise-power", type=float, default=0.35)
    parser.add_argument("--channels", type=int, nargs="+", default=[48, 64, 96])
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--least", type=int, default=20_000, help="samples that must be there before the first step")
    parser.add_argument("--most", type=int, default=1_500_000, help="samples that are kept on the device")
    parser.add_argument("--seed", type=int, default=0)
    own = parser.parse_args()
    Path(own.out).mkdir(parents=True, exist_ok=True)
    model, texts = shape_of(own.channels, own.width), texts_of(people_of(PEOPLE, height=64, cameras=1), 4000)
    opened = start_editor(model, texts, seed=own.seed, steps=4, guidance=1.5)
    _DRAWERS.append(Drawer(opened, own.seed, cameras=own.cameras))
    with multiprocessing.get_context("fork").Pool(own.processes) as pool:
        folder = train(opened, arriving(pool, own.processes), own)
        pool.terminate()
    ways = [DrawingConfig(steps=steps, guidance=guidance) for steps, guidance in ((2, 1.0), (8, 1.0), (8, 1.5), (20, 1.5))]
    show(folder, Path(own.out) / "samples.png", device=own.device, drawings=ways)
    print((folder / "manifest.json").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
