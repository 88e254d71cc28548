"""Edits of synthetic people whose right answer is known, and what is drawn for them: by an editor, and by what it is compared with.

A case changes one attribute: the reference is cut out of another person whose thing is of the same kind and looks but for that attribute.
The right answer is the same shot, drawn anew with that attribute. Knows pictures and captions; not who judges them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reid_ray.attributes.lexicon import token_places
from reid_ray.attributes.parser import nouns_described
from reid_ray.attributes.substitution import CannotSubstituteError, Substituted, substitute
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.bit_masks import box_of
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.model.editor.edit_request import EditRequest

HEIGHT, WIDTH = 64, 32
# Attribute that is changed -> its slot.
TASKS = {"upper_color": "upper", "lower_color": "lower", "shoes_color": "shoes", "upper_pattern": "upper"}
_LEAST_PIXELS = 12  # of a thing that can be seen, and of one that can be shown


def people_of(identities: int, seed: int, *, images: int = 1) -> SyntheticPeople:
    """So many synthetic people, at the size of the benchmark."""
    return SyntheticPeople(SyntheticConfig(identities=identities, images_per_identity=images, height=HEIGHT, width=WIDTH, seed=seed))


@dataclass(frozen=True)
class EditCase:
    """One edit: picture `index`, whose `attribute` becomes `value` as it is on the reference.

    source, answer: uint8 [H, W, 3]; `answer` is the counterfactual drawing.
    mask: bool [H, W], where the slot shows.
    crop: uint8 [h, w, 4], the reference.
    old: a caption of the picture.
    prompt: the same with nothing of the slot's looks; `noun` are its noun's characters there.
    caption: the same with the new looks.
    """

    index: int
    attribute: str
    value: str
    source: np.ndarray
    answer: np.ndarray
    mask: np.ndarray
    crop: np.ndarray
    old: str
    prompt: str
    noun: tuple[int, int]
    caption: str

    @property
    def slot(self) -> str:
        """What is changed."""
        return TASKS[self.attribute]


class ReferenceBank:
    """Things that people of their own wear, by what they are: (slot, values of its attributes) -> RGBA crops."""

    def __init__(self, people: SyntheticPeople) -> None:
        pictures, masks_NSHW, truth = people.pictures(), people.masks(), people.attributes()
        self._crops: dict[tuple[str, tuple[str, ...]], list[np.ndarray]] = {}
        for picture, masks_SHW, attributes in zip(pictures, masks_NSHW, truth, strict=True):
            for slot, mask in zip(SLOTS, masks_SHW, strict=True):
                if slot in TASKS.values() and mask.sum() >= _LEAST_PIXELS:
                    self._crops.setdefault((slot, looks(attributes, slot)), []).append(cut_out(picture, mask))

    def values(self, attributes: dict[str, str], attribute: str) -> list[str]:
        """Values of an attribute, other than a person's own, that there are references of whose thing is like theirs otherwise."""
        slot, place = TASKS[attribute], SLOTS[TASKS[attribute]].index(attribute)
        own = looks(attributes, slot)
        found = {key[place] for of, key in self._crops if of == slot and key[:place] + key[place + 1 :] == own[:place] + own[place + 1 :]}
        return sorted(found - {own[place]})

    def crop(self, attributes: dict[str, str], slot: str, rng: np.random.Generator) -> np.ndarray:
        """A reference of these looks."""
        crops = self._crops[slot, looks(attributes, slot)]
        return crops[int(rng.integers(len(crops)))]


def looks(attributes: dict[str, str], slot: str) -> tuple[str, ...]:
    """A slot's values."""
    return tuple(attributes[name] for name in SLOTS[slot])


def cut_out(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The thing under a mask, in the mask's box: uint8 [h, w, 4], alpha 255 where it is."""
    box = box_of(mask)
    assert box is not None
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    inside = mask[rows, columns]
    return np.dstack([np.where(inside[..., None], picture[rows, columns], 0), inside * 255]).astype(np.uint8)


def cases_of(people: SyntheticPeople, bank: ReferenceBank, attribute: str, *, seed: int) -> Iterator[EditCase]:
    """A case for each picture on which the thing shows, whose caption names it, and of which there is a reference.

    All pictures of a person get the same value and reference.
    """
    slot, persons = TASKS[attribute], people.shots().person_N
    truth, captions, masks_NHW = people.attributes(), people.captions(), people.masks()[:, list(SLOTS).index(slot)]
    wanted: list[tuple[int, str, Reworded]] = []
    for index in range(people.num_images):
        values = bank.values(truth[index], attribute)
        if values and masks_NHW[index].sum() >= _LEAST_PIXELS:
            value = values[int(_draws(seed, attribute, persons[index]).integers(len(values)))]
            words = reworded(captions[index], slot, {**truth[index], attribute: value})
            if words is not None:
                wanted.append((index, value, words))
    drawn = people.counterfactuals([index for index, *_ in wanted], [{attribute: value} for _, value, _ in wanted])
    for (index, value, words), answer in zip(wanted, drawn, strict=True):
        crop = bank.crop(answer.new, slot, _draws(seed, attribute, persons[index]))
        yield EditCase(
            *(index, attribute, value, answer.before, answer.after, masks_NHW[index], crop),
            old=words.old,
            prompt=words.bare.text,
            noun=words.bare.nouns[0],
            caption=words.new,
        )


def _draws(seed: int, attribute: str, person: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(TASKS).index(attribute), int(person)])


class Reworded(NamedTuple):
    """A caption, the same without a slot's looks, and with new ones."""

    old: str
    bare: Substituted
    new: str


def reworded(captions: Sequence[str], slot: str, attributes: dict[str, str]) -> Reworded | None:
    """The first of the captions in which a rule can say `attributes` of the slot; None: there is none."""
    looks_now = {facet: attributes[f"{slot}_{facet}"] for facet in ("color", "pattern") if f"{slot}_{facet}" in attributes}
    for text in captions:
        tokens = token_places(text)
        named = [each for each in nouns_described([token.word for token in tokens]) if each.noun.slot == slot]
        if len(named) != 1:
            continue
        start = tokens[named[0].at].start
        try:
            return Reworded(text, substitute(text, {start: {}}), substitute(text, {start: looks_now}).text)
        except CannotSubstituteError:
            continue
    return None


class ColourFill:
    """The rival that needs no model: the mask filled with the median colour of the reference. Implements edit_request.PictureEditor."""

    revision = sampling = "colour-fill"

    def edit(self, requests: Sequence[EditRequest]) -> list[np.ndarray]:
        """One uint8 [H, W, 3] for each request, of one reference each."""
        return [_filled(request.picture, request.mask, request.references[0].crop) for request in requests]


def _filled(picture: np.ndarray, mask: np.ndarray, crop: np.ndarray) -> np.ndarray:
    filled = picture.copy()
    filled[mask] = np.median(crop[crop[..., 3] > 0][:, :3], axis=0).astype(np.uint8)
    return filled
