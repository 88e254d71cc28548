"""Synthetic ReID data set with ground-truth attributes: pedestrian crops and human-like captions of them, as tables.

The embedded data set and testbed. Knows tables and ranges; how people look is in body.py, cameras in scene.py, words in
sentences.py. Every row is a pure function of (configuration, index): any range can be made alone, so a set of any size streams.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
from PIL import Image

from reid_ray.config.base import fingerprint
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import encode_jpeg
from reid_ray.data.synthetic.counterfactual import Counterfactual, change_people, changed_slots
from reid_ray.data.synthetic.scene import OVERSAMPLE, Scene
from reid_ray.data.synthetic.sentences import SLOTS, Annotator
from reid_ray.data.synthetic.slot_maps import label_maps, segment_row, slot_shares
from reid_ray.data.synthetic.traits import Draws, Shots, draw_people, draw_shots, shared_identities, split_of
from reid_ray.data.synthetic.truth_score import Score, score_caption
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES, SEGMENTS, table_of
from reid_ray.storage import sha256_of

__all__ = ["DATASET", "Score", "SyntheticPeople", "score_caption"]

DATASET = "synthetic"
CAPTIONS_PER_IMAGE = 2
_PIXELS_PER_BATCH = 64 * 128 * 64  # drawing needs about 150 bytes a pixel


class SyntheticPeople:
    """The images and captions of one configuration, by index range. Image indices run from 0 to num_images."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self.num_images = config.identities * config.images_per_identity

    def pictures(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """uint8 [stop - start, height, width, 3], before JPEG."""
        batches = [self._scene.draw(shots) for shots in self._batches(start, stop)]
        return np.concatenate(batches) if batches else np.zeros((0, self.config.height, self.config.width, 3), np.uint8)

    def attributes(self, start: int = 0, stop: int | None = None) -> list[dict[str, str]]:
        """The truth of each image's person: {attribute: value}."""
        return draw_people(self.config.seed, self.shots(start, stop).person_N).attributes()

    def hidden(self, start: int = 0, stop: int | None = None) -> list[frozenset[str]]:
        """The slots (sentences.SLOTS) that each image does not show."""
        return [frozenset({"shoes"}) if hides else frozenset() for hides in self.shots(start, stop).hides_shoes_N]

    def label_maps(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """uint8 [stop - start, height, width], codes of slot_maps.LABELS: which slot each pixel of `pictures` shows, 0 for none."""
        maps = [label_maps(slot_shares(self._scene.parts(shots), OVERSAMPLE)) for shots in self._batches(start, stop)]
        return np.concatenate(maps) if maps else np.zeros((0, self.config.height, self.config.width), np.uint8)

    def masks(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Where each slot of sentences.SLOTS has any share in a pixel: bool [stop - start, slots, height, width]."""
        masks = [slot_shares(self._scene.parts(shots), OVERSAMPLE) > 0 for shots in self._batches(start, stop)]
        return np.concatenate(masks) if masks else np.zeros((0, len(SLOTS), self.config.height, self.config.width), bool)

    def counterfactual(self, index: int, changes: Mapping[str, str]) -> Counterfactual:
        """Image `index`, and the same shot had its person worn something else: the same pose, place, light and grain.

        Args:
            index: of the image.
            changes: {attribute: new value}, of the attributes of sentences.SLOTS.

        Raises:
            DataError: there is no such image, attribute or value, or a bag or hat and its colour do not go together.
        """
        return next(self.counterfactuals([index], [changes]))

    def counterfactuals(self, indices: Sequence[int], changes: Sequence[Mapping[str, str]]) -> Iterator[Counterfactual]:
        """As counterfactual, for each of many images, drawn in batches; an image may be given several times.

        Raises:
            DataError: as counterfactual, when its batch is drawn.
        """
        size = self._images_per_batch
        for first in range(0, len(indices), size):
            yield from self._redrawn(indices[first : first + size], changes[first : first + size])

    def _redrawn(self, indices: Sequence[int], changes: Sequence[Mapping[str, str]]) -> Iterator[Counterfactual]:
        self.shots(min(indices), max(indices) + 1)  # refuses what is not there
        shots = draw_shots(self.config, np.asarray(indices))
        people = draw_people(self.config.seed, shots.person_N)
        others = change_people(people, changes)
        drawn = [self._scene.draw_with_parts(shots, each) for each in (people, others)]
        (before, _), (after, _) = drawn
        shown = slot_shares(drawn[0][1], OVERSAMPLE) + slot_shares(drawn[1][1], OVERSAMPLE) > 0
        for place, (old, new) in enumerate(zip(people.attributes(), others.attributes(), strict=True)):
            mask = shown[place, changed_slots(changes[place])].any(axis=0)
            yield Counterfactual(before[place], after[place], mask, old, new)

    def segment_table(self, start: int = 0, stop: int | None = None, *, images: pa.Table | None = None) -> pa.Table:
        """Where each slot shows on images start to stop, in the SEGMENTS schema: a row for each image and slot, shown or not.

        Args:
            start: the first image.
            stop: the last one, exclusive; None: all.
            images: image_table of the same range, if it is at hand; else it is drawn, for the images' digests.
        """
        images = self.image_table(start, stop) if images is None else images
        rows, first = [], 0
        for shots in self._batches(start, stop):
            count = len(shots.index_N)
            truth = draw_people(self.config.seed, shots.person_N).attributes()
            masks_NSHW = slot_shares(self._scene.parts(shots), OVERSAMPLE) > 0
            for image, attributes, masks_SHW in zip(images.slice(first, count).to_pylist(), truth, masks_NSHW, strict=True):
                rows += [segment_row(image, slot, mask_HW, attributes) for slot, mask_HW in zip(SLOTS, masks_SHW, strict=True)]
            first += count
        return table_of(SEGMENTS, rows)

    def image_table(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Images start to stop in the IMAGES schema, JPEG of quality 90."""
        tables = []
        for shots in self._batches(start, stop):
            jpegs = [encode_jpeg(Image.fromarray(pixels), quality=90) for pixels in self._scene.draw(shots)]
            count = len(jpegs)
            truth = draw_people(self.config.seed, shots.person_N).attributes()
            columns = {
                "image_id": self._image_ids(shots),
                "image": jpegs,
                "path": [None] * count,
                "image_sha256": [sha256_of(data) for data in jpegs],
                "width": [self.config.width] * count,
                "height": [self.config.height] * count,
                **self._identity_columns(shots),
                "attributes": [json.dumps(attributes) for attributes in truth],
            }
            tables.append(pa.table(columns, schema=IMAGES))
        return pa.concat_tables(tables) if tables else IMAGES.empty_table()

    def caption_table(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """The two human-like captions of each of the images start to stop, in the CAPTIONS schema."""
        shots = self.shots(start, stop)
        image_ids, count = _twice(self._image_ids(shots)), len(shots.index_N) * CAPTIONS_PER_IMAGE
        texts = self.captions(start, stop)
        columns = {
            "caption_id": [f"{self._mark}-{image_id}-{n % CAPTIONS_PER_IMAGE}" for n, image_id in enumerate(image_ids)],
            "image_id": image_ids,
            "kind": ["human"] * count,
            "text": [text for pair in texts for text in pair],
            "status": ["ok"] * count,
            "tries": [1] * count,
            "seed": [self.config.seed] * count,
            **{name: _twice(values) for name, values in self._identity_columns(shots).items()},
        }
        nulls = {field.name: pa.nulls(count, field.type) for field in CAPTIONS if field.name not in columns}
        return pa.table({name: {**columns, **nulls}[name] for name in CAPTIONS.names}, schema=CAPTIONS)

    def captions(self, start: int = 0, stop: int | None = None) -> list[tuple[str, ...]]:
        """The texts of caption_table, one tuple per image."""
        shots = self.shots(start, stop)
        truth, hidden = draw_people(self.config.seed, shots.person_N).attributes(), self.hidden(start, stop)
        seeds_NC = [Draws(self.config.seed, shots.index_N).bits(f"annotator {n}") for n in range(CAPTIONS_PER_IMAGE)]
        return [
            tuple(Annotator(random.Random(int(seed_N[i]))).write(truth[i], hidden[i]) for seed_N in seeds_NC) for i in range(len(truth))
        ]

    def shots(self, start: int = 0, stop: int | None = None) -> Shots:
        """Who is on images start to stop, and how.

        Raises:
            DataError: the range does not lie within the set.
        """
        stop = self.num_images if stop is None else stop
        if not 0 <= start <= stop <= self.num_images:
            raise DataError(f"images {start} to {stop} were asked of synthetic people, but there are {self.num_images}; ask within them")
        return draw_shots(self.config, np.arange(start, stop))

    def shared_identities(self) -> int:
        """Identities that agree with an earlier one in every attribute."""
        return shared_identities(self.config)

    def _batches(self, start: int, stop: int | None) -> Iterator[Shots]:
        stop = self.num_images if stop is None else stop
        self.shots(start, start)
        for first in range(start, stop, self._images_per_batch):
            yield self.shots(first, min(first + self._images_per_batch, stop))

    @property
    def _images_per_batch(self) -> int:
        return max(1, _PIXELS_PER_BATCH // (self.config.height * self.config.width))

    def _image_ids(self, shots: Shots) -> list[str]:
        rows = zip(shots.person_N, shots.camera_N, shots.shot_N, strict=True)
        return [f"{DATASET}/{person:07d}_c{camera + 1}_{shot:02d}.jpg" for person, camera, shot in rows]

    def _identity_columns(self, shots: Shots) -> dict[str, list]:
        return {
            "dataset": [DATASET] * len(shots.index_N),
            "split": self._splits[shots.person_N].tolist(),
            "person_id": shots.person_N.tolist(),
            "camera_id": (shots.camera_N + 1).tolist(),
            "synthetic": [None] * len(shots.index_N),  # in this world these are the photographs
        }

    @cached_property
    def _scene(self) -> Scene:
        return _scene_of(self.config)

    @cached_property
    def _splits(self) -> np.ndarray:
        return _splits_of(self.config)

    @cached_property
    def _mark(self) -> str:
        return fingerprint(self.config)


# A process that makes a set in small ranges, each through its own SyntheticPeople, installs the cameras and shuffles the splits once.
@lru_cache(maxsize=2)
def _scene_of(config: SyntheticConfig) -> Scene:
    return Scene(config)


@lru_cache(maxsize=2)
def _splits_of(config: SyntheticConfig) -> np.ndarray:
    return split_of(config)


def _twice(values: list) -> list:
    return [value for value in values for _ in range(CAPTIONS_PER_IMAGE)]
