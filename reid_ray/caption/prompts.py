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


def rewrite_request(caption: str, *, instruction_first: bool = False) -> str:
    """What the rewriter is sent: the caption, then the instruction, as in LLM-DA; or the other way round."""
    return f"{REWRITE}\n{caption}" if instruction_first else f"{caption}\n{REWRITE}"


def fingerprint_text(instruction: str, *, instruction_first: bool) -> str:
    """The text that a prompt fingerprint hashes: the instruction, and whether it stands first, which changes the answers."""
    return f"{instruction}\n{{subject}}" if instruction_first else instruction


# Openings, order and number of slots vary on purpose: templates are there to vary the captions. Ids never change meaning; a new
# template takes a new id. The draw is modulo their number: one more or less gives nearly every image another template, and its dynamic
# caption is made again.
_WORDINGS = {
    "t01": "The {person} is dressed in {clothing}, with {footwear} on the feet and {hair}.",
    "t02": "With {hair}, the {person} wears {clothing} and carries {belongings}.",
    "t03": "Wearing {footwear} and {clothing}, a {person} with {hair} can be seen.",
    "t04": "A {person} carrying {belongings} has on {clothing} together with {footwear}.",
    "t05": "This picture shows a {person} whose outfit is {clothing}, finished by {accessory}.",
    "t06": "{hair} frames the face of the {person}, who is clothed in {clothing}.",
    "t07": "Clad in {clothing}, the {person} walks along in {footwear}, holding {belongings}.",
    "t08": "Here is a {person} in {clothing}; the shoes are {footwear} and the hair is {hair}.",
    "t09": "The outfit consists of {clothing} and {footwear}, worn by a {person} with {hair}.",
    "t10": "One notices {accessory} on this {person}, along with {clothing} and {footwear}.",
    "t11": "Holding {belongings}, the {person} sports {hair} and is wearing {clothing}.",
    "t12": "From head to toe: {hair}, {clothing}, {footwear}. It is a {person}.",
    "t13": "A pedestrian, a {person}, appears in {clothing} with {belongings} at the side.",
    "t14": "The {person} has {hair}. The clothes are {clothing}. The shoes are {footwear}.",
    "t15": "On the feet are {footwear}; above them the {person} wears {clothing}.",
    "t16": "Seen in the image is a {person} with {accessory}, {clothing} and {belongings}.",
    "t17": "{clothing} makes up the attire of the {person}, who also has {hair}.",
    "t18": "Look for a {person} with {hair}, dressed in {clothing} and shod in {footwear}.",
    "t19": "The {person} carries {belongings}, wears {accessory} and is dressed in {clothing}.",
    "t20": "In {footwear} and with {belongings}, the {person} is clothed in {clothing}.",
    "t21": "There is a {person} here, {hair}, in {clothing}, who brings along {belongings}.",
    "t22": "What stands out is {clothing} on a {person} with {hair} and {footwear}.",
    "t23": "Sporting {accessory}, the {person} combines {clothing} with {footwear}.",
    "t24": "The person in question is a {person} having {hair} and putting on {clothing}.",
    "t25": "{belongings} goes with the {person}, whose clothes are {clothing} and {footwear}.",
    "t26": "Dressed for the street in {clothing}, this {person} shows {hair} and {accessory}.",
    "t27": "A {person}, {hair}, chose {clothing}, {footwear} and {accessory} today.",
    "t28": "The camera caught a {person} who wears {clothing}, steps in {footwear} and holds {belongings}.",
    "t29": "With {belongings} in hand or on the back, a {person} is seen wearing {clothing}.",
    "t30": "Hair: {hair}. Clothes: {clothing}. Shoes: {footwear}. Carried: {belongings}. A {person}.",
    "t31": "You can recognise the {person} by {clothing}, by {hair} and by {footwear}.",
    "t32": "The {person} pairs {clothing} with {footwear} and keeps {hair}.",
    "t33": "Along comes a {person} with {accessory} and {belongings}, clothed in {clothing}.",
    "t34": "{footwear} complete the look of the {person}, which is made of {clothing}.",
    "t35": "Both {clothing} and {footwear} are worn by the {person}, whose hair is {hair}.",
    "t36": "This {person} appears to have {hair}, is wearing {clothing}, and has {belongings}.",
    "t37": "A figure in {clothing}, a {person}, is moving about in {footwear} with {hair}.",
    "t38": "Among the things to see are {accessory}, {belongings} and {clothing} on a {person}.",
    "t39": "The {person}, shown in full, has {clothing} on, {footwear} below and {hair} above.",
    "t40": "Outfitted with {clothing} and {accessory}, the {person} is carrying {belongings}.",
    "t41": "It looks like a {person} with {hair} who went out in {footwear} and {clothing}.",
    "t42": "The main subject, a {person}, is attired in {clothing} and equipped with {belongings}.",
    "t43": "While wearing {clothing}, the {person} displays {hair}, {accessory} and {footwear}.",
    "t44": "A {person} stands or walks in {footwear}; the rest of the clothing is {clothing}.",
    "t45": "Characterised by {hair} and {accessory}, the {person} is in {clothing}.",
    "t46": "Somebody with {belongings} is in view: a {person} in {clothing} and {footwear}.",
    "t47": "The upper and lower garments are {clothing}; the {person} adds {footwear} and {belongings}.",
    "t48": "Notable about the {person}: {hair}, then {clothing}, and finally {belongings}.",
    "t49": "If you meet a {person} in {clothing} with {accessory} and {footwear}, that is the one.",
    "t50": "In this crop a {person} is visible, {hair}, wearing {clothing}, {footwear} and {accessory}, with {belongings}.",
}

TEMPLATES: dict[str, str] = {template_id: wording.format_map(SLOTS) for template_id, wording in _WORDINGS.items()}
