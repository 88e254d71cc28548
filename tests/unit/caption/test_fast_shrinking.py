"""Fast shrinking against Pillow's: the same sizes, nearly the same pixels, the same reasons, and no JPEG decoded larger than it must be."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reid_ray.caption.fast_shrinking import decode_at_most
from reid_ray.data.images import BadImageError, decode_image


def photograph(width: int, height: int) -> Image.Image:
    """Detail of every size, as a photograph has it, the less the finer."""
    random = np.random.default_rng(5)
    picture = np.full((height, width, 3), 128.0)
    for cells in (4, 16, 64, 256):
        for channel in range(3):
            noise = Image.fromarray(random.uniform(-90, 90, (cells, cells)).astype("float32") * (4 / cells) ** 0.4)
            picture[..., channel] += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(picture.clip(0, 255).astype("uint8"))


def encoded(picture: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def fast(data: bytes | None, max_side: int, max_pixels: int = 10_000_000) -> Image.Image:
    return decode_at_most(data, max_side=max_side, max_pixels=max_pixels, unread=None)


def slow(data: bytes, max_side: int) -> Image.Image:
    picture = decode_image(data)
    picture.thumbnail((max_side, max_side))
    return picture


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "max_side", "mean", "most"), [("JPEG", 700, 0.05, 2), ("JPEG", 500, 1.5, 30), ("PNG", 200, 0.6, 12)])
def test_pixels_are_nearly_those_of_pillows_filter(kind, max_side, mean, most):
    data = encoded(photograph(1000, 600), kind)
    ours, other = fast(data, max_side), slow(data, max_side)
    assert ours.size == other.size
    apart = np.abs(np.asarray(ours).astype(float) - np.asarray(other).astype(float))
    assert apart.mean() < mean
    assert apart.max() <= most


@pytest.mark.parametrize(
    ("side", "decoded"), [(1000, (1000, 600)), (501, (1000, 600)), (500, (500, 300)), (250, (250, 150)), (60, (125, 75))]
)
def test_a_jpeg_is_decoded_no_larger_than_it_must_be(side, decoded):
    assert decode_image(encoded(photograph(1000, 600)), enough_side=side).size == decoded


def test_a_small_picture_is_left_as_it_is():
    data = encoded(photograph(90, 60))
    assert fast(data, 90).tobytes() == decode_image(data).tobytes()


def test_a_picture_that_lies_on_its_side_is_shrunk_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photograph(800, 400), exif=exif)
    ours, other = fast(data, 100), slow(data, 100)
    assert ours.size == other.size == (50, 100)
    assert np.abs(np.asarray(ours).astype(float) - np.asarray(other).astype(float)).mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colour_spaces_of_jpeg_end_in_rgb(mode):
    data = encoded(photograph(600, 300).convert(mode))
    ours, other = fast(data, 100), slow(data, 100)
    assert ours.mode == "RGB"
    assert np.abs(np.asarray(ours).astype(float) - np.asarray(other).astype(float)).mean() < 2


@pytest.mark.parametrize("size", [(3000, 2), (1, 3000)])
def test_a_line_keeps_a_pixel_across(size):
    assert sorted(fast(encoded(Image.new("RGB", size)), 100).size) == [1, 100]


def test_what_cannot_be_decoded_has_the_same_reason():
    data = encoded(photograph(600, 300))
    for damaged, most in ((None, 10**7), (b"", 10**7), (b"text", 10**7), (data[: len(data) // 2], 10**7), (data, 1000)):
        with pytest.raises(BadImageError) as ours:
            fast(damaged, 100, most)
        with pytest.raises(BadImageError) as other:
            decode_image(damaged, max_pixels=most)
        assert str(ours.value) == str(other.value)
