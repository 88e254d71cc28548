"""A folder of image files as they come: odd ones that are fine, and thirty ways in which one is not. Knows what each must come to."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from reid_ray.data.pieces import MAX_FILE_BYTES


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def odd_but_fine(person: Image.Image) -> dict[str, bytes]:
    """Files that a careless reader stumbles over."""
    jpeg, png = encoded(person, "JPEG"), encoded(person, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray((np.asarray(person.convert("L")).astype(np.uint16)) * 257)
    return {
        "bilevel.png": encoded(person.convert("1"), "PNG"),
        "bitmap.bmp": encoded(person, "BMP"),
        "cmyk.jpg": encoded(person.convert("CMYK"), "JPEG"),
        "frames.gif": encoded(person, "GIF", save_all=True, append_images=[person.rotate(180)]),
        "grey16.png": encoded(grey16, "PNG"),
        "pages.tif": encoded(person, "TIFF", save_all=True, append_images=[person]),
        "palette.png": encoded(person.quantize(64), "PNG"),
        "png_named.jpg": png,
        "progressive.jpg": encoded(person, "JPEG", progressive=True),
        "rotated.jpeg": encoded(person.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif),
        "SHOUTING.JPG": jpeg,
        "tail.jpg": jpeg + b"\0" * 500,
        "transparent.png": encoded(person.convert("RGBA"), "PNG"),
        "web.webp": encoded(person, "WEBP"),
        "ünïcode name.png": png,
    }


def broken(person: Image.Image) -> dict[str, tuple[str, bytes]]:
    """Name -> (reason code, content) of files that give no caption, and why."""
    jpeg, png = encoded(person, "JPEG"), encoded(person, "PNG")
    gif, tiff, webp, bmp = (encoded(person, kind) for kind in ("GIF", "TIFF", "WEBP", "BMP"))
    at = png.index(b"IDAT")
    return {
        "archive.jpg": ("not_an_image", _zip()),
        "bomb.png": ("too_many_pixels", _png_header(100_000, 100_000)),
        "bomb.gif": ("too_many_pixels", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + gif[10:]),
        "byte.jpg": ("not_an_image", b"\xff"),
        "checksum.png": ("unreadable", png[: at + 40] + b"\xff\x00\xff\x00" + png[at + 44 :]),
        "empty.jpg": ("empty", b""),
        "eps.jpg": ("not_an_image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "flat.png": ("not_an_image", _png_header(0, 40)),
        "half.bmp": ("truncated", bmp[: len(bmp) // 2]),
        "half.gif": ("truncated", gif[: len(gif) // 2]),
        "half.png": ("truncated", png[: len(png) // 2]),
        "half.tif": ("truncated", tiff[: len(tiff) // 2]),
        "half.webp": ("unreadable", webp[: len(webp) // 2]),
        "header_only.jpg": ("not_an_image", jpeg[:20]),
        "header_only.png": ("not_an_image", png[:40]),
        "lfs_pointer.jpg": ("not_an_image", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "login_page.jpg": ("not_an_image", b"<!DOCTYPE html><html><title>Sign in</title></html>"),
        "no_pixels.png": ("unreadable", png[: at - 4] + _chunk(b"IEND", b"")),
        "noise.jpg": ("not_an_image", np.random.default_rng(0).bytes(5000)),
        "paper.jpg": ("not_an_image", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"),
        "shifted.jpg": ("not_an_image", jpeg[1:]),
        "text.jpg": ("not_an_image", b"this is a text file"),
        "thread.png": ("rejected", encoded(Image.new("RGB", (2, 900), "red"), "PNG")),  # the model's processor refuses this shape
        "truncated.jpg": ("truncated", jpeg[:700]),
        "vector.png": ("not_an_image", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        "zeros.jpg": ("not_an_image", bytes(4096)),
    }


def seed(folder: Path, person: Image.Image) -> dict[str, str]:
    """Write all of them into a folder; returns image id -> ok or the reason code. Some are no regular files at all."""
    files = {name: ("ok", data) for name, data in odd_but_fine(person).items()} | broken(person)
    for name, (_, data) in files.items():
        (folder / name).write_bytes(data)
    expected = {name: outcome for name, (outcome, _) in files.items()}
    (folder / "linked.jpg").symlink_to("SHOUTING.JPG")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.png")
    with (folder / "huge.tif").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    expected |= {"linked.jpg": "ok", "dangling.jpg": "missing", "loop.jpg": "unreadable_file", "pipe.png": "unreadable_file"}
    expected["huge.tif"] = "too_many_bytes"
    # Not image files by name, so not listed: no row, no failure.
    (folder / "notes.txt").write_text("taken on Monday")
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "folder.jpg").mkdir()
    return expected


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_header(width: int, height: int) -> bytes:
    """A PNG of a few dozen bytes whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"IEND", b"")


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return buffer.getvalue()
