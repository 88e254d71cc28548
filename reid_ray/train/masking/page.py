"""A page that colours each word of each caption by how noisy training found it. Knows the NOISE table; not how it came to be.

    python -m reid_ray.train.masking.page runs/clip/noise noise.html

One file without scripts or outside resources. A word's colour is its level relative to its own caption's mean, which is what
masking goes by; the number stands beside it on hover.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.storage import iter_table, write_bytes
from reid_ray.train.masking.noise_export import NOISE

# Levels this far from the caption's mean have the full colour; masking probabilities move by the same amount.
_FULL = 0.3
_STYLE = """
body { font: 16px/1.7 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.4rem; } p.caption { margin: .4rem 0; } span { padding: .1rem .2rem; border-radius: .2rem; }
small { color: #666; margin-right: .5rem; font-variant-numeric: tabular-nums; } .unknown { color: #999; }
"""


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
    write_bytes(page, render(rows).encode())
    return len(rows)


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The page of `rows`, dicts with words and word_noise."""
    scale = " ".join(_word(f"{level:+.1f}", level, f"{level:+.1f}") for level in (-_FULL, -_FULL / 2, 0.0, _FULL / 2, _FULL))
    lines = "\n".join(_caption(row) for row in rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Noise of words</title><style>{_STYLE}</style></head>\n'
        "<body>\n<h1>Noise of words</h1>\n"
        f"<p>{len(rows)} captions. The number before a caption is its mean level E; a word's colour is its level minus E: {scale}. "
        "Red words are what no part of the picture shows, and are masked more often.</p>\n"
        f"{lines}\n</body></html>\n"
    )


def _caption(row: dict[str, Any]) -> str:
    known = [level for level in row["word_noise"] if level is not None]
    mean = sum(known) / len(known) if known else 0.0
    words = " ".join(
        f'<span class="unknown" title="beyond the model\'s context">{html.escape(word)}</span>'
        if level is None
        else _word(word, level - mean, f"{level:.2f} ({level - mean:+.2f})")
        for word, level in zip(row["words"], row["word_noise"], strict=True)
    )
    return f'<p class="caption"><small>{mean:.2f}</small>{words}</p>'


def _word(word: str, relative: float, title: str) -> str:
    strength = min(1.0, abs(relative) / _FULL)
    red, green, blue = (208, 60, 60) if relative > 0 else (60, 140, 190)
    return f'<span title="{html.escape(title)}" style="background: rgba({red}, {green}, {blue}, {strength:.2f})">{html.escape(word)}</span>'


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
