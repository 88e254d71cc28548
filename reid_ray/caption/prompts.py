"""Prompts: the static and dynamic captioning instructions, their templates, the rewriting instruction.

Pure text and digests; imports no engine. The two captioning instructions and the slots are those of Tan et al. (CVPR 2024,
"Harnessing the Power of MLLMs for Transferable Text-to-Image Person ReID"); the templates are this project's own wording. The
rewriting instruction is that of LLM-DA (Li et al. 2024). A changed word changes the fingerprint that every caption row carries.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

STATIC = (
    "Write a description about the overall appearance of the person in the image, including the attributes: clothing, shoes, "
    "hairstyle, gender and belongings. If any attribute is not visible, you can ignore it. Do not imagine any contents that are "
    "not in the image."
)
DYNAMIC = (
    "Generate a description about the overall appearance of the person, including clothing, shoes, hairstyle, gender, and "
    "belongings, in a style similar to the template: '{template}'. If some requirements in the template are not visible, you can "
    "ignore them. Do not imagine any contents that are not in the image."
)
REWRITE = "Rewrite this image caption."

SLOTS = {
    "person": "[person/woman/man]",
    "clothing": "[clothing description]",
    "footwear": "[footwear description]",
    "hair": "[hair description]",
    "accessory": "[accessory description]",
    "belongings": "[belongings description]",
}
SLOT_PATTERN = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True)
class Instruction:
    """One prompt to the captioner. `id` is stored with the caption: "static", or "dynamic/" and the template's id."""

    id: str
    kind: Literal["static", "dynamic"]
    text: str


def static_instruction() -> Instruction:
    """The instruction that is the same for every image."""
    return Instruction("static", "static", STATIC)


def dynamic_instruction(key: str, *, templates: Mapping[str, str] | None = None, tried: Collection[str] = ()) -> Instruction:
    """The instruction with the template that `key` (an image's content digest and a seed, say) draws; the same key, the same one.

    Args:
        key: what the draw depends on.
        templates: id -> template; None takes TEMPLATES.
        tried: ids of instructions that are not to be drawn again, unless no other is left.
    """
    templates = TEMPLATES if templates is None else templates
    ids = sorted(template_id for template_id in templates if f"dynamic/{template_id}" not in tried) or sorted(templates)
    template_id = ids[int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % len(ids)]
    return Instruction(f"dynamic/{template_id}", "dynamic", DYNAMIC.format(template=templates[template_id]))


def instruction_of(instruction_id: str, templates: Mapping[str, str] | None = None) -> Instruction:
    """The instruction of an id that static_instruction or dynamic_instruction gave, of the same templates."""
    if instruction_id == static_instruction().id:
        return static_instruction()
    template = (TEMPLATES if templates is None else templates)[instruction_id.removeprefix("dynamic/")]
    return Instruction(instruction_id, "dynamic", DYNAMIC.format(template=template))


def rewrite_request(caption: str, *, instruction_first: bool = False) -> str:
    """What the rewriter is sent: the caption, then the instruction, as in LLM-DA; or the other way round."""
    return f"{REWRITE}\n{caption}" if instruction_first else f"{caption}\n{REWRITE}"


def fingerprint_text(instruction: str, *, instruction_first: bool) -> str:
    """The text that a prompt fingerprint hashes: the instruction, and whether it stands first, which changes the answers."""
    return f"{instruction}\n{{subject}}" if instruction_first else instruction


