"""Renderer of synthetic people: body parts and garments as label maps, from the shadow to the hat, and the colours of each part.

Knows anatomy and dress in body units (see canvas.Frame); not backgrounds, light or words. Every attribute shows: the kinds of
garment differ in cut (sleeves, hem, hood, open front), not in colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid_ray.data.synthetic.canvas import Canvas
from reid_ray.data.synthetic.traits import ATTRIBUTES, COLORS, HAIR_COLORS, VIEWS, Draws, People, Shots

PARTS = (
    "nothing", "shadow", "skin", "skin_shade", "hair", "face", "lips", "upper", "sleeve", "pattern", "inner", "detail", "lower",
    "lower_far",
    "lower_light", "shoes", "sole", "bag", "strap", "hat", "brim", "block", "block_light",
)  # fmt: skip
PART = {name: code for code, name in enumerate(PARTS)}

RGB = {
    "black": (30, 30, 34), "white": (238, 238, 234), "grey": (130, 132, 136), "red": (200, 34, 38), "yellow": (236, 204, 44),
    "green": (40, 142, 62), "blue": (38, 82, 196), "purple": (124, 48, 156), "pink": (240, 136, 178), "brown": (118, 72, 36),
}  # fmt: skip
HAIR_RGB = {"black": (34, 28, 28), "brown": (98, 58, 28), "blond": (226, 190, 104), "grey": (164, 164, 168), "red": (180, 76, 28)}
_SKIN_RGB = ((250, 214, 186), (232, 184, 146), (198, 144, 104), (150, 100, 68), (104, 68, 46))
_BLOCK_RGB = ((70, 74, 82), (52, 92, 62), (124, 44, 40), (150, 148, 140), (60, 64, 110))

_HEMS = {"t-shirt": 65.0, "shirt": 66.0, "jacket": 68.0, "coat": 83.0, "hoodie": 67.0}


@dataclass(frozen=True)
class Pose:
    """Everything a painter asks per picture [N]: which view, which dress, how the body is built and moves."""

    seed: int
    shots: Shots
    people: People  # of each picture, so repeated for the pictures of one identity
    side: np.ndarray  # bool: seen from the side
    shoulder: np.ndarray  # half widths in body units
    waist: np.ndarray
    hip: np.ndarray
    apart: np.ndarray  # half distance between the legs at the hip
    stride: np.ndarray  # how much further apart the feet are
    swing: np.ndarray  # of the arms, -1 to 1
    lift: np.ndarray  # of the rear foot
    hem: np.ndarray  # row at which the upper garment ends
    short_sleeves: np.ndarray  # bool

    def is_a(self, name: str, *values: str) -> np.ndarray:
        """Bool [N]: the person's attribute has one of these values."""
        return _any_of(self.people.codes[name], [ATTRIBUTES[name].index(value) for value in values])

    def view(self, *names: str) -> np.ndarray:
        """Bool [N]: seen from one of these sides."""
        return _any_of(self.shots.view_N, [VIEWS.index(name) for name in names])


def strike_pose(seed: int, shots: Shots, people: People) -> Pose:
    """Build is the person's, posture the moment's; a side view narrows the body and widens the stride."""
    body, moment = Draws(seed, shots.person_N), Draws(seed, shots.index_N)
    woman, side = people.codes["gender"] == ATTRIBUTES["gender"].index("woman"), shots.view_N == VIEWS.index("side")
    stout_N = body.uniform("stout", 0.93, 1.1)
    return Pose(
        seed=seed,
        shots=shots,
        people=people,
        side=side,
        shoulder=np.where(woman, 10.4, 14.8) * stout_N * np.where(side, 0.68, 1.0),
        waist=np.where(woman, 7.0, 12.4) * stout_N * np.where(side, 0.82, 1.0),
        hip=np.where(woman, 11.6, 10.0) * stout_N * np.where(side, 0.8, 1.0),
        apart=np.where(side, 0.6, np.where(woman, 4.9, 6.2)),
        stride=np.where(side, moment.uniform("stride", 2.0, 11.0), moment.uniform("stance", 0.0, 2.5)),
        swing=moment.uniform("swing", -1.0, 1.0),
        lift=moment.uniform("lift", 0.0, 3.0),
        hem=np.array([_HEMS[name] for name in ATTRIBUTES["upper"]])[people.codes["upper"]] + body.uniform("hem", -1.5, 1.5),
        short_sleeves=people.codes["upper"] == ATTRIBUTES["upper"].index("t-shirt"),
    )


