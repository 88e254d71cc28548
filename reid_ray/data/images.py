"""One encoded image -> one RGB picture, or a reason why not.

Knows Pillow and its traps; not tables, folders or models. The header is checked before a single pixel is decoded, so a
decompression bomb costs nothing.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

DEFAULT_MAX_PIXELS = 50_000_000


class BadImageError(Exception):
    """An image that cannot be used. `reason` is a short code to count by, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def decode_image(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode a JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF file into an upright 8-bit RGB picture.

    EXIF rotation is applied, 16-bit grey is scaled (not clipped), CMYK and palettes are converted, transparency is laid on white.

    Raises:
        BadImageError: reason is empty, not_an_image, too_many_pixels, truncated or unreadable.
    """
    picture = open_checked(data, max_pixels=max_pixels)
    load_pixels(picture)
    return _to_rgb(ImageOps.exif_transpose(picture))


def image_size(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """(width, height) in pixels of an upright picture, from the header alone.

    Raises:
        BadImageError: reason is empty, not_an_image or too_many_pixels.
    """
    return upright_size(open_checked(data, max_pixels=max_pixels))


def verify_image(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of an upright picture whose every byte was decoded: as image_size, but finds truncated files too.

    A JPEG is decoded at an eighth of its size: the whole stream is parsed, but most pixels are never made.

    Raises:
        BadImageError: reason is empty, not_an_image, too_many_pixels, truncated or unreadable.
    """
    picture = open_checked(data, max_pixels=max_pixels)
    size = upright_size(picture)
    picture.draft("L", (1, 1))
    load_pixels(picture)
    return size


def open_checked(data: bytes | None, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """A picture whose header was read and found small enough; no pixel is decoded yet.

    Raises:
        BadImageError: reason is missing, empty, not_an_image or too_many_pixels.
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
    turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def load_pixels(picture: Image.Image) -> None:
    """Decode an opened picture in place.

    Raises:
        BadImageError: reason is truncated or unreadable.
    """
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise BadImageError(reason, str(error)) from None


def encode_jpeg(picture: Image.Image, *, quality: int = 90) -> bytes:
    """JPEG bytes of an RGB picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    # Pillow's own warning about large pictures may be printed; silencing it here would not be thread-safe, and max_pixels decides.
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise BadImageError("not_an_image", f"no image format recognises these {len(data)} bytes") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError("too_many_pixels", str(error)) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadImageError("unreadable", str(error)) from None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.clip(grey / 257.0, 0, 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")
