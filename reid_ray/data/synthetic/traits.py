"""Attribute sampling of synthetic people: the attribute vocabulary, and counter-based random choices as pure functions of (seed, index).

Knows numbers and names; not pixels, sentences or tables. Randomness is counter-based (a hash of seed, purpose and index), so row
17 of a million can be drawn without the sixteen before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reid_ray.config.common import SyntheticConfig

NONE = "none"
COLORS = ("black", "white", "grey", "red", "yellow", "green", "blue", "purple", "pink", "brown")
HAIR_COLORS = ("black", "brown", "blond", "grey", "red")

# Attribute -> its values. The order is the order of keys in the attributes JSON; a value's place is its code.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("man", "woman"),
    "hair": ("short", "long", "bun"),
    "hair_color": HAIR_COLORS,
    "upper": ("t-shirt", "shirt", "jacket", "coat", "hoodie"),
    "upper_color": COLORS,
    "upper_pattern": ("plain", "striped", "checked"),
    "lower": ("trousers", "jeans", "shorts", "skirt"),
    "lower_color": COLORS,
    "shoes": ("shoes", "boots"),
    "shoes_color": COLORS,
    "bag": (NONE, "backpack", "handbag", "shoulder bag"),
    "bag_color": (NONE, *COLORS),
    "hat": (NONE, "cap", "beanie", "sun hat"),
    "hat_color": (NONE, *COLORS),
}

VIEWS = ("front", "back", "side")
OCCLUDERS = (NONE, "low", "pole")

# How often each value of ATTRIBUTES is drawn; two rows are men and women.
_HAIR_WEIGHTS = np.array([(8, 2, 0), (2.5, 5, 2.5)])
_LOWER_KIND_WEIGHTS = np.array([(4, 3, 2.5, 0), (2.5, 2.5, 1.5, 3)])
_SHOES_KIND_WEIGHTS = np.array([(7, 2), (6, 4)])
_BAG_WEIGHTS = np.array([(4, 3, 0.5, 2), (3, 2, 3, 2)])
_JEANS_WEIGHTS = (2, 0.7, 1, 0, 0, 0, 4, 0, 0, 0)
_LOWER_WEIGHTS = (2, 1, 1.3, 0.8, 0.6, 1, 1.5, 0.6, 0.6, 1.3)
_SHOES_WEIGHTS = (2, 2, 1, 1, 0.5, 0.5, 1, 0.3, 0.5, 1.2)


class Draws:
    """Random numbers for items `index_N`: the same (seed, index, purpose) gives the same number in any batch."""

    def __init__(self, seed: int, index_N: np.ndarray) -> None:
        self._seed = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        self._index_N = np.asarray(index_N).astype(np.uint64)

    def bits(self, purpose: str) -> np.ndarray:
        """uint64 [N], one hash per item."""
        salt = np.uint64(zlib.crc32(purpose.encode()) + 1)
        with np.errstate(over="ignore"):
            return _mix(self._index_N + _mix(self._seed * np.uint64(0x9E3779B97F4A7C15) + _mix(salt)))

    def uniform(self, purpose: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float64 [N] in [low, high)."""
        return low + (high - low) * ((self.bits(purpose) >> np.uint64(11)) * 2.0**-53)

    def below(self, purpose: str, limit: int) -> np.ndarray:
        """int64 [N] in [0, limit)."""
        return (self.uniform(purpose) * limit).astype(np.int64)

    def choice(self, purpose: str, weights_NK: np.ndarray | Sequence[float]) -> np.ndarray:
        """int64 [N] in [0, K), drawn by weights [K] or one row of weights per item [N, K]."""
        weights = np.atleast_2d(np.asarray(weights_NK, dtype=np.float64))
        edges = np.cumsum(weights, axis=1)
        return (self.uniform(purpose)[:, None] * edges[:, -1:] >= edges).sum(axis=1)


@dataclass(frozen=True)
class People:
    """Identities `person_N`: attribute codes, and looks that no caption names (shade, skin, build)."""

    person_N: np.ndarray
    codes: Mapping[str, np.ndarray]

    def attributes(self) -> list[dict[str, str]]:
        """One {attribute: value} per identity, all keys always present, "none" for what is not there."""
        names = {name: np.asarray(values, dtype=object)[self.codes[name]] for name, values in ATTRIBUTES.items()}
        return [dict(zip(names, row, strict=True)) for row in zip(*names.values(), strict=True)]