def paint_person(canvas: Canvas, pose: Pose) -> None:
    """Paint every part in the order in which it lies over the others."""
    canvas.ellipse(PART["shadow"], 120, 0, 3, 15 + pose.stride)
    _behind(canvas, pose)
    _legs(canvas, pose)
    _torso(canvas, pose)
    _cut(canvas, pose)
    _straps(canvas, pose)
    _arms(canvas, pose)
    _weave(canvas, pose)
    _head(canvas, pose)
    _hat(canvas, pose)
    _over_the_back(canvas, pose)


def paint_occluder(canvas: Canvas, pose: Pose) -> None:
    """A bench, car or bin before the feet, or a pole before one half of the body."""
    moment = Draws(pose.seed, pose.shots.index_N)
    low, pole = pose.shots.occluder_N == 1, pose.shots.occluder_N == 2
    top = moment.uniform("block top", 93, 106)
    canvas.limb(PART["block"], (top, 170), (moment.uniform("block x", -14, 14),) * 2, (32, 34), low)
    canvas.limb(PART["block_light"], (top, top + 2), (moment.uniform("block x", -14, 14),) * 2, (32, 32), low)
    x = moment.uniform("pole x", 5, 14) * np.where(moment.below("pole side", 2) == 1, 1, -1)
    half = moment.uniform("pole width", 2.5, 5.0)
    canvas.limb(PART["block"], (-40, 170), (x, x), (half, half), pole)
    canvas.limb(PART["block_light"], (-40, 170), (x - half * 0.5, x - half * 0.5), (half * 0.25, half * 0.25), pole)


def _behind(canvas: Canvas, pose: Pose) -> None:
    """What the body covers: long hair and a backpack seen from the front, a backpack seen from the side."""
    front, side = pose.view("front"), pose.view("side")
    long = pose.is_a("hair", "long")
    canvas.limb(PART["hair"], (15, 43), (0, 0), (8.6, 10.5), long & front)
    pack = pose.is_a("bag", "backpack")
    canvas.limb(PART["bag"], (32, 60), (0, 0), (pose.shoulder + 5.4, pose.shoulder + 5.8), pack & front)
    canvas.ellipse(PART["bag"], 46, -pose.shoulder - 3, 16, 8.5, pack & side)
    canvas.ellipse(PART["strap"], 52, -pose.shoulder - 5, 6, 5, pack & side)


def _legs(canvas: Canvas, pose: Pose) -> None:
    bare = pose.is_a("lower", "shorts", "skirt")
    jeans = pose.is_a("lower", "jeans")
    for far, sign in ((True, -1.0), (False, 1.0)):
        hip_x, foot_x = sign * pose.apart, sign * (pose.apart + pose.stride)
        foot_y = 117 - np.where(sign < 0, pose.lift, 0.0)
        cloth = PART["lower_far"] if far else PART["lower"]
        canvas.limb(PART["skin_shade" if far else "skin"], (76, foot_y), (hip_x, foot_x), (4.2, 2.8), bare)
        canvas.limb(cloth, (64, foot_y - 2), (hip_x, foot_x), (6.2, 4.3), ~bare)
        canvas.limb(PART["lower_light"], (foot_y - 5.5, foot_y - 2), (foot_x, foot_x), (4.7, 4.7), jeans)
        canvas.ellipse(PART["lower_light"], 82, hip_x + 0.4 * (foot_x - hip_x), 7, 1.5, jeans)
        canvas.limb(cloth, (64, 86), (hip_x, hip_x + 0.35 * (foot_x - hip_x)), (6.6, 7.2), pose.is_a("lower", "shorts"))
        _shoe(canvas, pose, foot_x, foot_y)
    canvas.limb(PART["lower"], (62, 70), (0, 0), (pose.hip * 0.97, pose.hip), ~pose.is_a("lower", "skirt"))
    canvas.limb(PART["lower"], (62, 92), (0, 0), (pose.hip * 0.9, pose.hip + 5.5), pose.is_a("lower", "skirt"))
    canvas.limb(PART["lower_far"], (90, 92.5), (0, 0), (pose.hip + 5, pose.hip + 5.5), pose.is_a("lower", "skirt"))


