"""Models for object detection of transformers (RT-DETR, D-FINE, DETR, YOLOS, ...) as person detectors: folder or hub name.

Knows models, their labels and processors; nothing of time or tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reid_ray.crop.config import DetectorConfig
from reid_ray.crop.spotted import Spotted, best_boxes
from reid_ray.errors import ConfigError
from reid_ray.model.hub_models import fetch_model
from reid_ray.model.model_files import model_revision, resolve_model


class ModelDetector:
    """`ModelDetector.open(config).people(pictures)`."""

    def __init__(self, model: Any, processor: Any, config: DetectorConfig, *, label: int, revision: str) -> None:
        self._model, self._processor, self._label = model, processor, label
        self._threshold, self._max_overlap = config.threshold, config.most_shared
        self.name = str(config.model)
        self.revision: str | None = revision

    @classmethod
    def open(cls, config: DetectorConfig, *, device: str = "cpu") -> ModelDetector:
        """Load the model of a configuration.

        Raises:
            ConfigError: there is no such model, it is for another task, or has no such label.
            DataError: its weights cannot be had, or are not whole.
        """
        import torch
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

        from reid_ray.model.strict_loading import load_pretrained

        resolved = resolve_model(str(config.model), field="detector.model")
        revision = model_revision(resolved, revision=config.revision, field="detector.model")
        folder = fetch_model(resolved, revision=revision, field="detector.model")
        shape = AutoConfig.from_pretrained(folder)
        if type(shape) not in AutoModelForObjectDetection._model_mapping:
            raise ConfigError(f"detector.model: {config.model} is a {shape.model_type}, no model for object detection; give one that is")
        label = label_of(shape.id2label, config.label, model=str(config.model))
        model = load_pretrained(AutoModelForObjectDetection, folder, dtype=torch.float32).to(device)
        processor = AutoImageProcessor.from_pretrained(folder)
        return cls(model, processor, config, label=label, revision=revision)

    def people(self, pictures: Sequence[np.ndarray]) -> list[Spotted]:
        """As PersonDetector: one pass of the model."""
        import torch

        if not pictures:
            return []
        inputs = self._processor(images=list(pictures), return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            outputs = self._model(**inputs)
        sizes = [picture.shape[:2] for picture in pictures]
        found = self._processor.post_process_object_detection(outputs, threshold=self._threshold, target_sizes=sizes)
        boxes = []
        for each, (height, width) in zip(found, sizes, strict=True):
            own_N = (each["labels"] == self._label).cpu().numpy()
            box_N4, score_N = each["boxes"].float().cpu().numpy()[own_N], each["scores"].float().cpu().numpy()[own_N]
            boxes.append(best_boxes(box_N4, score_N, (width, height), self._max_overlap))
        return boxes


def label_of(names: dict[int, str], wanted: str, *, model: str) -> int:
    """The number of the class `wanted`, letters' case aside.

    Raises:
        ConfigError: the model has none.
    """
    number = next((number for number, name in names.items() if name.strip().lower() == wanted.strip().lower()), None)
    if number is None:
        some = ", ".join(list(names.values())[:10])
        raise ConfigError(f"detector.label: {model} has no class {wanted!r}; it has {len(names)}, among them {some}")
    return number
