"""Captions of synthetic people in which a known share of the attribute words is wrong, and which words those are.

A static caption (one fixed form) and a dynamic one (a template filled in) per picture, written by rules from attributes of which some
were exchanged for another value. The truth per word comes from comparing with the same caption of the true attributes. Knows sentences;
not models or training.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.caption.prompts import Instruction, dynamic_instruction, static_instruction
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.traits import ATTRIBUTES, NONE
from reid_ray.model.tiny.tasks import answer
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import TableWriter

# What a caption does not put into words cannot be wrong in it, and does not become a wrong word either.
_UNSAID = (NONE, "plain")
_WORDS = {word for values in ATTRIBUTES.values() for value in values if value not in _UNSAID for word in value.split()} | {"he", "she"}


@dataclass(frozen=True)
class Judged:
    """A caption: for each of its words (split at white space) whether it names an attribute, and whether wrongly."""

    text: str
    attribute_W: np.ndarray
    wrong_W: np.ndarray


def exchanged(attributes: Mapping[str, str], share: float, rng: random.Random) -> dict[str, str]:
    """`attributes`, each with probability `share` exchanged for another value of the same attribute."""
    result = dict(attributes)
    for name, values in ATTRIBUTES.items():
        if attributes[name] not in _UNSAID and rng.random() < share:
            result[name] = rng.choice([value for value in values if value != attributes[name] and value not in _UNSAID])
    return result


def judged(text: str, true_text: str) -> Judged:
    """Which words of `text` name an attribute, and which of those the same caption of the truth does not have there."""
    words, true_words = text.split(), true_text.split()
    attribute_W = np.array([word.strip(".,:;").lower() in _WORDS for word in words])
    other_W = np.zeros(len(words), bool)
    for kind, _, _, start, stop in SequenceMatcher(None, true_words, words, autojunk=False).get_opcodes():
        if kind in ("replace", "insert"):
            other_W[start:stop] = True
    return Judged(text, attribute_W, attribute_W & other_W)


def write_people(folder: Path, people: SyntheticPeople, *, wrong_share: float, seed: int) -> list[Judged]:
    """Write `folder`/images and `folder`/captions; returns the captions in their order.

    Args:
        folder: must not hold them yet.
        people: who is on the pictures.
        wrong_share: probability that an attribute is exchanged, drawn for every caption anew.
        seed: of templates and exchanges.
    """
    images, rng, captions, rows = people.image_table(), random.Random(seed), [], []
    for image_id, attributes, hidden in zip(images["image_id"].to_pylist(), people.attributes(), people.hidden(), strict=True):
        for instruction in (static_instruction(), dynamic_instruction(f"{seed}/{image_id}")):
            said = exchanged(attributes, wrong_share, rng)
            caption = judged(answer(instruction.text, said, hidden), answer(instruction.text, attributes, hidden))
            captions.append(caption)
            rows.append(_row(image_id, instruction, caption.text))
    with TableWriter(folder / "images", IMAGES) as writer:
        writer.append(images)
    with TableWriter(folder / "captions", CAPTIONS) as writer:
        writer.append(table_of(CAPTIONS, rows))
    return captions


def accept_every_rewrite(captions: pa.Table) -> pa.Table:
    """A CAPTIONS table as if no filter had been: every rewrite that has a text is ok."""
    rows = captions.to_pylist()
    for row in rows:
        if row["kind"] == "rewrite" and row["text"]:
            row["status"] = "ok"
    return table_of(CAPTIONS, rows)


def _row(image_id: str, instruction: Instruction, text: str) -> dict[str, Any]:
    return {
        "caption_id": f"{image_id}-{instruction.kind}",
        "image_id": image_id,
        "kind": instruction.kind,
        "text": text,
        "status": "ok",
        "instruction_id": instruction.id,
        "split": "train",
    }
