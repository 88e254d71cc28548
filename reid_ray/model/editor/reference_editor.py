"""Editor: pictures with masks and reference crops in, edited pictures out. What the edit job and the benchmarks use.

A plain class; no Ray, no tables. Every result is a function of its request: noise comes from the request's seed, not from its neighbours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reid_ray.config.base import fingerprint
from reid_ray.model.editor.config import DrawingConfig
from reid_ray.model.editor.diffusion_sampling import Denoising, draw, noise_of
from reid_ray.model.editor.edit_inputs import PromptReader, conditions_of, crops_of, grey_levels, unit_pixels
from reid_ray.model.editor.edit_network import EditConditions
from reid_ray.model.editor.edit_request import EditRequest
from reid_ray.model.editor.edit_window import Window, cut_mask, cut_out, put_back, resized, window_round
from reid_ray.model.editor.editor_folder import OpenEditor, open_editor
from reid_ray.model.model_files import model_revision


@dataclass(frozen=True)
class _CutOut:
    """A batch of requests as tensors, with the window of each."""

    requests: Sequence[EditRequest]
    windows: Sequence[Window]
    pictures: torch.Tensor
    masks: torch.Tensor
    conditions: EditConditions
    noise: torch.Tensor


class Editor:
    """An editor of train_editor; implements edit_request.PictureEditor.

    Args:
        opened: network, tokenizer, scheduler and shape.
        drawing: steps, guidance, batch.
        revision: of the folder.
        device: torch device.
    """

    def __init__(self, opened: OpenEditor, drawing: DrawingConfig, *, revision: str, device: str = "cpu") -> None:
        shape = opened.shape
        self.shape, self.revision = shape, revision
        self._network, self._scheduler = opened.network.to(device).eval(), opened.scheduler
        self._prompts, self._device, self._batch = PromptReader(opened.tokenizer), device, drawing.batch_size
        self._empty_1T = torch.from_numpy(self._prompts.empty())[None].to(device)
        codec = opened.network.codec
        self._grid = (codec.channels, shape.height // codec.pixels, shape.width // codec.pixels)
        self._drawing = Denoising(
            steps=shape.steps if drawing.steps is None else drawing.steps,
            guidance=shape.guidance if drawing.guidance is None else drawing.guidance,
        )
        self.sampling = fingerprint({"steps": self._drawing.steps, "guidance": self._drawing.guidance, "mode": shape.mode})

    @classmethod
    def open(cls, folder: str | Path, drawing: DrawingConfig | None = None, *, device: str = "cpu") -> Editor:
        """The editor in a folder that train_editor wrote.

        Raises:
            DataError: it is not there, or not whole.
        """
        return cls(open_editor(folder), drawing or DrawingConfig(), revision=model_revision(str(folder)), device=device)

    def edit(self, requests: Sequence[EditRequest]) -> list[np.ndarray]:
        """One uint8 [H, W, 3] for each request; outside its mask the source's pixels, but in mode generate, which draws a new picture."""
        batches = [requests[start : start + self._batch] for start in range(0, len(requests), self._batch)]
        if torch.device(self._device).type != "cpu":
            return self._overlapped(batches)
        # Threads that draw would sleep at each of their many meetings while another thread of this process has OpenMP threads of its own.
        return [picture for each in map(self._prepared, batches) for picture in self._finished(each, self._drawn(each))]

    def _overlapped(self, batches: Sequence[Sequence[EditRequest]]) -> list[np.ndarray]:
        """As `edit`; cuts out the next batch, and pastes the one before, while one is drawn."""
        with ThreadPoolExecutor(1, thread_name_prefix="edit") as pool:
            ahead: deque[Future[_CutOut]] = deque(pool.submit(self._prepared, batch) for batch in batches[:1])
            finished: list[Future[list[np.ndarray]]] = []
            for number in range(len(batches)):
                ahead.extend(pool.submit(self._prepared, following) for following in batches[number + 1 : number + 2])
                batch = ahead.popleft().result()
                finished.append(pool.submit(self._finished, batch, self._drawn(batch)))
            return [picture for each in finished for picture in each.result()]

    def _prepared(self, requests: Sequence[EditRequest]) -> _CutOut:
        """A batch's tensors, on the CPU."""
        shape, size = self.shape, (self.shape.height, self.shape.width)
        windows = [window_round(each.mask, size=size, padding=shape.padding) for each in requests]
        pairs = list(zip(requests, windows, strict=True))
        pictures = unit_pixels(np.stack([cut_out(each.picture, window, size=size) for each, window in pairs]))
        masks = np.stack([cut_mask(each.mask, window, size=size, grow=shape.grow) for each, window in pairs])
        prompts = self._prompts.together([(each.prompt, [(ref.start, ref.end) for ref in each.references]) for each in requests])
        conditions = conditions_of(prompts, [crops_of(each.references, size=shape.crop) for each in requests], size=shape.crop)
        noise = noise_of([each.seed for each in requests], self._grid)
        return _CutOut(requests, windows, pictures, torch.from_numpy(masks)[:, None].float(), conditions, noise)

    @torch.inference_mode()
    def _drawn(self, batch: _CutOut) -> np.ndarray:
        """The batch's windows as they are drawn, uint8 [N, h, w, 3]."""
        drawn = draw(
            self._network,
            self._scheduler,
            pictures=batch.pictures.to(self._device),
            masks=batch.masks.to(self._device),
            sequence_NTD=self._network.condition(batch.conditions.to(self._device)),
            empty_1TD=self._network.read_prompt(self._empty_1T),
            noise=batch.noise.to(self._device),
            drawing=self._drawing,
        )
        return grey_levels(drawn)

    def _finished(self, batch: _CutOut, drawn: np.ndarray) -> list[np.ndarray]:
        return [self._pasted(each, new, window) for each, new, window in zip(batch.requests, drawn, batch.windows, strict=True)]

    def _pasted(self, request: EditRequest, drawn: np.ndarray, window: Window) -> np.ndarray:
        if self.shape.mode == "generate":
            return resized(drawn, request.picture.shape[:2])
        return put_back(request.picture, drawn, window, request.mask)
