"""Samples of the editor's training drawn as they are needed: synthetic people by range, cut into windows, masks, prompts and references.

What EditFeed reads from tables this draws, by the same functions, so that a GPU never waits for a file; and a reference may be what another
person wears, of the same kind and looks. Knows pictures, captions and the editor's shape; not the network, losses or devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from benchmarks.diverse.edit_cases import cut_out
from reid_ray.attributes.mentions import things_named
from reid_ray.attributes.substitution import CannotSubstituteError, substitute
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.traits import ATTRIBUTES
from reid_ray.model.editor.edit_inputs import PromptReader
from reid_ray.model.editor.edit_request import MOST_REFERENCES
from reid_ray.model.editor.edit_window import cut_mask, window_round
from reid_ray.model.editor.edit_window import cut_out as cut_window
from reid_ray.model.editor.editor_folder import EditorShape
from reid_ray.model.editor.reference_crop import reference_pixels
from reid_ray.train.editor.edit_samples import UNKNOWN

# Slots that are redrawn, and how often each; hair that is long falls on what is worn.
WEIGHTS = {"hair": 1.0, "upper": 3.0, "lower": 2.0, "shoes": 2.0}
NAMES = tuple(name for slot in WEIGHTS for name in SLOTS[slot])
VALUES = {name: len(ATTRIBUTES[name]) for name in NAMES}
SHOTS = 2  # of a person: a reference may be cut out of the other
_LEAST_PIXELS = 12  # of a thing, at 64 x 32
_SEVERAL, _PER_IMAGE = 0.15, 3
_NONE = -1


@dataclass(frozen=True)
class DrawnSamples:
    """N samples and the M things that they may take as references, numbered from 0 within one of these.

    picture: uint8 [N, H, W, 3], the window. mask: bool [N, H, W], what is hidden. segment: bool [N, K, H, W], each thing's own.
    token: int16 [N, T]. position: uint8 [N, K], each noun's. thing: int32 [N, K], the redrawn things, -1 for none.
    crop: uint8 [M, s, s, 3]. value: int16 [M, A], of NAMES, UNKNOWN for those of other slots. other: int32 [M], the same thing on its
    person's other picture, itself where it is not seen there. look: int64 [M], alike for things of one slot and of the same values;
    surface: the same, whatever kind of thing it is.
    """

    picture: np.ndarray
    mask: np.ndarray
    segment: np.ndarray
    token: np.ndarray
    position: np.ndarray
    thing: np.ndarray
    crop: np.ndarray
    value: np.ndarray
    other: np.ndarray
    look: np.ndarray
    surface: np.ndarray


def people_of(seed: int, *, height: int, identities: int = 1_000_000, cameras: int = 1000) -> SyntheticPeople:
    """People who can be drawn by range, by far more cameras than a data set has: an editor shall know light, not four cameras."""
    config = SyntheticConfig(identities=identities, images_per_identity=SHOTS, cameras=cameras, height=height, width=height // 2, seed=seed)
    return SyntheticPeople(config)


def draw_samples(people: SyntheticPeople, start: int, stop: int, *, shape: EditorShape, tokenizer: Any, seed: int) -> DrawnSamples:
    """The samples of images start to stop; both are multiples of SHOTS."""
    rng = np.random.default_rng([seed, start])
    pictures, masks, truth = people.pictures(start, stop), people.masks(start, stop), people.attributes(start, stop)
    captions, prompts = people.captions(start, stop), PromptReader(tokenizer)
    least = _LEAST_PIXELS * people.config.height // 64
    things = _Things(shape.crop)
    rows: list[dict[str, np.ndarray]] = []
    for image, (picture, masks_SHW, attributes) in enumerate(zip(pictures, masks, truth, strict=True)):
        seen = {slot: masks_SHW[list(SLOTS).index(slot)] for slot in WEIGHTS}
        seen = {slot: mask for slot, mask in seen.items() if mask.sum() >= least}
        number = {slot: things.add(image // SHOTS, slot, picture, mask, attributes) for slot, mask in seen.items()}
        for _ in range(_PER_IMAGE):
            text = captions[image][int(rng.integers(len(captions[image])))]
            row = _sample(picture, seen, text, number, prompts, shape=shape, rng=rng)
            if row is not None:
                rows.append(row)
    sample_columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return DrawnSamples(**sample_columns, **things.columns())


def _sample(
    picture: np.ndarray,
    seen: dict[str, np.ndarray],
    text: str,
    number: dict[str, int],
    prompts: PromptReader,
    *,
    shape: EditorShape,
    rng: np.random.Generator,
) -> dict[str, np.ndarray] | None:
    """One sample of a picture and caption; None where no rule can say the caption without the looks of what is redrawn."""
    nouns = things_named(text).nouns
    slots = _chosen([slot for slot in seen if slot in nouns], rng)
    if not slots:
        return None
    slots.sort(key=lambda slot: nouns[slot].start)
    try:
        bare = substitute(text, {nouns[slot].start: {} for slot in slots})
    except CannotSubstituteError:
        return None
    prompt = prompts(bare.text, bare.nouns)
    if min(prompt.position_K) < 0:
        return None
    size = (shape.height, shape.width)
    mask = np.logical_or.reduce([seen[slot] for slot in slots])
    padding = None if shape.padding is None else shape.padding * float(rng.uniform(0.6, 1.8))  # as EditFeed
    window = window_round(mask, size=size, padding=padding)
    segment = np.zeros((MOST_REFERENCES, *size), bool)
    position, thing = np.zeros(MOST_REFERENCES, np.uint8), np.full(MOST_REFERENCES, _NONE, np.int32)
    for place, slot in enumerate(slots):
        segment[place] = cut_mask(seen[slot], window, size=size)
        position[place], thing[place] = prompt.position_K[place], number[slot]
    return {
        "picture": cut_window(picture, window, size=size),
        "mask": cut_mask(mask, window, size=size, grow=shape.grow),
        "segment": segment,
        "token": prompt.token_T.astype(np.int16),
        "position": position,
        "thing": thing,
    }


def _chosen(slots: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One of the slots, seldom two or three."""
    if not slots:
        return []
    count = min(int(rng.integers(2, MOST_REFERENCES + 1)) if rng.random() < _SEVERAL else 1, len(slots))
    weight = np.array([WEIGHTS[slot] for slot in slots])
    return [slots[place] for place in rng.choice(len(slots), count, replace=False, p=weight / weight.sum())]


