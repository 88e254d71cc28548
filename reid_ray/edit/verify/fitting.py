"""Training of the attribute classifier: cross-entropy of every attribute that is known, on one device; and its error on other people.

Knows arrays and the network; not tables or jobs. The same seed gives the same weights on the same machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from reid_ray.edit.verify.attribute_reader import AttributeReader, Vocabulary, unit_tensor
from reid_ray.edit.verify.config import FitConfig, ReaderConfig
from reid_ray.progress import progress_bar

UNKNOWN = -1  # code of an attribute that nobody tells
_BATCH = 256


@dataclass(frozen=True)
class LabelledPictures:
    """N pictures, uint8 [N, H, W, 3], and attribute -> codes int64 [N], UNKNOWN where not told."""

    pictures: np.ndarray
    codes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: np.ndarray) -> LabelledPictures:
        """Those rows."""
        return LabelledPictures(self.pictures[rows], {name: code_N[rows] for name, code_N in self.codes.items()})


def fit_reader(data: LabelledPictures, vocabulary: Vocabulary, shape: ReaderConfig, fit: FitConfig, *, seed: int) -> AttributeReader:
    """A network fitted to `data`."""
    torch.set_num_threads(fit.threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    reader = AttributeReader(vocabulary, shape).to(fit.device).train()
    size = min(fit.batch_size, len(data))
    steps = fit.epochs * (len(data) // size)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, fit.lr, total_steps=steps)
    with progress_bar("train_verifier", steps, unit="step") as bar:
        for _ in range(fit.epochs):
            order = rng.permutation(len(data))
            for start in range(0, len(data) - size + 1, size):
                batch = data.take(order[start : start + size])
                pictures = moved(batch.pictures, rng, flip=fit.flip, shift=fit.shift)
                logits = reader(unit_tensor(pictures).to(fit.device))
                loss = sum(
                    functional.cross_entropy(logits[name], torch.from_numpy(code_N).to(fit.device), ignore_index=UNKNOWN)
                    for name, code_N in batch.codes.items()
                    if (code_N != UNKNOWN).any()
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
                bar.update(1)
    return reader.eval()


def moved(pictures: np.ndarray, rng: np.random.Generator, *, flip: float, shift: int) -> np.ndarray:
    """Each picture mirrored with probability `flip` and moved by up to `shift` pixels each way, edges repeated; uint8 [N, H, W, 3]."""
    height, width = pictures.shape[1:3]
    padded = np.pad(pictures, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    result = np.empty_like(pictures)
    for row, (down, right, mirrored) in enumerate(
        zip(*rng.integers(0, 2 * shift + 1, (2, len(pictures))).tolist(), (rng.random(len(pictures)) < flip).tolist(), strict=True)
    ):
        picture = padded[row, down : down + height, right : right + width]
        result[row] = picture[:, ::-1] if mirrored else picture
    return result


@torch.inference_mode()
def error_of(reader: AttributeReader, data: LabelledPictures, *, sure: float) -> dict[str, dict[str, Any]]:
    """What a network reads wrong of pictures that it has not learnt from.

    Returns:
        attribute -> {"pictures" whose value is told, "right": share read rightly, "sure": share read with at least the probability `sure`,
        "right_if_sure": share of those read rightly, "by_chance": share of the commonest value}.
    """
    device = next(reader.parameters()).device
    starts = range(0, len(data), _BATCH)
    parts = [reader(unit_tensor(data.pictures[start : start + _BATCH]).to(device)) for start in starts]
    found = {}
    for name, code_N in data.codes.items():
        probability_NV = torch.cat([part[name].softmax(-1) for part in parts]).cpu().numpy()
        told_N = code_N != UNKNOWN
        right_N, sure_N = (probability_NV.argmax(1) == code_N)[told_N], (probability_NV.max(1) >= sure)[told_N]
        found[name] = {
            "pictures": int(told_N.sum()),
            "right": _share(right_N),
            "sure": _share(sure_N),
            "right_if_sure": _share(right_N[sure_N]),
            "by_chance": round(float(np.bincount(code_N[told_N]).max() / told_N.sum()), 4) if told_N.any() else None,
        }
    return found


def _share(hit_N: np.ndarray) -> float | None:
    return round(float(hit_N.mean()), 4) if len(hit_N) else None