def _shoe(canvas: Canvas, pose: Pose, foot_x: np.ndarray, foot_y: np.ndarray) -> None:
    boots = pose.is_a("shoes", "boots")
    toe = np.where(pose.side, 2.2, 0.0)
    canvas.limb(PART["shoes"], (foot_y - 17, foot_y - 1), (foot_x * 0.93, foot_x), (4.7, 4.4), boots)
    canvas.limb(PART["sole"], (foot_y - 17, foot_y - 15.8), (foot_x * 0.93, foot_x * 0.93), (4.9, 4.9), boots)
    canvas.ellipse(PART["shoes"], foot_y + 1, foot_x + toe, 4.6, np.where(pose.side, 6.6, 4.9))
    canvas.limb(PART["sole"], (foot_y + 3.6, foot_y + 5), (foot_x + toe, foot_x + toe), (np.where(pose.side, 6.4, 4.6),) * 2)


def _torso(canvas: Canvas, pose: Pose) -> None:
    side = pose.side
    canvas.limb(PART["sleeve"], (35, 50), (0, pose.swing * 6), (3.6, 3.2), side)  # the far arm
    canvas.limb(PART["skin_shade"], (48, 64), (pose.swing * 6, pose.swing * 10 + 2), (2.7, 2.2), side)
    canvas.limb(PART["sleeve"], (48, 63), (pose.swing * 6, pose.swing * 10 + 2), (3.2, 2.8), side & ~pose.short_sleeves)
    canvas.limb(PART["skin_shade"], (22, 33), (0, 0), (3.4, 4.2))
    canvas.ellipse(PART["upper"], 35, 0, 5.5, pose.shoulder)
    canvas.limb(PART["upper"], (34, 53), (0, 0), (pose.shoulder, pose.waist))
    end = np.where(pose.is_a("upper", "coat"), pose.hip + 4.5, pose.hip + 1)
    canvas.limb(PART["upper"], (53, pose.hem), (0, 0), (pose.waist, end))
    canvas.ellipse(PART["skin"], 30.5, 0, np.where(pose.is_a("upper", "t-shirt"), 4.2, 2.6), 4.6, ~pose.view("back"))


def _cut(canvas: Canvas, pose: Pose) -> None:
    """What tells the garments apart: collar and buttons, an open front, lapels and belt, a hood and a pouch."""
    front, back = pose.view("front"), pose.view("back")
    seen = ~back
    ahead = np.where(pose.side, pose.shoulder * 0.45, 0.0)
    shirt, jacket, coat, hoodie = (pose.is_a("upper", kind) for kind in ("shirt", "jacket", "coat", "hoodie"))
    for sign in (-1.0, 1.0):
        canvas.limb(PART["inner"], (28.5, 35), (sign * 2.4, sign * 4.8), (2.4, 1.6), shirt & seen)
        canvas.limb(PART["sleeve"], (30, 45), (sign * 5.0, sign * 1.6), (2.4, 1.0), coat & front)
        canvas.limb(PART["detail"], (31, pose.hem), (sign * 2.2 + ahead, sign * 4.4 + ahead), (0.6, 0.6), jacket & seen)
    canvas.limb(PART["inner"], (34, pose.hem), (ahead, ahead), (1.0, 1.0), shirt & seen)
    canvas.limb(PART["inner"], (28, 32), (0, 0), (5.0, 6.5), shirt & back)
    canvas.limb(PART["detail"], (39, 41), (0, 0), (pose.shoulder, pose.shoulder), jacket & back)
    canvas.limb(PART["inner"], (30, pose.hem), (ahead, ahead), (2.0, 4.2), jacket & seen)
    canvas.limb(PART["inner"], (30, 43), (ahead, ahead), (3.0, 0.3), coat & front)
    canvas.limb(PART["detail"], (54, 57), (0, 0), (pose.waist + 0.4, pose.waist + 0.4), coat)
    canvas.limb(PART["detail"], (57, pose.hem), (ahead, ahead), (0.5, 0.5), coat)
    canvas.limb(PART["sleeve"], (pose.hem - 3.5, pose.hem), (0, 0), (pose.hip + 1, pose.hip + 1), jacket | hoodie)
    canvas.ellipse(PART["detail"], 31, np.where(pose.side, -3, 0), np.where(back, 10.5, 5.4), np.where(back, 8.6, 9.4), hoodie)
    canvas.ellipse(PART["skin"], 29, ahead * 0.5, 3.4, 4.2, hoodie & seen)
    canvas.limb(PART["detail"], (52, 61), (ahead, ahead), (4.5, 7.5), hoodie & seen)
    for sign in (-1.0, 1.0):
        canvas.limb(PART["detail"], (33, 43), (sign * 2.6 + ahead, sign * 2.6 + ahead), (0.5, 0.5), hoodie & seen)


