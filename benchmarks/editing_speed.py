"""Edits a second of the editor beside a bare loop of diffusers' parts over tensors that are ready.

    python benchmarks/editing_speed.py --out benchmarks/results/editing_speed-DATE.json [--quick] [--editor FOLDER]

The bare loop reads prompts and crops, runs U-Net and scheduler with guidance and decodes, batch by batch, on tensors that were made before:
what anybody would write on diffusers' classes. The editor is given requests as the edit job gives them: it cuts windows, lays crops on a
square, tokenizes, draws noise, and pastes back. Both draw the same pictures in the same batches. An editor of pixels with random weights of
the shipped shape, unless a folder is named; at the sampling that it recommends, and at the paper's, 50 steps with guidance 5. Turn by turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark, time_turns
from reid_ray.model.editor.config import DrawingConfig, EditorModelConfig
from reid_ray.model.editor.edit_request import EditReference, EditRequest

_BATCH = 16
_GOAL = 0.95


def run(report: Report, quick: bool, folder: str | None) -> None:
    from reid_ray.model.editor.editor_folder import open_editor

    opened = open_editor(folder) if folder is not None else fresh_editor()
    shape = opened.shape
    edits, repeats = (4 * _BATCH, 3) if quick else (16 * _BATCH, 7)
    for name, steps, guidance in (("as recommended", shape.steps, shape.guidance), ("as in the paper", 50, 5.0)):
        made = requests_of(edits if steps < 10 else max(2 * _BATCH, edits // 4))
        drawing = DrawingConfig(steps=steps, guidance=guidance, batch_size=_BATCH)
        ratio = speed_beside_bare_loop(report, name, opened, made, drawing=drawing, repeats=repeats)
        report.claim(f"edits a second beside a bare loop, {name}", ratio, ">=", _GOAL)


def speed_beside_bare_loop(
    report: Report, name: str, opened: Any, requests: Sequence[EditRequest], *, drawing: DrawingConfig, repeats: int
) -> float:
    """Measure both, add their rows, and give the ratio of their edits a second, of the best turns."""
    from reid_ray.model.editor.reference_editor import Editor

    editor, bare = Editor(opened, drawing, revision="measured"), bare_loop(opened, requests, drawing)
    assert len(editor.edit(requests[:_BATCH])) == len(requests[:_BATCH])
    bare()
    times = time_turns({"bare loop": bare, "editor": lambda: editor.edit(requests)}, repeats=repeats)
    for what, timing in times.items():
        report.row(what=what, sampling=name, edits=len(requests), edits_a_second=round(len(requests) / timing.best_s, 2), **timing.row())
    return times["bare loop"].best_s / times["editor"].best_s


def bare_loop(opened: Any, requests: Sequence[EditRequest], drawing: DrawingConfig) -> Callable[[], list[Any]]:
    """A function that draws all requests from tensors made here."""
    import torch

    from reid_ray.model.editor.edit_inputs import PromptReader, conditions_of, crops_of, unit_pixels
    from reid_ray.model.editor.edit_window import cut_mask, cut_out, window_round

    network, shape = opened.network.eval(), opened.shape
    size, prompts, batches = (shape.height, shape.width), PromptReader(opened.tokenizer), []
    empty = torch.from_numpy(prompts.empty())[None]
    for start in range(0, len(requests), drawing.batch_size):
        some = requests[start : start + drawing.batch_size]
        windows = [window_round(each.mask, size=size, padding=shape.padding) for each in some]
        pairs = list(zip(some, windows, strict=True))
        read = [prompts(each.prompt, [(ref.start, ref.end) for ref in each.references]) for each in some]
        pixels = unit_pixels(np.stack([cut_out(each.picture, window, size=size) for each, window in pairs]))
        masks = torch.from_numpy(np.stack([cut_mask(each.mask, window, size=size, grow=shape.grow) for each, window in pairs])).float()
        crops = [crops_of(each.references, size=shape.crop) for each in some]
        noise = torch.randn(len(some), network.codec.channels, size[0] // network.codec.pixels, size[1] // network.codec.pixels)
        batches.append((conditions_of(read, crops, size=shape.crop), pixels, masks[:, None], noise))

    @torch.inference_mode()
    def draw_all() -> list[Any]:
        drawn = []
        for conditions, pixels, masks, noise in batches:
            sequence = network.condition(conditions)
            guided = torch.cat([sequence, network.read_prompt(empty).expand_as(sequence)])
            beside = network.beside(pixels, masks)
            doubled = None if beside is None else torch.cat([beside, beside])
            opened.scheduler.set_timesteps(drawing.steps)
            grid = noise
            for timestep in opened.scheduler.timesteps:
                seen = torch.cat([grid, grid]) if doubled is None else torch.cat([torch.cat([grid, grid]), doubled], dim=1)
                with_prompt, without = network.unet(seen, timestep, guided).sample.chunk(2)
                grid = opened.scheduler.step(without + drawing.guidance * (with_prompt - without), timestep, grid).prev_sample
            drawn.append(network.codec.decode(grid))
        return drawn

    return draw_all


def fresh_editor() -> Any:
    """An editor of the shipped shape with random weights."""
    from reid_ray.model.editor.editor_folder import start_editor

    config = EditorModelConfig(height=32, width=32, crop=32, context=48, grow=2, scratch={"channels": [64, 64]})
    return start_editor(config, ["a man in a red coat and blue jeans"] * 3, seed=0, steps=2, guidance=1.5)


def requests_of(count: int) -> list[EditRequest]:
    """Requests with random pixels, of the sizes of synthetic people."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        mask = np.zeros((128, 64), bool)
        mask[30 + seed % 7 : 70, 14:50] = True
        crop = rng.integers(0, 256, (40, 36, 4), dtype=np.uint8)
        picture = rng.integers(0, 256, (128, 64, 3), dtype=np.uint8)
        made.append(EditRequest(picture, mask, "a man in a coat and blue jeans", (EditReference(11, 15, crop),), seed))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--editor", metavar="FOLDER")
    own, rest = parser.parse_known_args()
    sys.exit(run_benchmark(__doc__ or "", lambda report, quick: run(report, quick, own.editor), rest))