class _Things:
    """The things that are collected of a range."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._crop: list[np.ndarray] = []
        self._value: list[np.ndarray] = []
        self._other: list[int] = []
        self._look: list[int] = []
        self._surface: list[int] = []
        self._of: dict[tuple[int, str], int] = {}

    def add(self, person: int, slot: str, picture: np.ndarray, mask: np.ndarray, attributes: dict[str, str]) -> int:
        """Its number."""
        row = len(self._crop)
        self._crop.append(reference_pixels(cut_out(picture, mask), size=self._size))
        value, surface = np.full(len(NAMES), UNKNOWN, np.int16), list(WEIGHTS).index(slot)
        for name in SLOTS[slot]:
            value[NAMES.index(name)] = ATTRIBUTES[name].index(attributes[name])
            surface = surface * 100 + (0 if name == slot else int(value[NAMES.index(name)]))  # an attribute of the slot's name is its kind
        self._value.append(value)
        self._look.append(surface * 100 + int(value[NAMES.index(slot)]))
        self._surface.append(surface)
        earlier = self._of.get((person, slot))
        self._other.append(row if earlier is None else earlier)
        if earlier is not None:
            self._other[earlier] = row
        self._of[person, slot] = row
        return row

    def columns(self) -> dict[str, np.ndarray]:
        """Their columns of DrawnSamples."""
        return {
            "crop": np.stack(self._crop),
            "value": np.stack(self._value),
            "other": np.array(self._other, np.int32),
            "look": np.array(self._look, np.int64),
            "surface": np.array(self._surface, np.int64),
        }


def texts_of(people: SyntheticPeople, count: int) -> Iterator[str]:
    """Captions of the first images, from which a tokenizer learns."""
    for pair in people.captions(0, count):
        yield from pair


SAMPLE_COLUMNS = tuple(each.name for each in fields(DrawnSamples))[:6]
THING_COLUMNS = tuple(each.name for each in fields(DrawnSamples))[6:]
