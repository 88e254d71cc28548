"""Pictures: every frame has the colour of its truth, long texts stay in their column, missing pictures are blanks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from reid_ray.data.images import encode_jpeg
from reid_ray.retrieval.evaluate.sheet import RIGHT, UNKNOWN, WRONG, SheetHit, SheetQuery, _font, draw_cmc, draw_sheet, sheet_of, wrap_text


def test_frames_are_green_for_right_red_for_wrong_grey_for_unknown():
    picture = Image.new("RGB", (64, 128), (10, 20, 200))
    kinds = [True, False, None, False]
    hits = [SheetHit(picture if n % 2 else encode_jpeg(picture), kind, n, 0.5) for n, kind in enumerate(kinds)]
    sheet = np.asarray(sheet_of([SheetQuery(text="a man", hits=hits)]))
    middle = sheet[46 + 10 + 80]  # a line through the pictures: frame colours from left to right
    seen = []
    for pixel in map(tuple, middle.tolist()):
        if pixel in (RIGHT, WRONG, UNKNOWN) and (not seen or seen[-1][0] != pixel or seen[-1][2] != "frame"):
            seen.append([pixel, 0, "frame"])
        elif pixel not in (RIGHT, WRONG, UNKNOWN) and seen:
            seen[-1][2] = "inside"
    expected = [colour for colour in (RIGHT, WRONG, UNKNOWN, WRONG) for _ in range(2)]  # left and right side of each frame
    assert [entry[0] for entry in seen] == expected


@pytest.mark.slow
def test_long_texts_are_wrapped_and_cut():
    for text in ("word " * 120, "x" * 900, "短い文" * 150, "a 😀 b " * 100):
        lines = wrap_text(text, width=230, most_lines=10)
        assert len(lines) == 10
        assert lines[-1].endswith("…")
        assert all(_font(14).getlength(line) <= 230 for line in lines)
    assert wrap_text("a short one", width=230, most_lines=10) == ["a short one"]
    assert wrap_text("", width=230, most_lines=10) == []
    # A text without end costs no more than the lines that are shown.
    for text in ("x" * 3_000_000, "a man " * 500_000):
        lines = wrap_text(text, width=230, most_lines=10)
        assert len(lines) == 10
        assert lines[-1].endswith("…")


@pytest.mark.slow
def test_missing_pictures_and_empty_lists_are_drawn(tmp_path):
    hits = [SheetHit(None, None, None, -0.1), SheetHit(b"no image", True, 3, 0.2)]
    draw_sheet([SheetQuery(text="x", hits=hits), SheetQuery(picture=Image.new("L", (5, 900)), hits=[])], tmp_path / "sheet.png")
    draw_sheet([], tmp_path / "empty.png")
    draw_cmc({"a": np.array([0.2, 0.5, 1.0]), "b": np.linspace(0.1, 0.9, 50)}, tmp_path / "cmc.png", chance=0.01)
    for name in ("sheet.png", "empty.png", "cmc.png"):
        Image.open(tmp_path / name).verify()
