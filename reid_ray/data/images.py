"""Image decoding and validation: one encoded image -> one RGB picture, or a reason why not.

Knows Pillow and its traps; not tables, folders or models. The header is checked before a single pixel is decoded, so a
decompression bomb costs nothing.
"""

from __future__ import annotations

import io
import math
import posixpath
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from reid_ray.errors import plain_reason

# Files of other names (notes, archives, labels) are no images.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
DEFAULT_MAX_PIXELS = 50_000_000
# Pillow knows many more, some of which run other programs (EPS starts Ghostscript) on a file from anywhere. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# Reasons that lie in an image's bytes alone: the same bytes fail again.
DAMAGE = ("empty", "not_an_image", "too_many_pixels", "truncated", "unreadable")
# What Pillow raises on damaged files, found by fuzzing.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error)
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_LAYERED = ("RGBA", "LA", "PA")  # modes with transparency


class BadImageError(Exception):
    """An image that cannot be used. `reason` is a short code to count by, `detail` says more: never data, the same in every run."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, plain_reason(detail)
        super().__init__(f"{reason}: {self.detail}")


def is_image_name(name: str) -> bool:
    """Whether a file's suffix, in any case, is one of an image."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def decode_image(
    data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS, unread: str | None = None, enough_side: int | None = None
) -> Image.Image:
    """Decode a JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF file into an upright 8-bit RGB picture.

    EXIF rotation is applied, 16-bit grey and floats from 0 to 1 are scaled (not clipped), CMYK and palettes are converted, transparency is
    laid on white.

    Args:
        data: the file's bytes.
        max_pixels: an image whose header claims more is not decoded.
        unread: why there are no bytes, as "reason: detail", where whoever tried to read them knows.
        enough_side: pixels that the longer side needs; a JPEG of twice, four or eight times as many is decoded at half, a quarter or an
            eighth of its size, from fewer coefficients of its cosine transform. None decodes it whole.

    Raises:
        BadImageError: reason is that of `unread`, missing (no bytes, and nobody says why), empty, not_an_image, too_many_pixels,
            truncated or unreadable.
    """
    if data is None and unread is not None:
        reason, _, detail = unread.partition(": ")
        raise BadImageError(reason, detail)
    picture = open_checked(data, max_pixels=max_pixels)
    turn = _TURNS.get(_orientation(picture))
    if enough_side is not None and max(picture.size) > enough_side:
        picture.draft(None, side_at_most(picture.size, enough_side))
    load_pixels(picture)
    try:
        return _to_rgb(picture if turn is None else picture.transpose(turn))
    except _DAMAGE as error:
        raise BadImageError("unreadable", str(error)) from None


def decode_shrunk(data: bytes | None, *, max_pixels: int, keep_pixels: int) -> Image.Image:
    """As decode_image, with at most about keep_pixels: for a picture of which a model sees a thousandth.

    A JPEG is shrunk while it is decoded, by 2, 4 or 8; what is still larger then, and every other format, right after and before it is
    converted, so that no step but the decoder's own has the picture whole. (A decoder holds up to 16 bytes a pixel: WebP's does.)

    Raises:
        BadImageError: as decode_image.
    """
    picture = open_checked(data, max_pixels=max_pixels)
    turn = _TURNS.get(_orientation(picture))
    width, height = picture.size
    scale = math.sqrt(keep_pixels / (width * height))
    if scale < 1:
        small = max(1, int(width * scale)), max(1, int(height * scale))
        picture.draft(None, small)
        load_pixels(picture)
        picture = _no_larger(picture, small)
    load_pixels(picture)
    try:
        return _to_rgb(picture if turn is None else picture.transpose(turn))
    except _DAMAGE as error:
        raise BadImageError("unreadable", str(error)) from None


