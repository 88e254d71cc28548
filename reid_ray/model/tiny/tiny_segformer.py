"""The tiny human parser that ships (builtin:tiny-parser): a SegformerForSemanticSegmentation trained on drawn people's label maps.

Knows shape, preprocessing and loop; not what becomes of a label map. It reads a crop at 128 x 64 and has a logit for every second pixel
(SegFormer's usual first stride is 4: a shoe would be one), so it is quick on a CPU. It has only ever seen drawn people.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image, encode_jpeg
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.slot_maps import LABELS
from reid_ray.model.model_files import resolve_model
from reid_ray.model.tiny.config import TinySegformerTrainingConfig
from reid_ray.progress import progress_bar

if TYPE_CHECKING:
    import torch
    from transformers import SegformerForSemanticSegmentation

HEIGHT, WIDTH = 128, 64  # what it reads, in pixels
_REPORT_EVERY = 100  # steps


def build_tiny_segformer(seed: int) -> SegformerForSemanticSegmentation:
    """A model with random weights and a class for each of slot_maps.LABELS."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(seed)
    shape = SegformerConfig(
        depths=[1, 1, 2, 1],
        hidden_sizes=[16, 32, 48, 64],
        num_attention_heads=[1, 2, 3, 4],
        patch_sizes=[3, 3, 3, 3],
        strides=[2, 2, 2, 2],
        sr_ratios=[8, 4, 2, 1],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=32,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: code for code, label in enumerate(LABELS)},
    )
    return SegformerForSemanticSegmentation(shape)


def train_tiny_segformer(folder: str | Path, config: TinySegformerTrainingConfig, *, seed: int) -> list[tuple[int, float]]:
    """Train a new model, or config.init, on label maps of drawn people and save it, with its preprocessing, in `folder`.

    Args:
        folder: where it goes.
        config: length, rate and people.
        seed: of weights and of how pictures are varied.

    Returns:
        (step, mean loss of the last 100 steps) every 100 steps: cross-entropy a pixel in nats.
    """
    import torch
    from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

    from reid_ray.model.strict_loading import load_pretrained

    torch.set_num_threads(config.threads)
    if config.init is None:
        model = build_tiny_segformer(seed)
    else:
        model = load_pretrained(SegformerForSemanticSegmentation, resolve_model(config.init, field="training.init"), dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.1)
    history: list[tuple[int, float]] = []
    recent: list[float] = []
    processor = SegformerImageProcessor(size={"height": HEIGHT, "width": WIDTH})
    mean, std = np.array(processor.image_mean, np.float32), np.array(processor.image_std, np.float32)
    with progress_bar("parse", config.steps, unit="step") as bar:
        for step, (picture_BHWC, label_BHW) in zip(range(1, config.steps + 1), _batches(config, seed), strict=False):
            pixels = torch.from_numpy(((picture_BHWC / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
            loss = _loss(model(pixel_values=pixels).logits, torch.from_numpy(label_BHW.astype(np.int64)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent.append(loss.item())
            if step % _REPORT_EVERY == 0 or step == config.steps:
                history.append((step, round(float(np.mean(recent)), 4)))
                bar.set_postfix_str(f"loss {history[-1][1]:.3f}")
                recent = []
            bar.update(1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return history


def _loss(logits_BLhw: torch.Tensor, label_BHW: torch.Tensor) -> torch.Tensor:
    import torch

    logits_BLHW = torch.nn.functional.interpolate(logits_BLhw, size=label_BHW.shape[1:], mode="bilinear", align_corners=False)
    return torch.nn.functional.cross_entropy(logits_BLHW, label_BHW)


def _batches(config: TinySegformerTrainingConfig, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless pictures (float32 [B, height, width, 3] in [0, 255]) and label maps (uint8 [B, height, width]): new people, streets, light.

    The first ones are of half the size; SegFormer has no positions that would be tied to one.
    """
    rng = np.random.default_rng(seed)
    step = 0
    for number in range(1 << 30):
        scale = 2 if step < config.half_size_share * config.steps else 1
        size = {"height": HEIGHT // scale, "width": WIDTH // scale}
        people = SyntheticPeople(
            SyntheticConfig(identities=config.people_per_set, images_per_identity=1, seed=config.first_seed + number, **size)
        )
        labels = people.label_maps()
        pictures = [np.asarray(decode_image(encode_jpeg(Image.fromarray(pixels)))) for pixels in people.pictures()]
        for first in range(0, len(pictures), config.batch_size):
            picture_BHWC = np.stack(pictures[first : first + config.batch_size]).astype(np.float32)
            yield _varied(picture_BHWC, labels[first : first + config.batch_size], rng)
            step += 1


def _varied(picture_BHWC: np.ndarray, label_BHW: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Half of them mirrored, each in a light of its own."""
    count = len(picture_BHWC)
    mirrored = rng.random(count) < 0.5
    picture_BHWC[mirrored], label_BHW = picture_BHWC[mirrored, :, ::-1], label_BHW.copy()
    label_BHW[mirrored] = label_BHW[mirrored, :, ::-1]
    gain_B113 = rng.uniform(0.7, 1.3, (count, 1, 1, 1)) * rng.uniform(0.9, 1.1, (count, 1, 1, 3))
    return np.clip(picture_BHWC * gain_B113.astype(np.float32), 0, 255), label_BHW
