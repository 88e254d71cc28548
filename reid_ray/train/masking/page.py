"""HTML page of noise levels: each word of each caption coloured by its level. Knows the NOISE table; not how it came to be.

    python -m reid_ray.train.masking.page runs/clip/noise noise.html

The page is the template noise.html.jinja of reid_ray.pages. A word's colour is its level relative to its own caption's mean, which is what
masking goes by; the number stands beside it on hover.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reid_ray.errors import DataError
from reid_ray.pages import render
from reid_ray.storage import iter_table, write_bytes
from reid_ray.train.masking.noise_export import NOISE

# Levels this far from the caption's mean have the full colour; masking probabilities move by the same amount.
_FULL = 0.3


class Word(NamedTuple):
    """A word of the page: what is said on hover, and "red, green, blue, strength" or None beyond the model's context."""

    text: str
    title: str
    colour: str | None


class CaptionLine(NamedTuple):
    """A caption of the page: the mean level of its words, and these."""

    mean: float
    words: tuple[Word, ...]


def write_noise_page(table: str | Path, page: str | Path, *, captions: int = 500) -> int:
    """Write `page` (HTML) from the NOISE table at `table`: its first captions, those with the noisiest word first.

    Returns:
        How many captions are on it.

    Raises:
        DataError: the table is missing or holds no caption.
    """
    rows = _first(table, captions)
    if not rows:
        raise DataError(f"{table}: holds no caption with noise levels; train for at least one step with masking first")
    rows.sort(key=lambda row: -max(_relative(row["word_noise"]), default=0.0))
    write_bytes(page, noise_page(rows).encode())
    return len(rows)


def noise_page(rows: Sequence[dict[str, Any]]) -> str:
    """The page of `rows`, dicts with words and word_noise."""
    scale = [_coloured(f"{level:+.1f}", level, f"{level:+.1f}") for level in (-_FULL, -_FULL / 2, 0.0, _FULL / 2, _FULL)]
    return render("noise", title="Noise of words", scale=scale, captions=[_caption(row) for row in rows])


def _caption(row: dict[str, Any]) -> CaptionLine:
    known = [level for level in row["word_noise"] if level is not None]
    mean = sum(known) / len(known) if known else 0.0
    words = tuple(
        Word(word, "beyond the model's context", None)
        if level is None
        else _coloured(word, level - mean, f"{level:.2f} ({level - mean:+.2f})")
        for word, level in zip(row["words"], row["word_noise"], strict=True)
    )
    return CaptionLine(mean, words)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: TABLE PAGE [--captions N]."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="Parquet file or folder in the NOISE schema")
    parser.add_argument("page", help="HTML file to write")
    parser.add_argument("--captions", type=int, default=500, help="captions on the page at most")
    arguments = parser.parse_args(argv)
    try:
        count = write_noise_page(arguments.table, arguments.page, captions=arguments.captions)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{count} captions -> {arguments.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