def _weave(canvas: Canvas, pose: Pose) -> None:
    """Stripes and checks lie on whatever cloth of the upper garment shows by now, sleeves included."""
    cloth = (PART["upper"], PART["sleeve"])
    striped_N, checked_N = (np.flatnonzero(pose.is_a("upper_pattern", pattern)) for pattern in ("striped", "checked"))
    canvas.repaint(cloth, PART["pattern"], canvas.bands(9.0, 0.45), None, striped_N)
    canvas.repaint(cloth, PART["pattern"], canvas.bands(9.0, 0.3), canvas.columns(8.0, 0.3), checked_N)


def _straps(canvas: Canvas, pose: Pose) -> None:
    seen, pack, sling = ~pose.view("back"), pose.is_a("bag", "backpack"), pose.is_a("bag", "shoulder bag")
    for sign in (-1.0, 1.0):
        x = sign * pose.shoulder * 0.62
        canvas.limb(PART["bag"], (30, 54), (x, x * 1.08), (2.6, 2.6), pack & seen)
    canvas.limb(PART["strap"], (30, 56), (-pose.shoulder * 0.5, pose.hip + 1), (2.0, 2.0), sling)


def _arms(canvas: Canvas, pose: Pose) -> None:
    short, side = pose.short_sleeves, pose.side
    for sign in (-1.0, 1.0):
        near = ~pose.side | (sign > 0)
        shoulder_x = np.where(side, 0.0, sign * (pose.shoulder - 1.2))
        elbow_x = np.where(side, -pose.swing * 6, sign * (pose.shoulder + 2.0) + pose.swing * 0.6)
        hand_x = np.where(side, -pose.swing * 9 + 2.5, sign * (pose.shoulder + 2.4) + pose.swing * 1.2)
        canvas.ellipse(PART["skin"], 67, hand_x, 3.4, 2.6, near)
        canvas.limb(PART["skin"], (48, 66), (elbow_x, hand_x), (2.6, 2.2), near)
        canvas.limb(PART["sleeve"], (33, 49), (shoulder_x, elbow_x), (3.8, 3.5), near)
        canvas.limb(PART["sleeve"], (48, 65), (elbow_x, hand_x), (3.4, 2.9), near & ~short)
        canvas.limb(PART["inner"], (61, 65), (hand_x, hand_x), (3.4, 3.2), near & pose.is_a("upper", "shirt"))
        canvas.limb(PART["detail"], (36, 49), (shoulder_x * 1.02, elbow_x), (3.8, 3.5), near & pose.is_a("upper", "jacket"))
        canvas.limb(PART["detail"], (48, 65), (elbow_x, hand_x), (3.4, 2.9), near & pose.is_a("upper", "jacket"))
        if sign > 0:
            _bag_in_hand(canvas, pose, hand_x)


