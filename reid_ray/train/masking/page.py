"""HTML page of noise levels: each caption beside its picture, each word coloured by its level. Knows the NOISE table, not its origin.

The page is the template noise.html.jinja of reid_ray.pages. A word's colour is its level relative to its own caption's mean, which is what
masking goes by; the number stands beside it on hover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reid_ray.data.images import BadImageError, decode_image, jpeg_thumbnail
from reid_ray.errors import DataError
from reid_ray.pages import jpeg_url, render
from reid_ray.storage import iter_table, write_bytes
from reid_ray.train.masking.noise_export import NOISE

# Levels this far from the caption's mean have the full colour; masking probabilities move by the same amount.
_FULL = 0.3
_WIDTH, _HEIGHT = 64, 128

PicturesOf = Callable[[Sequence[dict[str, Any]]], Mapping[int, bytes]]
"""NOISE rows -> the encoded picture of each, by its `row`; one whose picture is not known is absent."""


class Word(NamedTuple):
    """A word of the page: what is said on hover, and "red, green, blue, strength" or None beyond the model's context."""

    text: str
    title: str
    colour: str | None


class CaptionLine(NamedTuple):
    """A caption of the page: its picture as a data: URL, if that is known, the mean level of its words, and these."""

    picture: str | None
    mean: float
    words: tuple[Word, ...]


def write_noise_page(table: str | Path, page: str | Path, *, pictures: PicturesOf, captions: int = 500) -> int:
    """Write `page` (HTML) from the NOISE table at `table`: its first captions, those with the noisiest word first.

    Args:
        table: Parquet file or folder.
        page: the file.
        pictures: finds the pictures.
        captions: on the page at most.

    Returns:
        How many captions are on it.

    Raises:
        DataError: the table is missing or holds no caption.
    """
    rows = _first(table, captions)
    if not rows:
        raise DataError(f"{table}: holds no caption with noise levels; train for at least one step with masking first")
    rows.sort(key=lambda row: -max(_relative(row["word_noise"]), default=0.0))
    write_bytes(page, noise_page(rows, pictures(rows)).encode())
    return len(rows)


def noise_page(rows: Sequence[dict[str, Any]], pictures: Mapping[int, bytes]) -> str:
    """The page of `rows`, dicts with row, words and word_noise, and their encoded pictures by row."""
    scale = [_coloured(f"{level:+.1f}", level, f"{level:+.1f}") for level in (-_FULL, -_FULL / 2, 0.0, _FULL / 2, _FULL)]
    return render("noise", title="Noise of words", scale=scale, captions=[_caption(row, pictures) for row in rows])


def _caption(row: dict[str, Any], pictures: Mapping[int, bytes]) -> CaptionLine:
    known = [level for level in row["word_noise"] if level is not None]
    mean = sum(known) / len(known) if known else 0.0
    words = tuple(
        Word(word, "beyond the model's context", None)
        if level is None
        else _coloured(word, level - mean, f"{level:.2f} ({level - mean:+.2f})")
        for word, level in zip(row["words"], row["word_noise"], strict=True)
    )
    return CaptionLine(_thumbnail(pictures.get(row["row"])), mean, words)


def _thumbnail(data: bytes | None) -> str | None:
    try:
        return None if data is None else jpeg_url(jpeg_thumbnail(decode_image(data), width=_WIDTH, height=_HEIGHT))
    except BadImageError:
        return None  # training has counted it


def _coloured(word: str, relative: float, title: str) -> Word:
    red, green, blue = (208, 60, 60) if relative > 0 else (60, 140, 190)
    return Word(word, title, f"{red}, {green}, {blue}, {min(1.0, abs(relative) / _FULL):.2f}")


def _relative(levels: Sequence[float | None]) -> Iterator[float]:
    known = [level for level in levels if level is not None]
    return (level - sum(known) / len(known) for level in known)


def _first(table: str | Path, captions: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for piece in iter_table(table, NOISE):
        rows += piece.slice(0, captions - len(rows)).to_pylist()
        if len(rows) >= captions:
            break
    return rows
