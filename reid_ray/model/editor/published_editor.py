"""Published inpainting pipelines behind the editor's interface: what diffusers chooses for a model, Flux Fill and Kontext, Qwen-Image-Edit.

They read the prompt alone, so it must say what is wanted; Kontext sees the first reference, too. They are made for photographs of a
megapixel with ordinary proportions, so a crop of a person is laid on a canvas of a size that the pipeline leaves as it is, and cut out of
what it draws; what the mask does not cover is the source's again. Knows pipelines and sizes; not training or fusion.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from reid_ray.config.base import fingerprint
from reid_ray.model.editor.config import DrawingConfig, PublishedConfig
from reid_ray.model.editor.edit_request import EditRequest
from reid_ray.model.editor.edit_window import resized
from reid_ray.model.model_files import local_folder, model_revision
from reid_ray.model.strict_loading import load_pipeline

# diffusers' class of each pipeline, None: AutoPipelineForInpainting; and the multiple that its sizes must be of.
_CLASSES = {
    "auto": ("AutoPipelineForInpainting", 16),
    "flux_fill": ("FluxFillPipeline", 16),
    "flux_kontext": ("FluxKontextInpaintPipeline", 16),
    "qwen_edit": ("QwenImageEditInpaintPipeline", 32),
}
_QWEN_AREA = 1024 * 1024
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class PipelineCanvas:
    """What a pipeline draws on: height x width, a picture takes `rows` x `columns` of it from (top, left), its edge repeated."""

    height: int
    width: int
    top: int
    left: int
    rows: int
    columns: int


def canvas_of(height: int, width: int, *, area: float, multiple: int) -> PipelineCanvas:
    """A canvas of about `area` pixels, sides multiples of `multiple`, on which a picture of this size keeps its proportions."""
    scale = math.sqrt(area / (height * width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    high, wide = -(-rows // multiple) * multiple, -(-columns // multiple) * multiple
    return PipelineCanvas(high, wide, (high - rows) // 2, (wide - columns) // 2, rows, columns)


def qwen_canvas(height: int, width: int) -> PipelineCanvas:
    """The canvas for Qwen's edit pipeline, which resizes whatever it is given to a megapixel by the proportions of what it is given.

    A 128 x 384 crop would become 576 x 1760, 2 % too wide. Of the sizes that it leaves as they are, that on which the picture is largest.
    """
    fixed = [(high, wide) for high in range(256, 4097, 32) for wide in range(256, 4097, 32) if _qwen_size(high, wide) == (high, wide)]
    high, wide = max(fixed, key=lambda size: (min(size[0] / height, size[1] / width), -size[0] * size[1]))
    scale = min(high / height, wide / width)
    rows, columns = round(height * scale), round(width * scale)
    return PipelineCanvas(high, wide, (high - rows) // 2, (wide - columns) // 2, rows, columns)


def _qwen_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) that QwenImageEditInpaintPipeline makes of a picture of this size."""
    ratio = width / height
    wide = math.sqrt(_QWEN_AREA * ratio)
    return round(wide / ratio / 32) * 32, round(wide / 32) * 32


class PublishedEditor:
    """A published pipeline; implements edit_request.PictureEditor.

    Args:
        pipeline: of diffusers.
        config: which it is, and sizes.
        drawing: steps and guidance; null leaves them to the pipeline.
        revision: of the model.
    """

    def __init__(self, pipeline: Any, config: PublishedConfig, drawing: DrawingConfig, *, revision: str) -> None:
        self._pipeline, self._config, self._drawing, self.revision = pipeline, config, drawing, revision
        self._takes = set(inspect.signature(pipeline.__call__).parameters)
        pipeline.set_progress_bar_config(disable=True)
        self.sampling = fingerprint({"config": config.model_dump(mode="json"), "drawing": drawing.model_dump(mode="json")})

    @classmethod
    def open(cls, config: PublishedConfig, drawing: DrawingConfig, *, device: str = "cpu") -> PublishedEditor:
        """The pipeline of a hub name or folder.

        Raises:
            DataError: there is no such model at hand, or it cannot be loaded.
        """
        folder = local_folder(config.model, field="editor.model", patterns=["*.json", "*.txt", "*.safetensors", "*.model"])
        made = getattr(importlib.import_module("diffusers"), _CLASSES[config.pipeline][0])
        pipeline = load_pipeline(made, folder, _DTYPES[config.precision]).to(device)
        return cls(pipeline, config, drawing, revision=model_revision(str(folder)))

    def edit(self, requests: Sequence[EditRequest]) -> list[np.ndarray]:
        """One uint8 [H, W, 3] for each request, one at a time: pipelines take no batch of pictures of many sizes."""
        return [self._edited(each) for each in requests]

    def canvas(self, height: int, width: int) -> PipelineCanvas:
        """What a picture of this size is drawn on."""
        if self._config.pipeline == "qwen_edit":
            return qwen_canvas(height, width)
        return canvas_of(height, width, area=self._config.megapixels * 1e6, multiple=_CLASSES[self._config.pipeline][1])

    @torch.inference_mode()
    def _edited(self, request: EditRequest) -> np.ndarray:
        height, width = request.mask.shape
        canvas = self.canvas(height, width)
        mask = np.zeros((canvas.height, canvas.width), np.uint8)
        shown = (slice(canvas.top, canvas.top + canvas.rows), slice(canvas.left, canvas.left + canvas.columns))
        grown = Image.fromarray(request.mask.astype(np.uint8) * 255).resize((canvas.columns, canvas.rows), Image.Resampling.NEAREST)
        mask[shown] = np.asarray(grown)
        arguments = {
            "prompt": request.prompt,
            "image": Image.fromarray(on_canvas(request.picture, canvas)),
            "mask_image": Image.fromarray(mask),
            "height": canvas.height,
            "width": canvas.width,
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            **self._options(request),
        }
        drawn = self._pipeline(**{name: value for name, value in arguments.items() if name in self._takes}).images[0]
        pixels = resized(np.asarray(drawn.convert("RGB")), (canvas.height, canvas.width))
        back = resized(np.ascontiguousarray(pixels[shown]), (height, width))
        return np.where(request.mask[..., None], back, request.picture)

    def _options(self, request: EditRequest) -> dict[str, Any]:
        """What is set only where it is asked for, or where a pipeline would do harm without."""
        given = {
            "num_inference_steps": self._drawing.steps,
            "guidance_scale": self._drawing.guidance,
            "strength": self._config.strength,
            "padding_mask_crop": self._config.padding_mask_crop,
        }
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if "_auto_resize" in self._takes:
            options["_auto_resize"] = False  # Kontext would take the nearest of its own proportions, which widens a body by 29 %
        if "max_area" in self._takes:
            size = self.canvas(*request.mask.shape)
            options["max_area"] = size.height * size.width
        if "image_reference" in self._takes and request.references:
            options["image_reference"] = Image.fromarray(request.references[0].crop).convert("RGB")
        return options


def on_canvas(picture: np.ndarray, canvas: PipelineCanvas) -> np.ndarray:
    """A picture, uint8 [H, W, 3], at its place on a canvas; its edge is repeated round it."""
    inner = resized(picture, (canvas.rows, canvas.columns))
    below, right = canvas.height - canvas.top - canvas.rows, canvas.width - canvas.left - canvas.columns
    return np.pad(inner, ((canvas.top, below), (canvas.left, right), (0, 0)), mode="edge")