def _bag_in_hand(canvas: Canvas, pose: Pose, hand_x: np.ndarray) -> None:
    handbag, sling = pose.is_a("bag", "handbag"), pose.is_a("bag", "shoulder bag")
    for sign in (-1.0, 1.0):
        canvas.limb(PART["strap"], (67, 74), (hand_x, hand_x + sign * 3.6), (0.8, 0.8), handbag)
    canvas.limb(PART["bag"], (74, 89), (hand_x, hand_x), (6.4, 7.8), handbag)
    canvas.limb(PART["strap"], (79, 80.6), (hand_x, hand_x), (2.4, 2.4), handbag)
    hip_x = pose.hip + 1.5
    canvas.limb(PART["bag"], (52, 66), (hip_x, hip_x), (7.6, 7.6), sling)
    canvas.limb(PART["strap"], (52, 57), (hip_x, hip_x), (7.6, 5.2), sling)


def _head(canvas: Canvas, pose: Pose) -> None:
    front, back, side = pose.view("front"), pose.view("back"), pose.side
    woman, long, bun = pose.is_a("gender", "woman"), pose.is_a("hair", "long"), pose.is_a("hair", "bun")
    canvas.ellipse(PART["hair"], 4.6, np.where(side, -3, 0), 4.0, 4.4, bun)
    canvas.limb(PART["hair"], (14, 44), (-4, -6), (5.5, 5.0), long & side)
    canvas.ellipse(PART["hair"], 15.5, np.where(side, -1.4, 0), 9.6, np.where(long, 8.6, 8.0))
    canvas.ellipse(PART["skin"], 18.6, np.where(side, 1.6, 0), 8.2, np.where(woman, 5.9, 6.6), front | side)
    canvas.limb(PART["hair"], (9.0, 13.4), (0, 0), (6.6, 6.2), front | side)
    canvas.limb(PART["hair"], (11, 21), (-3.6, -4.4), (3.4, 2.0), side)
    canvas.limb(PART["skin"], (18.5, 21), (8, 9), (0.8, 1.2), side)  # the nose
    for sign in (-1.0, 1.0):
        canvas.ellipse(PART["face"], 17.4, np.where(side, 5.0, sign * 2.7), 1.1, 0.95, front | (side & (sign > 0)))
        canvas.limb(PART["hair"], (12, 40), (sign * 7.2, sign * 8.2), (1.9, 2.6), long & front)
        canvas.limb(PART["hair"], (11, 19), (sign * 6.5, sign * 6.5), (1.1, 0.8), ~long & front)
    canvas.ellipse(PART["lips"], 22.6, np.where(side, 5.4, 0), 1.1, 2.1, (front | side) & woman)
    bearded = Draws(pose.seed, pose.shots.person_N).uniform("beard") < 0.5
    canvas.ellipse(PART["hair"], 20.6, np.where(side, 3.4, 0), 6.6, 5.6, (front | side) & ~woman & bearded, clip=(0.15, 1))
    canvas.limb(PART["face"], (22.2, 23.2), (np.where(side, 5.4, 0),) * 2, (2.0, 2.0), (front | side) & ~woman)
    canvas.ellipse(PART["skin_shade"], 24.4, 0, 2.2, 3.6, back & ~long)


def _hat(canvas: Canvas, pose: Pose) -> None:
    front, side = pose.view("front"), pose.side
    cap, beanie, sun = (pose.is_a("hat", kind) for kind in ("cap", "beanie", "sun hat"))
    shift = np.where(side, -0.8, 0.0)
    canvas.ellipse(PART["hat"], 13, shift, 10.5, 9.6, cap, clip=(-1, 0))
    canvas.limb(PART["brim"], (11.4, 14.6), (np.where(side, 7.5, 0),) * 2, (np.where(side, 9.0, 8.6),) * 2, cap & (front | side))
    canvas.ellipse(PART["hat"], 15, shift, 12.5, 9.8, beanie, clip=(-1, 0))
    canvas.limb(PART["brim"], (10.4, 15.4), (shift, shift), (10.2, 10.2), beanie)
    canvas.ellipse(PART["hat"], 3.2, shift, 3.2, 3.4, beanie)
    canvas.ellipse(PART["hat"], 11.5, shift, 10, 9.2, sun, clip=(-1, 0))
    canvas.limb(PART["brim"], (8.8, 11.2), (shift, shift), (8.4, 8.8), sun)
    canvas.ellipse(PART["hat"], 12.2, shift, 3.0, 17.0, sun)


