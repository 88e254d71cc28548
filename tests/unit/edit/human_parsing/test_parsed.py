"""Pictures to masks: by the parser that ships, by models with other people's classes, redrawn by a promptable model."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from refusals import refused
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers import SegformerImageProcessor as Processor

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.bit_masks import box_of, decode_mask
from reid_ray.data.pieces import SOURCED
from reid_ray.edit.human_parsing.config import HumanParserConfig, MaskRefinerConfig
from reid_ray.edit.human_parsing.found import SegmentFinder
from reid_ray.edit.human_parsing.parsed import HumanParser, MaskRefiner, slots_of_classes
from reid_ray.edit.parser_training.job import overlap_with_truth
from reid_ray.errors import ConfigError
from reid_ray.model.tiny.tiny_sam import build_tiny_sam
from reid_ray.records import table_of

ATR = [
    "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe", "Right-shoe", "Face",
    "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
]  # fmt: skip
LIP = [
    "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants", "Jumpsuits", "Scarf", "Skirt",
    "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe", "Right-shoe",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny_atr(tmp_path_factory):
    """Random weights with ATR's classes, as a published human parser has them."""
    folder = tmp_path_factory.mktemp("atr")
    torch.manual_seed(0)
    shape = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, id2label=dict(enumerate(ATR))
    )
    SegformerForSemanticSegmentation(shape).save_pretrained(folder)
    Processor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("names", [ATR, LIP])
def test_classes_of_published_parsers_are_known_by_name(names):
    found = slots_of_classes(dict(enumerate(names)), None, model="some/parser")
    assert set(found.values()) >= {"hair", "hat", "upper", "lower", "full", "shoes"}
    kept = {names[number].lower() for number in found}
    assert not kept & {"background", "face", "left-leg", "right-leg", "left-arm", "right-arm", "scarf", "sunglasses", "belt", "socks"}


def test_classes_can_be_named_and_a_wrong_name_is_refused():
    names = {0: "background", 7: "Blouse_top"}
    assert slots_of_classes(names, {"blouse top": "upper"}, model="m") == {7: "upper"}
    with refused(ConfigError, "parser.slots", "has no class trousers", "Blouse_top"):
        slots_of_classes(names, {"trousers": "lower"}, model="m")
    with refused(ConfigError, "parser.slots", "no class of m"):
        slots_of_classes(names, None, model="m")


@pytest.mark.slow
def test_a_picture_is_parsed_at_its_own_size_and_each_pixel_is_of_one_slot(tiny_atr):
    parser = HumanParser.open(HumanParserConfig(model=str(tiny_atr)))
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in ((90, 30), (40, 80))]
    together, alone = parser.masks(pictures), [parser.masks([picture])[0] for picture in pictures]
    assert any(together)
    for picture, masks, same in zip(pictures, together, alone, strict=True):
        assert all(mask_HW.shape == (picture.height, picture.width) and mask_HW.any() for mask_HW in masks.values())
        assert sum(mask_HW.astype(int) for mask_HW in masks.values()).max() <= 1 if masks else True
        assert {slot: mask_HW.sum() for slot, mask_HW in masks.items()} == {slot: mask_HW.sum() for slot, mask_HW in same.items()}


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam")
    build_tiny_sam(folder)
    return folder


@pytest.mark.slow
def test_a_promptable_model_redraws_each_slot_at_the_pictures_size(tiny_sam):
    refiner = MaskRefiner.open(MaskRefinerConfig(model=str(tiny_sam)))
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (96, 40, 3), dtype=np.uint8))
    upper, lower = np.zeros((2, 96, 40), bool)
    upper[20:50, 5:30], lower[50:90, 8:28] = True, True
    drawn = refiner.refined(picture, {"upper": upper, "lower": lower, "hat": np.zeros((96, 40), bool)})
    assert set(drawn) <= {"upper", "lower"}
    assert all(mask_HW.shape == (96, 40) and mask_HW.dtype == bool for mask_HW in drawn.values())
    assert refiner.refined(picture, {}) == {}


@pytest.mark.parametrize("field", ["parser", "refiner"])
def test_a_model_for_another_task_is_refused_by_its_field(field):
    with refused(ConfigError, f"{field}.model", "builtin:tiny-mllm", "qwen2_5_vl"):
        if field == "parser":
            HumanParser.open(HumanParserConfig(model="builtin:tiny-mllm"))
        else:
            MaskRefiner.open(MaskRefinerConfig(model="builtin:tiny-mllm"))


class Halves:
    """A parser that finds an upper garment in the upper half, and a hat of two pixels."""

    name, revision = "halves", "1"

    def masks(self, pictures):
        found = []
        for picture in pictures:
            upper, hat = np.zeros((2, picture.height, picture.width), bool)
            upper[: picture.height // 2], hat[0, :2] = True, True
            found.append({"upper": upper, "hat": hat})
        return found


def test_every_image_and_slot_has_a_row_whether_it_can_be_decoded_or_not():
    file = io.BytesIO()
    Image.new("RGB", (20, 40), (200, 0, 0)).save(file, "PNG")
    images = [
        {"image_id": "whole", "image": file.getvalue(), "image_sha256": "ab", "person_id": 3},
        {"image_id": "half", "image": file.getvalue()[:60]},
        {"image_id": "gone", "unread": "missing: no such file"},
    ]
    find = SegmentFinder(Halves(), None, slots=["upper", "hat", "bag"], min_area=0.01, max_pixels=10**6)
    rows = find(table_of(SOURCED, images)).to_pylist()
    told = [(row["image_id"], row["slot"], row["status"], (row["reason"] or "").partition(":")[0]) for row in rows]
    assert told[:3] == [("whole", "upper", "ok", ""), ("whole", "hat", "absent", "no_pixels"), ("whole", "bag", "absent", "no_pixels")]
    assert [each[:3] for each in told[3:]] == [(name, slot, "failed") for name in ("half", "gone") for slot in ("upper", "hat", "bag")]
    assert {each[3] for each in told[6:]} == {"missing"}
    mask_HW = decode_mask(rows[0]["mask"], width=20, height=40)
    assert rows[0]["box"] == list(box_of(mask_HW)) == [0, 0, 20, 20]
    assert (rows[0]["area"], rows[0]["person_id"], rows[0]["source"]) == (0.5, 3, "halves")
    assert find(table_of(SOURCED, [])).num_rows == 0
    assert isinstance(find(table_of(SOURCED, images[2:])), pa.Table)


@pytest.mark.slow
def test_the_parser_that_ships_finds_what_people_wear_that_it_has_never_seen():
    parser = HumanParser.open(HumanParserConfig())
    overlap = overlap_with_truth(parser, SyntheticConfig(identities=60, images_per_identity=1, seed=77), 60)
    assert min(overlap[slot] for slot in ("hair", "upper", "lower", "shoes")) > 0.55, overlap
