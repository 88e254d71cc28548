"""Figures of a ranking: a contact sheet of queries with their hits, right and wrong marked, and CMC curves.

Knows pictures and scores; not tables or models. draw_sheet takes a list of SheetQuery, so a service's answers are drawn as easily as
an evaluation's.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reid_ray.data.images import BadImageError, decode_image
from reid_ray.storage import write_bytes

Picture: TypeAlias = Image.Image | bytes | None

RIGHT, WRONG, UNKNOWN = (30, 140, 60), (200, 40, 40), (150, 150, 150)
_INK, _FAINT, _PAPER, _BAND = (25, 28, 33), (105, 110, 120), (255, 255, 255), (244, 246, 249)
_PICTURE = (84, 168)  # width and height that a hit's picture fits into, pixels
_FRAME, _GAP, _MARGIN = 4, 10, 18
_QUERY_WIDTH = 250
_CAPTION = 34  # two lines under a picture
_HEADER = 46
_MOST_LINES = 10


@dataclass(frozen=True)
class SheetHit:
    """One ranked result. correct is None where the truth is unknown; a picture of None is drawn as a blank."""

    picture: Picture
    correct: bool | None
    camera_id: int | None
    score: float


@dataclass(frozen=True)
class SheetQuery:
    """A query, as text, picture or both, and its hits, best first."""

    text: str | None = None
    picture: Picture = None
    hits: Sequence[SheetHit] = field(default_factory=tuple)


def draw_sheet(queries: Sequence[SheetQuery], path: str | Path, *, title: str = "Queries and their ranked results") -> None:
    """Write the sheet as a PNG: a row per query, hits from left to right, green frames for right, red for wrong, grey for unknown."""
    write_bytes(path, _png(sheet_of(queries, title=title)))


def sheet_of(queries: Sequence[SheetQuery], *, title: str = "Queries and their ranked results") -> Image.Image:
    """The sheet as a picture."""
    columns = max((len(query.hits) for query in queries), default=0)
    cell_width, row_height = _PICTURE[0] + 2 * _FRAME + _GAP, _PICTURE[1] + 2 * _FRAME + _CAPTION + 2 * _GAP
    width = max(2 * _MARGIN + _QUERY_WIDTH + columns * cell_width, 720)
    sheet = Image.new("RGB", (width, _HEADER + max(1, len(queries)) * row_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, width, title)
    for number, query in enumerate(queries):
        top = _HEADER + number * row_height
        if number % 2 == 0:
            draw.rectangle((0, top, width, top + row_height - 1), fill=_BAND)
        _draw_query(sheet, draw, query, top + _GAP, row_height - 2 * _GAP)
        for place, hit in enumerate(query.hits):
            left = _MARGIN + _QUERY_WIDTH + place * cell_width
            _draw_hit(sheet, draw, hit, rank=place + 1, corner=(left, top + _GAP))
    return sheet


def draw_cmc(curves: Mapping[str, np.ndarray], path: str | Path, *, chance: float | None = None) -> None:
    """Write CMC curves (label -> share of queries with a match at rank k or better, k from 1) as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, cmc in curves.items():
        rank = np.arange(1, len(cmc) + 1)
        axes.plot(
            rank, 100 * np.asarray(cmc), marker="o" if len(cmc) <= 20 else None, markersize=4, linewidth=2, label=label, clip_on=False
        )
        axes.annotate(f"{100 * cmc[0]:.1f}", (1, 100 * cmc[0]), xytext=(6, -12), textcoords="offset points", fontsize=9)
    if chance is not None:
        axes.axhline(100 * chance, color="0.55", linewidth=1, linestyle="--", label=f"R@1 of a random ranking, {chance:.2%}")
    longest = max((len(cmc) for cmc in curves.values()), default=2)
    axes.set_xlim(1, max(2, longest))
    axes.set_ylim(0, 100)
    axes.set_xticks([k for k in (1, 5, 10, 15, 20, 30, 40, 50) if k <= longest])
    axes.set_xlabel("rank k")
    axes.set_ylabel("queries with a match among the first k, %")
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def wrap_text(text: str, *, width: int, most_lines: int, font: ImageFont.FreeTypeFont | None = None) -> list[str]:
    """Lines no wider than `width` pixels; words too long for a line are broken, and text beyond the last line ends in an ellipsis."""
    font = font or _font(14)
    lines: list[str] = []
    line = ""
    room = most_lines * width  # a pixel a letter: more could not be shown, and would take the square of its length to measure
    for word in _breakable(f"{text[:room]}{'…' * (len(text) > room)}".split(), width, font):
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
            continue
        lines.append(line)
        line = word
    lines = [kept for kept in [*lines, line] if kept]
    if len(lines) <= most_lines:
        return lines
    last = lines[most_lines - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: most_lines - 1], last.rstrip() + "…"]


