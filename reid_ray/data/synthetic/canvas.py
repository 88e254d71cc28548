"""Batch rasteriser: label maps on which body parts are painted as row spans, for a whole batch of people at once.

Knows shapes and how body units map to pixels; not what a shape means. A shape is, for every pixel row, a left and a right edge:
one integer comparison per pixel decides, which is what makes thousands of crops a second possible in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Number: TypeAlias = float | np.ndarray
_CLOTH_ROWS = (24.0, 90.0)  # no upper garment reaches beyond these body units


@dataclass(frozen=True)
class Frame:
    """Where the body stands on each picture: pixel = offset + scale * body unit; `facing_N` is 1 or -1 and mirrors x.

    Body units: x 0 is the body's axis, y 0 the picture's top and 128 its bottom at scale 1.
    """

    left_N: np.ndarray
    top_N: np.ndarray
    scale_x_N: np.ndarray
    scale_y_N: np.ndarray
    facing_N: np.ndarray


class Canvas:
    """uint8 label maps [N, height, width]; label 0 is nothing. Later shapes cover earlier ones."""

    def __init__(self, frame: Frame, height: int, width: int) -> None:
        self.label_NHW = np.zeros((len(frame.left_N), height, width), dtype=np.uint8)
        self._height, self._width = height, width
        self._x_W = np.arange(width, dtype=np.int16)
        self._left_N1, self._top_N1 = _column(frame.left_N), _column(frame.top_N)
        self._scale_y_N1, self._reach_N1 = _column(frame.scale_y_N), _column(frame.scale_x_N)
        self._aside_N1 = _column(frame.scale_x_N * frame.facing_N)
        self.y_NH = (np.arange(height, dtype=np.float32) + np.float32(0.5) - self._top_N1) / self._scale_y_N1

    def limb(self, part: int, y: tuple[Number, Number], x: tuple[Number, Number], half: tuple[Number, Number], when: Number = True) -> None:
        """A trapezoid from row y[0] (centre x[0], half width half[0]) to row y[1], on the pictures where `when` is true."""
        on = self._chosen(when)
        if on is None:
            return
        y0, y1, x0, x1, half0, half1 = (_column(value, on) for value in (*y, *x, *half))
        rows = self._rows(on, y0, y1)
        if rows is None:
            return
        along_NH = (self.y_NH[on, rows] - y0) / (y1 - y0)
        half_NH = half0 + (half1 - half0) * along_NH
        half_NH[(along_NH < 0) | (along_NH >= 1)] = -1
        self._fill(part, on, rows, x0 + (x1 - x0) * along_NH, half_NH)

    def ellipse(  # noqa: PLR0917 - a shape reads best as plain geometry
        self,
        part: int,
        y: Number,
        x: Number,
        half_y: Number,
        half_x: Number,
        when: Number = True,
        *,
        clip: tuple[Number, Number] = (-1, 1),
    ) -> None:
        """An ellipse about (x, y); `clip` keeps the rows between clip[0] and clip[1] in units of half_y about y."""
        on = self._chosen(when)
        if on is None:
            return
        y, x, half_y, half_x, top, bottom = (_column(value, on) for value in (y, x, half_y, half_x, *clip))
        rows = self._rows(on, y + top * half_y, y + bottom * half_y)
        if rows is None:
            return
        across_NH = (self.y_NH[on, rows] - y) / half_y
        half_NH = half_x * np.sqrt(np.maximum(1 - across_NH * across_NH, 0))
        half_NH[(across_NH < top) | (across_NH > bottom)] = -1
        self._fill(part, on, rows, x, half_NH)

    def repaint(self, sources: tuple[int, int], part: int, rows_NH: np.ndarray, columns_NW: np.ndarray | None, on_N: np.ndarray) -> None:
        """Turn `sources` into `part` where the row or the column is marked: stripes and checks follow the cloth they lie on."""
        rows = self._rows(on_N, _column(_CLOTH_ROWS[0]), _column(_CLOTH_ROWS[1])) if len(on_N) else None
        if rows is None:
            return
        label_NHW = self.label_NHW[on_N, rows]
        cloth_NHW = (label_NHW == sources[0]) | (label_NHW == sources[1])
        marked_NHW = rows_NH[on_N, rows][:, :, None]
        if columns_NW is not None:
            marked_NHW = marked_NHW | columns_NW[on_N][:, None, :]
        np.copyto(label_NHW, np.uint8(part), where=cloth_NHW & marked_NHW)
        self.label_NHW[on_N, rows] = label_NHW

    def columns(self, period: float, share: float) -> np.ndarray:
        """Bool [N, width]: vertical bands of `period` body units, the first `share` of each marked."""
        return np.mod((self._x_W + np.float32(0.5) - self._left_N1) / self._reach_N1, period) < period * share

    def bands(self, period: float, share: float) -> np.ndarray:
        """Bool [N, height]: horizontal bands, likewise."""
        return np.mod(self.y_NH, period) < period * share

    def _chosen(self, when: Number) -> slice | np.ndarray | None:
        """The pictures a shape is on: all of them, some, or None. Few have a hat or a skirt, and only they are touched."""
        if isinstance(when, np.ndarray):
            on_N = np.flatnonzero(when)
            if len(on_N) < len(when):
                return on_N if len(on_N) else None
        return slice(None)

    def _rows(self, on: slice | np.ndarray, top_N1: np.ndarray, bottom_N1: np.ndarray) -> slice | None:
        scale_N1, offset_N1 = self._scale_y_N1[on], self._top_N1[on]
        low = max(int((offset_N1 + scale_N1 * top_N1).min()), 0)
        high = min(int((offset_N1 + scale_N1 * bottom_N1).max()) + 2, self._height)
        return slice(low, high) if low < high else None

    def _fill(self, part: int, on: slice | np.ndarray, rows: slice, x_NH: np.ndarray, half_NH: np.ndarray) -> None:
        """Paint the pixels within half_NH of x_NH; a negative half width is an empty row."""
        centre_NH, reach_NH = self._left_N1[on] + self._aside_N1[on] * x_NH, self._reach_N1[on] * half_NH
        left_NH, right_NH = np.rint(centre_NH - reach_NH).astype(np.int16), np.rint(centre_NH + reach_NH).astype(np.int16)
        columns = slice(max(int(left_NH.min()), 0), min(max(int(right_NH.max()), 0), self._width))
        if columns.start >= columns.stop:
            return
        # One unsigned comparison instead of two: x - left wraps to a huge number left of the edge. And one masked exchange of bits
        # instead of a masked copy. Both are several times faster in numpy, and this is where drawing spends its time.
        from_left_NHW = self._x_W[columns].view(np.uint16) - left_NH.view(np.uint16)[:, :, None]
        inside_NHW = from_left_NHW < np.maximum(right_NH - left_NH, 0).view(np.uint16)[:, :, None]
        patch = self.label_NHW[on, rows, columns]
        patch ^= (patch ^ np.uint8(part)) & np.negative(inside_NHW.view(np.int8)).view(np.uint8)
        if not isinstance(on, slice):  # then the patch is a copy, else a view
            self.label_NHW[on, rows, columns] = patch


def _column(value: Number, on: slice | np.ndarray = slice(None)) -> np.ndarray:
    """float32 [N, 1] of the chosen pictures, or [1, 1] of a number that holds for all."""
    if isinstance(value, np.ndarray) and value.ndim:
        return value[on].astype(np.float32).reshape(-1, 1)
    return np.full((1, 1), value, dtype=np.float32)