@dataclass(frozen=True)
class Shots:
    """Images `index_N`: who, by which camera, from which side, behind what."""

    index_N: np.ndarray
    person_N: np.ndarray
    shot_N: np.ndarray
    camera_N: np.ndarray
    view_N: np.ndarray
    occluder_N: np.ndarray
    hides_shoes_N: np.ndarray


def draw_people(seed: int, person_N: np.ndarray) -> People:
    """Attributes of identities, each drawn on its own; dress follows gender loosely, as on a street."""
    draw = Draws(seed, person_N)
    woman_N = draw.below("gender", 2)
    codes = {"gender": woman_N}
    codes["hat"] = draw.choice("hat", (5, 2, 1.5, 1.5))
    hair_N = draw.choice("hair", _HAIR_WEIGHTS[woman_N])
    codes["hair"] = np.where((hair_N == 2) & (codes["hat"] > 0), 1, hair_N)  # a hat would hide the bun
    codes["hair_color"] = draw.choice("hair_color", (3, 3, 2, 1, 1))
    codes["upper"] = draw.choice("upper", (1.3, 1, 1, 1, 1))
    codes["upper_color"] = draw.below("upper_color", len(COLORS))
    codes["upper_pattern"] = draw.choice("upper_pattern", (6, 2, 2))
    codes["lower"] = draw.choice("lower", _LOWER_KIND_WEIGHTS[woman_N])
    lower_weights = np.where((codes["lower"] == 1)[:, None], np.asarray(_JEANS_WEIGHTS), np.asarray(_LOWER_WEIGHTS))
    codes["lower_color"] = draw.choice("lower_color", lower_weights)
    codes["shoes"] = draw.choice("shoes", _SHOES_KIND_WEIGHTS[woman_N])
    codes["shoes_color"] = draw.choice("shoes_color", _SHOES_WEIGHTS)
    codes["bag"] = draw.choice("bag", _BAG_WEIGHTS[woman_N])
    codes["bag_color"] = np.where(codes["bag"] > 0, 1 + draw.below("bag_color", len(COLORS)), 0)
    codes["hat_color"] = np.where(codes["hat"] > 0, 1 + draw.below("hat_color", len(COLORS)), 0)
    return People(np.asarray(person_N), {name: codes[name] for name in ATTRIBUTES})


def draw_shots(config: SyntheticConfig, index_N: np.ndarray) -> Shots:
    """What is on images `index_N`: the images of an identity are neighbours and walk round the cameras."""
    index_N = np.asarray(index_N, dtype=np.int64)
    person_N, shot_N = np.divmod(index_N, config.images_per_identity)
    first_N = Draws(config.seed, person_N).below("first camera", config.cameras)
    camera_N = (first_N + shot_N) % config.cameras
    cameras = Draws(config.seed, np.arange(config.cameras))
    # A camera sees most people from one side: along a street they walk towards it, away from it or past it.
    views_CV = np.stack([cameras.uniform(f"views {view}", 0.15, 1.0) ** 3 for view in VIEWS], axis=1) + 0.05
    blocked_C = cameras.uniform("occlusion", 0.0, 0.35)
    draw = Draws(config.seed, index_N)
    occluder_N = np.where(draw.uniform("occluded") < blocked_C[camera_N], 1 + draw.below("occluder", 2), 0)
    return Shots(
        index_N=index_N,
        person_N=person_N,
        shot_N=shot_N,
        camera_N=camera_N,
        view_N=draw.choice("view", views_CV[camera_N]),
        occluder_N=occluder_N,
        hides_shoes_N=occluder_N == OCCLUDERS.index("low"),
    )


def split_of(config: SyntheticConfig) -> np.ndarray:
    """Split of every identity, object [identities]: shuffled by the seed, exact in number, each identity in one split only."""
    order = np.argsort(Draws(config.seed, np.arange(config.identities)).bits("split"), kind="stable")
    test = round(config.identities * config.test_share)
    val = min(round(config.identities * config.val_share), config.identities - test)
    split_P = np.full(config.identities, "train", dtype=object)
    split_P[order[:test]] = "test"
    split_P[order[test : test + val]] = "val"
    return split_P


def shared_identities(config: SyntheticConfig) -> int:
    """How many identities agree with an earlier one in every attribute, so that no caption can tell them apart."""
    codes_PA = np.stack(list(draw_people(config.seed, np.arange(config.identities)).codes.values()), axis=1)
    return config.identities - len(np.unique(codes_PA, axis=0))


def _mix(value: np.ndarray | np.uint64) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
