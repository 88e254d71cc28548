"""How long the editor takes beside a bare loop: the same network and scheduler, called as diffusers' pipelines call them.

The bare loop gets its inputs ready-made, tokens and crops included, and gives tensors; the editor takes requests and gives pasted pictures.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from reid_ray.model.editor.diffusion_sampling import noise_of
from reid_ray.model.editor.edit_inputs import conditions_of, crops_of, unit_pixels
from reid_ray.model.editor.edit_request import EditRequest
from reid_ray.model.editor.edit_window import cut_mask, cut_out, window_round
from reid_ray.model.editor.reference_editor import Editor

_BATCH = 16


def seconds_of_editor_and_bare_loop(editor: Editor, requests: Sequence[EditRequest], *, repeats: int) -> tuple[float, float]:
    """Least seconds of each over all requests, taken by turns."""
    prepared = [_prepared(editor, requests[start : start + _BATCH]) for start in range(0, len(requests), _BATCH)]
    works: dict[str, Callable[[], Any]] = {
        "editor": lambda: editor.edit(requests),
        "bare": lambda: [_bare(editor, each) for each in prepared],
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return min(seconds["editor"]), min(seconds["bare"])


def _prepared(editor: Editor, requests: Sequence[EditRequest]) -> dict[str, Any]:
    shape, size = editor.shape, (editor.shape.height, editor.shape.width)
    windows = [window_round(each.mask, size=size, padding=shape.padding) for each in requests]
    pictures = [cut_out(each.picture, window, size=size) for each, window in zip(requests, windows, strict=True)]
    masks = [cut_mask(each.mask, window, size=size, grow=shape.grow) for each, window in zip(requests, windows, strict=True)]
    prompts = [editor._prompts(each.prompt, [(ref.start, ref.end) for ref in each.references]) for each in requests]
    conditions = conditions_of(prompts, [crops_of(each.references, size=shape.crop) for each in requests], size=shape.crop)
    return {
        "pictures": unit_pixels(np.stack(pictures)),
        "masks": torch.from_numpy(np.stack(masks))[:, None].float(),
        "conditions": conditions,
        "empty": torch.from_numpy(editor._prompts.empty())[None],
        "seeds": torch.tensor([each.seed for each in requests]),
    }


@torch.inference_mode()
def _bare(editor: Editor, given: dict[str, Any]) -> Any:
    network, scheduler, drawing = editor._network, copy.deepcopy(editor._scheduler), editor._drawing
    scheduler.set_timesteps(drawing.steps)
    sequence = network.condition(given["conditions"])
    pictures, masks = given["pictures"], given["masks"]
    beside = torch.cat([network.codec.mask_grid(masks), network.codec.encode(pictures * (1 - masks))], dim=1)
    pixels = network.codec.pixels
    shape = (network.codec.channels, pictures.shape[2] // pixels, pictures.shape[3] // pixels)
    latents = noise_of(given["seeds"].tolist(), shape) * scheduler.init_noise_sigma
    guided = drawing.guidance > 1
    if guided:
        empty = network.read_prompt(given["empty"]).expand_as(sequence)
        sequence, beside = torch.cat([sequence, empty]), torch.cat([beside, beside])
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        predicted = network.unet(torch.cat([model_input, beside], dim=1), timestep, encoder_hidden_states=sequence).sample
        if guided:
            with_prompt, without = predicted.chunk(2)
            predicted = without + drawing.guidance * (with_prompt - without)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return network.codec.decode(latents)
