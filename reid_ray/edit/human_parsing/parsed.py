"""Human parsing: pictures -> a mask for each slot, by a segmentation model of transformers, redrawn by a promptable one where asked.

Knows models and the classes that they were taught; not tables. Which class means which slot is read from the model's own class names:
those of ATR (Liang et al., 2015) and LIP (Gong et al., 2017), on which published human parsers are trained, and the slots' own. A dress
is neither an upper nor a lower garment, so it is a slot of its own, `full`, as in the lexicon of captions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from reid_ray.data.bit_masks import box_of
from reid_ray.edit.human_parsing.config import HumanParserConfig, MaskRefinerConfig
from reid_ray.errors import ConfigError
from reid_ray.model.hub_models import fetch_model
from reid_ray.model.model_files import model_revision, resolve_model

SLOT_OF_CLASS = {
    "hair": "hair", "hat": "hat", "bag": "bag", "dress": "full", "jumpsuits": "full", "full": "full",
    "upper clothes": "upper", "coat": "upper", "upper": "upper", "pants": "lower", "skirt": "lower", "lower": "lower",
    "left shoe": "shoes", "right shoe": "shoes", "shoes": "shoes",
}  # fmt: skip


def slots_of_classes(names: Mapping[int, str], chosen: Mapping[str, str | None] | None, *, model: str) -> dict[int, str]:
    """Number of a class -> its slot, of those that have one.

    Args:
        names: the model's classes.
        chosen: a configuration's class -> slot; None: SLOT_OF_CLASS.
        model: its name, for messages.

    Raises:
        ConfigError: a class is named that the model lacks, or none of its classes means a slot.
    """
    plain = {number: re.sub(r"[\W_]+", " ", name).strip().lower() for number, name in names.items()}
    table = SLOT_OF_CLASS if chosen is None else {re.sub(r"[\W_]+", " ", name).strip().lower(): slot for name, slot in chosen.items()}
    if chosen is not None and (unknown := sorted(set(table) - set(plain.values()))):
        raise ConfigError(f"parser.slots: {model} has no class {', '.join(unknown)}; it has {', '.join(names.values())}")
    found = {number: slot for number, name in plain.items() if (slot := table.get(name)) is not None}
    if not found:
        raise ConfigError(f"parser.slots: no class of {model} is known to mean a slot ({', '.join(names.values())}); say which do")
    return found


class HumanParser:
    """`HumanParser.open(config).masks(pictures)`: a mask for each slot that a picture shows."""

    def __init__(self, model: Any, processor: Any, slot_of: Mapping[int, str], *, name: str, revision: str) -> None:
        self._model, self._processor, self._slot_of = model, processor, slot_of
        self.name, self.revision = name, revision

    @classmethod
    def open(cls, config: HumanParserConfig, *, device: str = "cpu") -> HumanParser:
        """Load the model of a configuration.

        Raises:
            ConfigError: there is no such model, it is for another task, or its classes mean no slot.
            DataError: its weights cannot be had, or are not whole.
        """
        import torch
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

        from reid_ray.model.strict_loading import load_pretrained

        resolved = resolve_model(config.model, field="parser.model")
        revision = model_revision(resolved, revision=config.revision, field="parser.model")
        folder = fetch_model(resolved, revision=config.revision, field="parser.model")
        shape = AutoConfig.from_pretrained(folder)
        auto = next(
            (auto for auto in (AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation) if type(shape) in auto._model_mapping),
            None,
        )
        if auto is None:
            raise ConfigError(f"parser.model: {config.model} is a {shape.model_type}, no model for semantic segmentation; give one that is")
        slot_of = slots_of_classes(shape.id2label, config.slots, model=config.model)
        model = load_pretrained(auto, folder, dtype=torch.float32).to(device)
        processor = AutoImageProcessor.from_pretrained(folder)
        return cls(model, processor, slot_of, name=config.model, revision=revision)

    def masks(self, pictures: Sequence[Image.Image]) -> list[dict[str, np.ndarray]]:
        """Of each picture, slot -> bool [height, width]; a slot of which it has no pixel is not there."""
        import torch

        if not pictures:
            return []
        inputs = self._processor(images=list(pictures), return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            outputs = self._model(**inputs)
        sizes = [(picture.height, picture.width) for picture in pictures]
        maps = self._processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [self._by_slot(label_HW.cpu().numpy()) for label_HW in maps]

    def _by_slot(self, label_HW: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for number in np.unique(label_HW).tolist():
            slot = self._slot_of.get(number)
            if slot is not None:
                own_HW = label_HW == number
                found[slot] = found[slot] | own_HW if slot in found else own_HW
        return found


class MaskRefiner:
    """Redraws masks by a promptable model: each slot's box is the prompt, the model's best mask of it the answer.

    Both shoes lie in one box, and a box of a whole body holds much besides; what the parser did not see at all is not asked for.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, revision: str) -> None:
        self._model, self._processor = model, processor
        self.name, self.revision = name, revision

    @classmethod
    def open(cls, config: MaskRefinerConfig, *, device: str = "cpu") -> MaskRefiner:
        """Load the model of a configuration.

        Raises:
            ConfigError: there is no such model, or it is for another task.
            DataError: its weights cannot be had, or are not whole.
        """
        import torch
        from transformers import AutoConfig, AutoModelForMaskGeneration, AutoProcessor

        from reid_ray.model.strict_loading import load_pretrained

        resolved = resolve_model(config.model, field="refiner.model")
        revision = model_revision(resolved, revision=config.revision, field="refiner.model")
        folder = fetch_model(resolved, revision=config.revision, field="refiner.model")
        shape = AutoConfig.from_pretrained(folder)
        if type(shape) not in AutoModelForMaskGeneration._model_mapping:
            raise ConfigError(f"refiner.model: {config.model} is a {shape.model_type}, no model for mask generation; give one that is")
        model = load_pretrained(AutoModelForMaskGeneration, folder, dtype=torch.float32).to(device)
        return cls(model, AutoProcessor.from_pretrained(folder), name=config.model, revision=revision)

    def refined(self, picture: Image.Image, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The slots of `masks` (bool [height, width]), each drawn anew; one that comes out empty is left out."""
        import torch

        boxes = {slot: box for slot, mask_HW in masks.items() if (box := box_of(mask_HW)) is not None}
        if not boxes:
            return {}
        prompts = [[[float(side) for side in box] for box in boxes.values()]]
        inputs = self._processor(images=picture, input_boxes=prompts, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            outputs = self._model(
                **{name: inputs[name] for name in ("pixel_values", "input_boxes")},
                multimask_output=False,
            )
        sizes = {name: inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs}
        (drawn_S1HW,) = self._processor.post_process_masks(outputs.pred_masks.cpu(), **sizes)
        found = zip(boxes, drawn_S1HW[:, 0].numpy().astype(bool), strict=True)
        return {slot: mask_HW for slot, mask_HW in found if mask_HW.any()}
