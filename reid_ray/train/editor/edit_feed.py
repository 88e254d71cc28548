"""Data loader of editors: each step's windows, masks, prompts, references, noise and noise levels, ahead of the step.

All that is drawn is a function of (seed, step, place in the global batch), so any number of workers, and a run that was killed, draw the
same. Knows the prepared files; not the model's weights or losses.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reid_ray.attributes.substitution import CannotSubstituteError, substitute
from reid_ray.data.images import decode_image
from reid_ray.model.editor.edit_inputs import PromptReader, ReadPrompt, conditions_of, unit_pixels
from reid_ray.model.editor.edit_request import MOST_REFERENCES
from reid_ray.model.editor.edit_window import cut_mask, cut_out, window_round
from reid_ray.model.editor.editor_folder import OpenEditor
from reid_ray.model.editor.reference_crop import reference_pixels
from reid_ray.train.editor.config import EditorBatches, EditorObjective
from reid_ray.train.editor.edit_samples import MASKS, THINGS, UNKNOWN, VALUES
from reid_ray.train.feed.batches import BatchPlan, ShuffledOrder
from reid_ray.train.feed.loader import ahead_by_threads
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import PICTURES, SAMPLES, RowFile
from reid_ray.train.parts import TrainBatch

_DRAWS = 6  # the stream of random numbers; those of feed/batches.py are 0 to 5
_CROPS = 20_000  # references and prompts kept as the model takes them


@dataclass(frozen=True)
class EditSample:
    """One sample as it is drawn: arrays of one window.

    picture uint8 [H, W, 3]; mask bool [H, W]; segments bool [K, H, W]; crops K of uint8 [s, s, 3]; values int64 [K, A].
    """

    picture: np.ndarray
    mask: np.ndarray
    segments: np.ndarray
    prompt: ReadPrompt
    crops: list[np.ndarray]
    values: np.ndarray
    timestep: int
    noise: np.ndarray
    inside: bool
    dropped: bool


class EditFeed:
    """The data loader of one worker; implements train.parts.BatchFeed.

    Args:
        folder: what prepare_samples wrote.
        batches: size, seed and shares.
        objective: inside_share counts here.
        opened: the editor that training starts from: shape, tokenizer and schedule.
        rank: this worker.
        world: how many workers share each batch.
    """

    elsewhere: Callable[[], Path] | None = None  # everything is read here

    def __init__(
        self, folder: Path, batches: EditorBatches, objective: EditorObjective, *, opened: OpenEditor, rank: int, world: int
    ) -> None:
        self._samples, self._masks, self._things = (RowFile(folder / name) for name in (SAMPLES, MASKS, THINGS))
        self._pictures = PictureStore(folder / PICTURES)
        thing_R = self._things.column("thing")
        self._row_R = np.argsort(thing_R, kind="stable")  # references of one thing side by side
        self._thing_R, self._picture_R = thing_R[self._row_R], self._things.column("picture")[self._row_R]
        self.values: dict[str, list[str]] = json.loads((folder / VALUES).read_text(encoding="utf-8"))
        self._batches, self._inside_share, self._rank, self._world = batches, objective.inside_share, rank, world
        self._shape, self._prompts = opened.shape, PromptReader(opened.tokenizer)
        codec, size = opened.network.codec, (opened.shape.height, opened.shape.width)
        self._grid = (codec.channels, size[0] // codec.pixels, size[1] // codec.pixels)
        self._levels = int(opened.scheduler.config.num_train_timesteps)
        rows = len(self._samples)
        order = ShuffledOrder(rows, size=batches.size, seed=batches.seed)
        self.plan = BatchPlan(np.zeros(rows, np.int64), order, rewrite_share=0.0, seed=batches.seed)
        self._reference = lru_cache(_CROPS)(self._thing_pixels)
        self._prompt = lru_cache(_CROPS)(self._bare_prompt)

    def batches(self, start: int, stop: int) -> Iterator[TrainBatch]:
        """The batches of steps start .. stop - 1, prefetched."""
        return ahead_by_threads(self.make, start, stop, threads=self._batches.threads)

    def names_of(self, rows: np.ndarray) -> list[str]:
        """Which image and caption samples are, for messages."""
        found = self._samples.take(rows)
        pairs = zip(found["image_id"].to_pylist(), found["caption_id"].to_pylist(), strict=True)
        return [f"image {image} with caption {caption}" for image, caption in pairs]

    def make(self, step: int) -> TrainBatch:
        """The worker's share of a step's batch."""
        shard = self.plan.shard(step, rank=self._rank, world=self._world)
        rows = self._samples.take(shard.sample_B).to_pylist()
        samples = [self.draw(row, step, int(place)) for row, place in zip(rows, shard.place_B, strict=True)]
        number = torch.from_numpy(shard.sample_B)
        return TrainBatch(self._tensors(samples), torch.zeros_like(number), number)

    def draw(self, row: dict[str, Any], step: int, place: int) -> EditSample:
        """The sample of a row at a place of a step's batch."""
        rng, shape, options = np.random.default_rng([self._batches.seed, _DRAWS, step, place]), self._shape, self._batches
        size = (shape.height, shape.width)
        segments = _chosen(row["segments"], rng, options.several_share)
        picture = np.asarray(decode_image(self._pictures[row["picture"]]))
        masks = [_mask(each) for each in self._masks.take(np.array([each["mask"] for each in segments]))["mask"].to_pylist()]
        mask = np.logical_or.reduce(masks)
        padding = None if shape.padding is None else shape.padding * float(rng.uniform(0.6, 1.8))
        window = window_round(mask, size=size, padding=padding)
        found = [self._crop(each, picture, own, row["picture"], rng) for each, own in zip(segments, masks, strict=True)]
        turn = -1 if rng.random() < options.flip else 1
        laid = np.stack([cut_mask(each, window, size=size) for each in masks])
        return EditSample(
            picture=cut_out(picture, window, size=size)[:, ::turn],
            mask=cut_mask(mask, window, size=size, grow=shape.grow)[:, ::turn],
            segments=laid[:, :, ::turn],
            prompt=self._prompt(row["text"], *(tuple(each["start"] for each in some) for some in (row["segments"], segments))),
            crops=[crop[:, :: -1 if rng.random() < options.flip else 1] for crop, _ in found],
            values=np.array([values for _, values in found], np.int64).reshape(len(found), len(self.values)),
            timestep=min(int(self._levels * rng.random() ** options.noise_power), self._levels - 1),
            noise=rng.standard_normal(self._grid, dtype=np.float32),
            inside=bool(rng.random() < self._inside_share),
            dropped=bool(rng.random() < options.drop),
        )

    def _crop(
        self, segment: dict[str, Any], picture: np.ndarray, mask: np.ndarray, number: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sequence[int]]:
        """A segment's reference as the model takes it, and its values: cut out here, or of the same thing on another image."""
        wants_other, turn = rng.random() < self._batches.other_shot_share, rng.random()
        first, stop = np.searchsorted(self._thing_R, [segment["thing"], segment["thing"] + 1])
        others = self._row_R[first:stop][self._picture_R[first:stop] != number]
        if wants_other and len(others):
            return self._reference(int(others[int(turn * len(others))]))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        crop = np.dstack([picture[box], mask[box].astype(np.uint8) * 255])
        known = self._reference(segment["own"])[1] if segment["own"] >= 0 else [UNKNOWN] * len(self.values)
        return reference_pixels(crop, size=self._shape.crop), known

    def _bare_prompt(self, text: str, nouns: tuple[int, ...], chosen: tuple[int, ...]) -> ReadPrompt:
        """A caption without the looks of the nouns that begin at `chosen`; where no rule can say that, without those of all its nouns."""
        try:
            bare = substitute(text, {start: {} for start in chosen})
            return self._prompts(bare.text, bare.nouns)
        except CannotSubstituteError:  # of all together prepare_samples has seen that it can
            bare = substitute(text, {start: {} for start in nouns})
            return self._prompts(bare.text, [bare.nouns[nouns.index(start)] for start in chosen])

    def _thing_pixels(self, row: int) -> tuple[np.ndarray, Sequence[int]]:
        found = self._things.take(np.array([row])).to_pylist()[0]
        crop = np.asarray(Image.open(io.BytesIO(found["image"])).convert("RGBA"))
        return reference_pixels(crop, size=self._shape.crop), found["values"]

    def _tensors(self, samples: Sequence[EditSample]) -> dict[str, torch.Tensor]:
        """The inputs of EditorTraining."""
        given = conditions_of([each.prompt for each in samples], [each.crops for each in samples], size=self._shape.crop)
        height, width = samples[0].mask.shape
        segments = np.zeros((len(samples), MOST_REFERENCES, height, width), np.float32)
        values = np.full((len(samples), MOST_REFERENCES, len(self.values)), UNKNOWN, np.int64)
        for row, each in enumerate(samples):
            segments[row, : len(each.segments)] = each.segments
            values[row, : len(each.values)] = each.values
        return {
            "pictures": unit_pixels(np.stack([each.picture for each in samples])),
            "masks": torch.from_numpy(np.stack([each.mask for each in samples])[:, None].astype(np.float32)),
            "segments": torch.from_numpy(segments),
            "values": torch.from_numpy(values),
            "tokens": given.token_NT,
            "crops": given.crop_NK,
            "positions": given.position_NK,
            "given": given.given_NK,
            "timesteps": torch.tensor([each.timestep for each in samples]),
            "noise": torch.from_numpy(np.stack([each.noise for each in samples])),
            "inside": torch.tensor([each.inside for each in samples]),
            "dropped": torch.tensor([each.dropped for each in samples]),
            "empty": torch.from_numpy(self._prompts.empty())[None],
        }


def _chosen(segments: list[dict[str, Any]], rng: np.random.Generator, several_share: float) -> list[dict[str, Any]]:
    """Which of a caption's things are redrawn, in the caption's order: one, or with probability `several_share` two or three."""
    order, several, third = rng.permutation(len(segments)), rng.random() < several_share, rng.random() < 0.5
    count = min((MOST_REFERENCES if third else 2) if several else 1, len(segments))
    return [segments[place] for place in sorted(order[:count])]


def _mask(png: bytes) -> np.ndarray:
    """A mask of SEGMENTS, bool [H, W]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("1"))