def _over_the_back(canvas: Canvas, pose: Pose) -> None:
    """Seen from behind, a backpack covers the garment and long hair covers the backpack."""
    back, pack = pose.view("back"), pose.is_a("bag", "backpack")
    canvas.limb(PART["bag"], (32, 61), (0, 0), (8.4, 9.4), pack & back)
    canvas.ellipse(PART["bag"], 33, 0, 4, 8.4, pack & back)
    canvas.limb(PART["strap"], (48, 49.4), (0, 0), (7.0, 7.2), pack & back)
    canvas.limb(PART["strap"], (38, 39.2), (0, 0), (6.6, 6.6), pack & back)
    canvas.limb(PART["hair"], (18, 45), (0, 0), (8.4, 7.2), pose.is_a("hair", "long") & back)


def part_colors(pose: Pose) -> np.ndarray:
    """RGB and opacity of every part, premultiplied: uint8 [N, parts, 4]."""
    people, body, moment = pose.people, Draws(pose.seed, pose.shots.person_N), Draws(pose.seed, pose.shots.index_N)
    count = len(pose.swing)
    table = np.array([RGB[name] for name in COLORS], dtype=np.float32)
    bag_table = np.concatenate([np.zeros((1, 3), np.float32), table])

    def shade(rgb_N3: np.ndarray, purpose: str) -> np.ndarray:
        """No two red coats are alike: a person's own lightness and tint of each piece."""
        tint = np.stack([body.uniform(f"{purpose} {channel}", -9, 9) for channel in "rgb"], axis=1)
        return rgb_N3 * body.uniform(f"{purpose} lightness", 0.86, 1.12)[:, None] + tint

    upper = shade(table[people.codes["upper_color"]], "upper")
    lower = shade(table[people.codes["lower_color"]], "lower")
    shoes = shade(table[people.codes["shoes_color"]], "shoes")
    bag = shade(bag_table[people.codes["bag_color"]], "bag")
    hat = shade(bag_table[people.codes["hat_color"]], "hat")
    hair = shade(np.array([HAIR_RGB[name] for name in HAIR_COLORS], np.float32)[people.codes["hair_color"]], "hair")
    skin = np.array(_SKIN_RGB, np.float32)[body.choice("skin", (3, 3, 2, 1, 1))]
    block = np.array(_BLOCK_RGB, np.float32)[moment.below("block", len(_BLOCK_RGB))]
    light = upper.mean(axis=1, keepdims=True) > 118
    pattern = np.where(light, upper * 0.5, upper * 0.35 + 165)
    solid = {
        "skin": skin, "skin_shade": skin * 0.86, "hair": hair, "face": skin * 0.25, "lips": skin * 0.4 + np.array([110, 16, 32]),
        "upper": upper, "sleeve": upper * 0.84, "pattern": pattern, "inner": np.where(light, 70.0, 225.0) + 0 * upper,
        "detail": np.where(light, upper * 0.45, upper * 0.5 + 120), "lower": lower, "lower_far": lower * 0.8,
        "lower_light": lower * 0.55 + 100,
        "shoes": shoes, "sole": shoes * 0.5 + 20, "bag": bag, "strap": bag * 0.6 + 10, "hat": hat, "brim": hat * 0.74,
        "block": block, "block_light": block * 0.6 + 90,
    }  # fmt: skip
    color_NP4 = np.zeros((count, len(PARTS), 4), dtype=np.uint8)
    color_NP4[:, PART["shadow"], 3] = 90
    for name, rgb_N3 in solid.items():
        color_NP4[:, PART[name], :3] = np.clip(rgb_N3, 0, 255)
        color_NP4[:, PART[name], 3] = 255
    return color_NP4


def _any_of(code_N: np.ndarray, wanted: list[int]) -> np.ndarray:
    found = code_N == wanted[0]
    for code in wanted[1:]:
        found = found | (code_N == code)
    return found
