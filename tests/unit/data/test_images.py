"""Decoding: any real picture becomes upright 8-bit RGB, anything else a reason; a bomb is never decoded."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from reid_ray.data.images import BadImageError, decode_image, decode_shrunk, encode_jpeg, image_size


def _encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise(height: int = 40, width: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _png_claiming(width: int, height: int) -> bytes:
    """A valid PNG header, a few bytes of data: 100 bytes that claim any number of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def _reason(data: bytes | None, **options) -> str:
    with pytest.raises(BadImageError) as error:
        decode_image(data, **options)
    assert error.value.detail
    return error.value.reason


def test_what_is_no_picture_gets_its_reason():
    jpeg = _encode(Image.fromarray(_noise(200, 100)), "JPEG")
    png = _encode(Image.fromarray(_noise(200, 100)), "PNG")
    assert _reason(None) == "missing"
    assert _reason(b"") == "empty"
    assert _reason(b"hello, I am a text file named .jpg") == "not_an_image"
    assert _reason(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "not_an_image"
    assert _reason(jpeg[: len(jpeg) // 2]) == "truncated"
    assert _reason(png[: len(png) // 2]) == "truncated"
    assert _reason(jpeg[:3]) in {"not_an_image", "unreadable"}
    assert (
        _reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n") == "not_an_image"
    )  # Pillow would run Ghostscript


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_no_damage_to_a_file_escapes_as_another_exception(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = _encode(Image.fromarray(_noise()), kind, **({"exif": exif} if kind in {"JPEG", "PNG", "WEBP"} else {}))
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = int(rng.integers(0, 256))
        data = bytes(damaged[: rng.integers(1, 2 * len(whole))])
        with contextlib.suppress(BadImageError):
            image_size(data, max_pixels=1_000_000)
        try:
            assert decode_image(data, max_pixels=1_000_000).mode == "RGB"
            outcomes.add("ok")
        except BadImageError as error:
            outcomes.add(error.reason)
    assert len(outcomes) > 1


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (2**31 - 1, 1), (30_000, 2_000)])
def test_a_decompression_bomb_is_refused_by_its_header(width, height):
    bomb = _png_claiming(width, height)
    tracemalloc.start()
    assert _reason(bomb) == "too_many_pixels"
    with pytest.raises(BadImageError, match="too_many_pixels"):
        image_size(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_max_pixels_is_a_limit_that_is_allowed():
    data = _encode(Image.fromarray(_noise(40, 20)), "PNG")
    assert decode_image(data, max_pixels=800).size == (20, 40)
    assert _reason(data, max_pixels=799) == "too_many_pixels"


def test_cmyk_becomes_the_colours_it_stands_for():
    rgb = Image.new("RGB", (16, 32), (200, 30, 60))
    cmyk = decode_image(_encode(rgb.convert("CMYK"), "JPEG", quality=95))
    assert cmyk.mode == "RGB"
    assert np.abs(np.asarray(cmyk, int) - (200, 30, 60)).max() < 12


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0)])
def test_floats_are_the_picture_that_they_are_meant_to_be(low, high):
    ramp = np.linspace(low, high, 256, dtype=np.float32).reshape(1, 256).repeat(8, axis=0)
    ramp[0, 0] = np.nan
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "TIFF")
    pixels = np.asarray(decode_image(buffer.getvalue()))
    assert pixels[4, :, 1].tolist() == list(range(256))
    assert pixels[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256).repeat(8, axis=0)
    grey = np.asarray(decode_image(_encode(Image.fromarray(ramp), kind)))
    assert grey.shape == (8, 256, 3)
    assert np.abs(grey[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_palettes_and_transparency_become_rgb():
    pixels = Image.fromarray(_noise())
    palette = pixels.quantize(16)
    assert np.array_equal(np.asarray(decode_image(_encode(palette, "PNG"))), np.asarray(palette.convert("RGB")))
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.array_equal(np.asarray(decode_image(_encode(clear, "PNG"))), np.full((4, 4, 3), 255, np.uint8))
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert np.abs(np.asarray(decode_image(_encode(half, "PNG")), int) - (255, 127, 127)).max() <= 1
    assert np.array_equal(np.asarray(decode_image(_encode(Image.new("1", (4, 4), 1), "PNG"))), np.full((4, 4, 3), 255, np.uint8))
    assert np.asarray(decode_image(_encode(Image.new("LA", (4, 4), (0, 0)), "PNG"))).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    """The stored picture is the upright one transformed by the inverse of its orientation tag."""
    upright = Image.new("RGB", (24, 48))
    upright.paste((255, 0, 0), (0, 0, 24, 16))  # head
    upright.paste((0, 0, 255), (0, 32, 12, 48))  # left foot
    undo = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(stored, "JPEG", exif=exif, quality=100, subsampling=0)
    decoded = decode_image(data)
    assert decoded.size == image_size(data) == (24, 48)
    assert np.abs(np.asarray(decoded, int) - np.asarray(upright, int)).mean() < 8


def test_odd_but_valid_files_are_read():
    assert decode_image(_encode(Image.new("L", (1, 1), 7), "PNG")).getpixel((0, 0)) == (7, 7, 7)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    animated = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(animated).getpixel((0, 0)) == (255, 0, 0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode_image(_encode(Image.fromarray(_noise()), "JPEG", icc_profile=profile)).size == (20, 40)
    lab = Image.new("LAB", (4, 4), (255, 128, 128))
    assert decode_image(_encode(lab, "TIFF")).mode == "RGB"
    floating = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert decode_image(_encode(floating, "TIFF")).mode == "RGB"


def test_encode_jpeg_is_read_back():
    picture = Image.fromarray(np.full((32, 16, 3), (10, 200, 90), np.uint8))
    assert np.abs(np.asarray(decode_image(encode_jpeg(picture)), int) - (10, 200, 90)).max() < 8


@pytest.mark.slow
def test_the_size_of_a_png_costs_no_decoding():
    """Pillow's own getexif of a PNG decodes it."""
    data = _encode(Image.new("RGB", (4000, 4000)), "PNG")
    tracemalloc.start()
    assert image_size(data) == (4000, 4000)
    assert image_size(data[: len(data) // 2]) == (4000, 4000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


LEFT_RED = Image.new("RGB", (800, 1600), (0, 0, 255))
LEFT_RED.paste((255, 0, 0), (0, 0, 400, 1600))


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 95}),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("BMP", "RGB", {}),
    ],
)
def test_a_picture_is_shrunk_to_what_is_kept_of_it_and_looks_the_same(kind, mode, options):
    data = _encode(LEFT_RED.convert(mode), kind, **options)
    whole, small = decode_image(data), decode_shrunk(data, max_pixels=10_000_000, keep_pixels=20_000)
    assert whole.size == (800, 1600)
    assert small.size == (100, 200)
    assert np.abs(np.asarray(small, int) - np.asarray(whole.resize((100, 200), Image.Resampling.BOX), int)).mean() < 6
    assert decode_shrunk(data, max_pixels=10_000_000, keep_pixels=2_000_000).tobytes() == whole.tobytes()


def test_a_shrunk_picture_is_upright_and_what_is_no_picture_has_its_reason_all_the_same():
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = _encode(LEFT_RED, "JPEG", exif=exif, quality=95)
    small = decode_shrunk(sideways, max_pixels=10_000_000, keep_pixels=20_000)
    assert small.size == (200, 100)
    assert small.getpixel((100, 10))[0] > 200 > 50 > small.getpixel((100, 10))[2]  # what was left is above
    for data, reason in [
        (sideways[: len(sideways) // 2], "truncated"),
        (_png_claiming(5000, 5000), "too_many_pixels"),
        (b"no picture", "not_an_image"),
        (b"", "empty"),
    ]:
        with pytest.raises(BadImageError) as error:
            decode_shrunk(data, max_pixels=10_000_000, keep_pixels=20_000)
        assert error.value.reason == reason
