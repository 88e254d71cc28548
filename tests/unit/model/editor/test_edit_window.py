"""Windows round masks, and their way back into the picture; reference crops on their square."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from reid_ray.model.editor.edit_request import EditRequest
from reid_ray.model.editor.edit_window import Window, cut_mask, cut_out, put_back, resized, window_round
from reid_ray.model.editor.published_editor import PipelineCanvas, canvas_of, on_canvas, qwen_canvas
from reid_ray.model.editor.reference_crop import reference_pixels


def mask_at(size, top, bottom, left, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("box", [(0, 5, 0, 30), (100, 128, 40, 64), (30, 90, 10, 50), (60, 61, 32, 33)])
@pytest.mark.parametrize("size", [(48, 48), (32, 64)])
def test_a_window_holds_the_mask_in_the_models_proportions(box, size):
    mask = mask_at((128, 64), *box)
    window = window_round(mask, size=size, padding=0.25)
    assert window.top <= box[0]
    assert window.bottom >= box[1]
    assert window.left <= box[2]
    assert window.right >= box[3]
    height, width = window.bottom - window.top, window.right - window.left
    assert abs(height / width - size[0] / size[1]) < 0.1
    assert min(height / size[0], width / size[1]) > 0.45


def test_what_lies_beyond_the_picture_repeats_its_edge_and_is_in_no_mask():
    picture = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    window = Window(-2, -1, 4, 5)
    cut = cut_out(picture, window, size=(6, 6))
    assert (cut[0, 2:5] == picture[0]).all()
    assert (cut[1:5, 0] == picture[:, 0]).all()
    mask = cut_mask(np.ones((4, 3), bool), window, size=(6, 6))
    assert (mask == mask_at((6, 6), 1, 5, 2, 5)).all()


def test_a_grown_mask_holds_every_pixel_within_its_reach():
    rng = np.random.default_rng(0)
    mask = rng.random((20, 20)) < 0.02
    grown = cut_mask(mask, Window(0, 0, 20, 20), size=(20, 20), grow=2)
    expected = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        expected[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = True
    assert (grown == expected).all()


def test_only_the_masks_pixels_come_back_from_a_window():
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (30, 12, 3), dtype=np.uint8)
    mask = mask_at((30, 12), 3, 20, 0, 8)
    window = window_round(mask, size=(16, 16), padding=0.5)
    edited = put_back(picture, np.full((16, 16, 3), 7, np.uint8), window, mask)
    assert (edited[mask] == 7).all()
    assert (edited[~mask] == picture[~mask]).all()
    whole = window_round(mask, size=(16, 16), padding=None)
    assert (put_back(picture, picture, whole, mask) == picture).all()


def test_a_mask_that_is_empty_or_of_another_size_is_refused():
    picture = np.zeros((8, 8, 3), np.uint8)
    for mask in (np.zeros((8, 8), bool), np.ones((8, 7), bool)):
        with refused(ValueError, "mask"):
            EditRequest(picture, mask, "a coat", (), 0)


def test_a_reference_keeps_its_proportions_and_its_surroundings_are_the_same_noise_each_time():
    crop = np.zeros((8, 4, 4), np.uint8)
    crop[..., :3], crop[..., 3] = (200, 10, 30), 255
    crop[:2] = (0, 255, 0, 0)  # hidden
    square = reference_pixels(crop, size=16)
    assert (square == reference_pixels(crop.copy(), size=16)).all()
    seen = (np.abs(square.astype(int) - (200, 10, 30)) < 3).all(axis=-1)
    rows, columns = np.argwhere(seen).min(axis=0), np.argwhere(seen).max(axis=0) + 1
    assert (rows.tolist(), columns.tolist()) == ([4, 4], [16, 12])
    assert square[~seen].std() > 50
    with refused(ValueError, "alpha"):
        reference_pixels(np.zeros((3, 3, 4), np.uint8), size=16)


@pytest.mark.parametrize("size", [(384, 128), (128, 64), (100, 300), (256, 256)])
def test_a_crop_keeps_its_proportions_on_any_pipelines_canvas(size):
    for canvas, multiple in ((canvas_of(*size, area=250_000, multiple=16), 16), (qwen_canvas(*size), 32)):
        assert canvas.height % multiple == canvas.width % multiple == 0
        assert abs(canvas.rows / canvas.columns / (size[0] / size[1]) - 1) < 0.01
        assert canvas.top + canvas.rows <= canvas.height
        assert canvas.left + canvas.columns <= canvas.width
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        laid = on_canvas(picture, canvas)
        assert laid.shape == (canvas.height, canvas.width, 3)
        inner = laid[canvas.top : canvas.top + canvas.rows, canvas.left : canvas.left + canvas.columns]
        assert (inner == resized(picture, (canvas.rows, canvas.columns))).all()


@pytest.mark.slow
def test_qwens_pipeline_leaves_its_canvas_as_it_is():
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_inpaint import calculate_dimensions

    assert calculate_dimensions(1024 * 1024, 128 / 384)[:2] == (576, 1760)  # what a bare crop of 1 : 3 would become
    for size in ((384, 128), (128, 64), (100, 300)):
        canvas: PipelineCanvas = qwen_canvas(*size)
        assert calculate_dimensions(1024 * 1024, canvas.width / canvas.height)[:2] == (canvas.width, canvas.height)