# Openings, order and number of slots vary on purpose: templates are there to vary the captions. Each is one sentence that a person might
# write once the slots are filled: no list, and no article before a slot, whose description brings its own. Ids never change meaning: what
# is worded anew takes a new id in the same place of the order, t12b after t12, and only the images that drew t12 are captioned again. The
# draw is modulo their number: one more or less gives nearly every image another template, and its dynamic caption is made again.
_WORDINGS = {
    "t01b": "The {person} is dressed in {clothing} and {footwear} and has {hair}.",
    "t02": "With {hair}, the {person} wears {clothing} and carries {belongings}.",
    "t03": "Wearing {footwear} and {clothing}, a {person} with {hair} can be seen.",
    "t04": "A {person} carrying {belongings} has on {clothing} together with {footwear}.",
    "t05b": "This picture shows a {person} in {clothing}, set off by {accessory}.",
    "t06": "{hair} frames the face of the {person}, who is clothed in {clothing}.",
    "t07": "Clad in {clothing}, the {person} walks along in {footwear}, holding {belongings}.",
    "t08b": "Here we see a {person} with {hair}, {footwear} and {clothing}.",
    "t09": "The outfit consists of {clothing} and {footwear}, worn by a {person} with {hair}.",
    "t10b": "The first thing you notice is {accessory}; the {person} also wears {clothing} and {footwear}.",
    "t11": "Holding {belongings}, the {person} sports {hair} and is wearing {clothing}.",
    "t12b": "From head to toe, the {person} has {hair}, {clothing} and {footwear}.",
    "t13b": "Out for a walk, a {person} in {clothing} has brought {belongings}.",
    "t14b": "The {person} has {hair}, and the outfit is {clothing} with {footwear}.",
    "t15b": "Starting from the ground up, the {person} wears {footwear} and {clothing}.",
    "t16b": "In the image, a {person} with {accessory} is wearing {clothing} and carrying {belongings}.",
    "t17b": "{clothing} is what this {person} is wearing, together with {footwear}.",
    "t18b": "Look for a {person} with {hair} who is wearing {clothing} and {footwear}.",
    "t19": "The {person} carries {belongings}, wears {accessory} and is dressed in {clothing}.",
    "t20b": "Out and about in {footwear}, the {person} wears {clothing} and carries {belongings}.",
    "t21b": "There is a {person} here carrying {belongings} and wearing {clothing}, with {hair}.",
    "t22b": "What stands out about this {person} is {clothing}, along with {hair} and {footwear}.",
    "t23": "Sporting {accessory}, the {person} combines {clothing} with {footwear}.",
    "t24b": "The {person} in the photo has {hair} and is wearing {clothing}.",
    "t25b": "Besides carrying {belongings}, the {person} is wearing {clothing} and {footwear}.",
    "t26b": "Dressed for a day out in {clothing}, this {person} has {hair} and wears {accessory}.",
    "t27b": "Today this {person} with {hair} has picked {clothing}, {footwear} and {accessory}.",
    "t28b": "The camera has caught a {person} in {clothing} and {footwear}, holding {belongings}.",
    "t29b": "A {person} is seen wearing {clothing}, with {belongings} close at hand.",
    "t30b": "In short, this is a {person} with {hair} who wears {clothing} and {footwear} and carries {belongings}.",
    "t31b": "You can recognise the {person} by {clothing}, {hair} and {footwear}.",
    "t32b": "The {person} has paired {footwear} with {clothing} and wears {accessory}.",
    "t33b": "Along comes a {person} in {clothing}, wearing {accessory} and carrying {belongings}.",
    "t34b": "{footwear} complete the outfit of the {person}, who is wearing {clothing}.",
    "t35b": "{clothing} and {footwear} are worn by a {person} with {hair}.",
    "t36b": "This {person} appears to have {hair} and is wearing {clothing} and carrying {belongings}.",
    "t37b": "Moving about in {footwear}, a {person} with {hair} is dressed in {clothing}.",
    "t38b": "You can make out {accessory} and {belongings} on a {person} dressed in {clothing}.",
    "t39b": "Shown at full length, with {hair}, the {person} wears {footwear} and {clothing}.",
    "t40b": "Outfitted in {clothing} and {accessory}, the {person} is carrying {belongings}.",
    "t41b": "It looks like a {person} carrying {belongings} has gone out in {footwear} and {clothing}.",
    "t42b": "The subject is a {person} attired in {clothing} and carrying {belongings}.",
    "t43b": "Along with {clothing}, the {person} wears {accessory} and {footwear} and has {hair}.",
    "t44b": "A {person} strolls by in {footwear} and {clothing}.",
    "t45b": "Easy to spot by {hair} and {accessory}, the {person} is in {clothing}.",
    "t46b": "Someone with {belongings} comes into view, a {person} in {clothing} and {footwear}.",
    "t47b": "To go with {clothing}, the {person} has put on {footwear} and picked up {belongings}.",
    "t48b": "Notable features of the {person} are {accessory}, {clothing} and {hair}.",
    "t49b": "If you see a {person} in {clothing}, {accessory} and {footwear}, you have found the right one.",
    "t50b": "In this shot, a {person} with {hair} is wearing {clothing}, {footwear} and {accessory} and carrying {belongings}.",
}

TEMPLATES: dict[str, str] = {template_id: wording.format_map(SLOTS) for template_id, wording in _WORDINGS.items()}