def _breakable(words: Sequence[str], width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    parts = []
    for word in words:
        rest = word
        while font.getlength(rest) > width and len(rest) > 1:
            fit = len(rest)
            while fit > 1 and font.getlength(rest[:fit]) > width:
                fit = fit * 3 // 4 if fit > 8 else fit - 1
            parts.append(rest[:fit])
            rest = rest[fit:]
        parts.append(rest)
    return parts


def _draw_header(draw: ImageDraw.ImageDraw, width: int, title: str) -> None:
    draw.text((_MARGIN, 13), title, font=_font(17, bold=True), fill=_INK)
    right = width - _MARGIN
    for label, colour in (("truth unknown", UNKNOWN), ("other person", WRONG), ("same person", RIGHT)):
        right -= int(_font(12).getlength(label))
        draw.text((right, 17), label, font=_font(12), fill=_FAINT)
        right -= 20
        draw.rectangle((right, 17, right + 13, 30), outline=colour, width=3)
        right -= 16


def _draw_query(sheet: Image.Image, draw: ImageDraw.ImageDraw, query: SheetQuery, top: int, height: int) -> None:
    left, width = _MARGIN, _QUERY_WIDTH - 2 * _GAP
    if query.picture is not None:
        picture = _fit(query.picture)
        sheet.paste(picture, (left, top + _FRAME))
        left, width = left + picture.width + _GAP, width - picture.width - _GAP
    if query.text is not None:
        lines = wrap_text(query.text, width=width, most_lines=_MOST_LINES)
        line_height = 19
        start = top + max(0, (height - _CAPTION - line_height * len(lines)) // 2)
        for number, line in enumerate(lines):
            draw.text((left, start + number * line_height), line, font=_font(14), fill=_INK)


def _draw_hit(sheet: Image.Image, draw: ImageDraw.ImageDraw, hit: SheetHit, *, rank: int, corner: tuple[int, int]) -> None:
    left, top = corner
    colour = UNKNOWN if hit.correct is None else RIGHT if hit.correct else WRONG
    outer = (_PICTURE[0] + 2 * _FRAME, _PICTURE[1] + 2 * _FRAME)
    picture = _fit(hit.picture)
    box = (picture.width + 2 * _FRAME, picture.height + 2 * _FRAME)
    x, y = left + (outer[0] - box[0]) // 2, top + (outer[1] - box[1]) // 2
    draw.rectangle((x, y, x + box[0] - 1, y + box[1] - 1), fill=colour)
    sheet.paste(picture, (x + _FRAME, y + _FRAME))
    mark = "" if hit.correct is None else " ✓" if hit.correct else " ✗"  # not by colour alone
    centre, below = left + outer[0] // 2, top + outer[1] + 3
    draw.text((centre, below), f"{rank}{mark}  {hit.score:.3f}", font=_font(12, bold=True), fill=colour if mark else _INK, anchor="ma")
    camera = "camera ?" if hit.camera_id is None else f"camera {hit.camera_id}"
    draw.text((centre, below + 16), camera, font=_font(11), fill=_FAINT, anchor="ma")


def _fit(picture: Picture) -> Image.Image:
    """The picture, scaled to fit the cell; a blank one where there is none to show."""
    opened = _opened(picture)
    if opened is None:
        blank = Image.new("RGB", _PICTURE, (228, 230, 234))
        ImageDraw.Draw(blank).text((_PICTURE[0] // 2, _PICTURE[1] // 2), "no picture", font=_font(11), fill=_FAINT, anchor="mm")
        return blank
    scale = min(_PICTURE[0] / opened.width, _PICTURE[1] / opened.height)
    size = (max(1, round(opened.width * scale)), max(1, round(opened.height * scale)))
    return opened.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _opened(picture: Picture) -> Image.Image | None:
    if not isinstance(picture, bytes):
        return picture
    try:
        return decode_image(picture)
    except BadImageError:
        return None  # drawn as a blank


@lru_cache(maxsize=16)
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: the same letters on every machine, Latin, Greek and Cyrillic among them."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
