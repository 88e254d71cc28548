"""Instruction-tuning data of the tiny multimodal LLM: pairs of an instruction and its target caption.

Knows sentences; not weights or pixels. An instruction with a template in it (slots such as [clothing description]) is answered by the
template filled in; any other by one plain description. Captions are written from the truth, less what the picture hides.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence

from reid_ray.data.synthetic.traits import NONE

# Other ways to ask for a description, so that the model does not hang on one wording.
PLAIN_INSTRUCTIONS = (
    "Describe the appearance of the person.",
    "Describe the person in the image.",
    "Describe the appearance of the pedestrian.",
    "What does this person look like?",
    "What is the person in the picture wearing?",
    "Write a caption for this image.",
    "Write one sentence about the clothing, shoes, hairstyle, gender and belongings of the person.",
    "Give a detailed description of the pedestrian, but do not imagine anything that is not visible.",
    "Please describe this image.",
    "",
)
_SLOT = re.compile(r"\[([^\]]*)\]")
_TEMPLATE = re.compile(r"'([^']*\[[^\]]*\][^']*)'")


def answer(instruction: str, attributes: Mapping[str, str], hidden: Collection[str] = ()) -> str:
    """The caption that the model should give to `instruction` for a person.

    Args:
        instruction: the text beside the picture; a quoted template with [slots] in it is filled in.
        attributes: the truth, as in the attributes JSON of a synthetic image.
        hidden: slots of sentences.SLOTS (data/synthetic) that the picture does not show.
    """
    found = _TEMPLATE.search(instruction)
    return fill(found.group(1), attributes, hidden) if found else describe(attributes, hidden)


def describe(attributes: Mapping[str, str], hidden: Collection[str] = ()) -> str:
    """One fixed form: "The woman has long black hair and is wearing a red coat, blue jeans and white shoes. She ..."."""
    parts = _phrases(attributes, hidden)
    worn = [parts["upper"], parts["lower"], *([parts["footwear"]] if "shoes" not in hidden else [])]
    text = f"The {attributes['gender']} has {parts['hair']} and is wearing {', '.join(worn[:-1])} and {worn[-1]}."
    more = [f"is carrying {parts['belongings']}"] if attributes["bag"] != NONE else []
    more += [f"is wearing {parts['accessory']}"] if attributes["hat"] != NONE else []
    return f"{text} {'She' if attributes['gender'] == 'woman' else 'He'} {' and '.join(more)}." if more else text


def fill(template: str, attributes: Mapping[str, str], hidden: Collection[str] = ()) -> str:
    """`template` with each slot replaced; the slot's first word says what goes in."""
    parts = _phrases(attributes, hidden)
    filled = _SLOT.sub(lambda slot: parts[re.split(r"[ /]", slot.group(1))[0]], template)
    return re.sub(r"(^|\. )([a-z])", lambda start: start.group(1) + start.group(2).upper(), filled)


def training_pair(
    rng: random.Random, attributes: Mapping[str, str], hidden: Collection[str], instructions: Sequence[str]
) -> tuple[str, str]:
    """An (instruction, answer) pair: one of `instructions` three times in four, else one of PLAIN_INSTRUCTIONS."""
    pool = instructions if instructions and rng.random() < 0.75 else PLAIN_INSTRUCTIONS
    instruction = rng.choice(pool)
    return instruction, answer(instruction, attributes, hidden)


def _phrases(attributes: Mapping[str, str], hidden: Collection[str]) -> dict[str, str]:
    hair = (
        f"{attributes['hair_color']} hair in a bun"
        if attributes["hair"] == "bun"
        else f"{attributes['hair']} {attributes['hair_color']} hair"
    )
    pattern = "" if attributes["upper_pattern"] == "plain" else f"{attributes['upper_pattern']} "
    upper = f"a {attributes['upper_color']} {pattern}{attributes['upper']}"
    lower = f"{'a ' if attributes['lower'] == 'skirt' else ''}{attributes['lower_color']} {attributes['lower']}"
    return {
        "person": attributes["gender"],
        "hair": hair,
        "upper": upper,
        "lower": lower,
        "clothing": f"{upper} and {lower}",
        "footwear": "hidden shoes" if "shoes" in hidden else f"{attributes['shoes_color']} {attributes['shoes']}",
        "belongings": "no bag" if attributes["bag"] == NONE else f"a {attributes['bag_color']} {attributes['bag']}",
        "accessory": "no hat" if attributes["hat"] == NONE else f"a {attributes['hat_color']} {attributes['hat']}",
    }