def decode_with_alpha(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image | None:
    """A picture with its transparency, upright, 8-bit RGBA; None if it has none.

    Raises:
        BadImageError: as decode_image.
    """
    picture = open_checked(data, max_pixels=max_pixels)
    if picture.mode not in _LAYERED and "transparency" not in picture.info:
        return None
    turn = _TURNS.get(_orientation(picture))
    load_pixels(picture)
    try:
        return (picture if turn is None else picture.transpose(turn)).convert("RGBA")
    except _DAMAGE as error:
        raise BadImageError("unreadable", str(error)) from None


def image_size(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """(width, height) in pixels of an upright picture, from the header alone.

    Raises:
        BadImageError: reason is missing, empty, not_an_image, too_many_pixels or unreadable.
    """
    return upright_size(open_checked(data, max_pixels=max_pixels))


def verify_image(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of an upright picture whose every byte was decoded: as image_size, but finds truncated files too.

    A JPEG is decoded at an eighth of its size: the whole stream is parsed, but most pixels are never made.

    Raises:
        BadImageError: reason is missing, empty, not_an_image, too_many_pixels, truncated or unreadable.
    """
    picture = open_checked(data, max_pixels=max_pixels)
    size = upright_size(picture)
    picture.draft("L", (1, 1))
    load_pixels(picture)
    return size


def open_checked(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """A picture whose header was read and found small enough; no pixel is decoded yet.

    Raises:
        BadImageError: reason is missing, empty, not_an_image, too_many_pixels or unreadable.
    """
    if data is None:
        raise BadImageError("missing", "the file could not be read")
    if not data:
        raise BadImageError("empty", "the file has 0 bytes")
    picture = _open(data)
    width, height = picture.size
    if width * height > max_pixels:
        raise BadImageError("too_many_pixels", f"the header claims {width} x {height} pixels, more than {max_pixels}")
    return picture


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened picture once EXIF rotation is applied. Ask before a draft changes the size."""
    width, height = picture.size
    return (height, width) if _orientation(picture) in _SIDEWAYS else (width, height)


def side_at_most(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) in pixels, scaled to that longer side."""
    scale = longest / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def load_pixels(picture: Image.Image) -> None:
    """Decode an opened picture in place.

    Raises:
        BadImageError: reason is truncated or unreadable.
    """
    try:
        picture.load()
    except _DAMAGE as error:
        reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise BadImageError(reason, str(error)) from None


def encode_jpeg(picture: Image.Image, *, quality: int = 90) -> bytes:
    """JPEG bytes of an RGB picture: its pixels alone, nothing that the file said of place, time or people."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, comment=b"")  # else Pillow hands on the comment of the file it came from
    return buffer.getvalue()


def jpeg_thumbnail(picture: Image.Image, *, width: int, height: int) -> bytes:
    """JPEG bytes of an RGB picture, shrunk to at most width x height pixels, never enlarged; its pixels alone, as encode_jpeg."""
    small = picture.copy()
    small.thumbnail((width, height))
    return encode_jpeg(small, quality=85)


def _open(data: bytes) -> Image.Image:
    # Pillow's own warning about large pictures may be printed; silencing it here would not be thread-safe, and max_pixels decides.
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImageError("not_an_image", f"no known image format recognises these {len(data)} bytes") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError("too_many_pixels", str(error)) from None
    except _DAMAGE as error:
        raise BadImageError("unreadable", str(error)) from None


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where there is none or the metadata is damaged: the pixels may still be whole."""
    try:
        # The base class's method: that of a PNG would decode every pixel to look for a late chunk.
        return int(Image.Image.getexif(picture).get(_ORIENTATION_TAG, 1))
    except _DAMAGE:
        return 1


def _no_larger(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A decoded picture of at most `size`: averaged where Pillow can without a copy in another mode, else every so many pixels."""
    if picture.width <= size[0] and picture.height <= size[1]:
        return picture
    how = Image.Resampling.BOX if picture.mode in ("RGB", "L") else Image.Resampling.NEAREST
    return picture.resize(size, how)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.clip(grey / 257.0, 0, 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        grey = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=255.0, neginf=0.0)
        scale = 255.0 if 0 < grey.max() <= 1 else 1.0  # floats from 0 to 1 or from 0 to 255: the file does not say
        return Image.fromarray(np.clip(grey * scale, 0, 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in _LAYERED or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")
