"""A batch of label maps on which body parts are painted as row spans, for a whole batch of people at once.

Knows shapes and how body units map to pixels; not what a shape means. A shape is, for every pixel row, a left and a right edge:
one integer comparison per pixel decides, which is what makes thousands of crops a second possible in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Number: TypeAlias = float | np.ndarray


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
        self._frame, self._height, self._width = frame, height, width
        self._x_W = np.arange(width, dtype=np.int16)
        rows_H = np.arange(height, dtype=np.float32) + 0.5
        self.y_NH = ((rows_H - frame.top_N[:, None]) / frame.scale_y_N[:, None]).astype(np.float32)

    def limb(self, part: int, y: tuple[Number, Number], x: tuple[Number, Number], half: tuple[Number, Number], when: Number = 1) -> None:
        """A trapezoid from row y[0] (centre x[0], half width half[0]) to row y[1], on the pictures where `when` is true."""
        y0, y1, x0, x1, half0, half1 = (self._column(value) for value in (*y, *x, *half))
        rows = self._rows(y0, y1)
        if rows is None:
            return
        along_NH = (self.y_NH[:, rows] - y0) / (y1 - y0)
        inside_NH = (along_NH >= 0) & (along_NH < 1) & (self._column(when) > 0)
        self._fill(part, rows, x0 + (x1 - x0) * along_NH, np.where(inside_NH, half0 + (half1 - half0) * along_NH, -1))

    def ellipse(  # noqa: PLR0917 - a shape reads best as plain geometry
        self,
        part: int,
        y: Number,
        x: Number,
        half_y: Number,
        half_x: Number,
        when: Number = 1,
        *,
        clip: tuple[Number, Number] = (-1, 1),
    ) -> None:
        """An ellipse about (x, y); `clip` keeps the rows between clip[0] and clip[1] in units of half_y about y."""
        y, x, half_y, half_x, top, bottom = (self._column(value) for value in (y, x, half_y, half_x, *clip))
        rows = self._rows(y + top * half_y, y + bottom * half_y)
        if rows is None:
            return
        across_NH = (self.y_NH[:, rows] - y) / half_y
        inside_NH = (across_NH >= top) & (across_NH <= bottom) & (np.abs(across_NH) < 1) & (self._column(when) > 0)
        half_NH = half_x * np.sqrt(np.maximum(1 - across_NH * across_NH, 0))
        self._fill(part, rows, x, np.where(inside_NH, half_NH, -1))

    def repaint(self, sources: tuple[int, ...], part: int, rows_NH: np.ndarray, columns_NW: np.ndarray, on_N: np.ndarray) -> None:
        """Turn `sources` into `part` where the row or the column is marked: stripes and checks follow the cloth they lie on."""
        if not len(on_N):
            return
        label_NHW = self.label_NHW[on_N]
        cloth_NHW = np.isin(label_NHW, sources) if len(sources) > 2 else (label_NHW == sources[0]) | (label_NHW == sources[-1])
        cloth_NHW &= rows_NH[on_N][:, :, None] | columns_NW[on_N][:, None, :]
        np.copyto(label_NHW, np.uint8(part), where=cloth_NHW)
        self.label_NHW[on_N] = label_NHW

    def columns(self, period: float, share: float) -> np.ndarray:
        """Bool [N, width]: vertical bands of `period` body units, the first `share` of each marked."""
        frame = self._frame
        x_NW = (np.arange(self._width) + 0.5 - frame.left_N[:, None]) / frame.scale_x_N[:, None]
        return np.mod(x_NW, period) < period * share

    def bands(self, period: float, share: float) -> np.ndarray:
        """Bool [N, height]: horizontal bands, likewise."""
        return np.mod(self.y_NH, period) < period * share

    def _column(self, value: Number) -> np.ndarray:
        return np.asarray(value, dtype=np.float32).reshape(-1, 1)

    def _rows(self, top_N1: np.ndarray, bottom_N1: np.ndarray) -> slice | None:
        scale_N1, offset_N1 = self._frame.scale_y_N[:, None], self._frame.top_N[:, None]
        low = max(int(np.floor((offset_N1 + scale_N1 * top_N1).min())), 0)
        high = min(int(np.ceil((offset_N1 + scale_N1 * bottom_N1).max())) + 1, self._height)
        return slice(low, high) if low < high else None

    def _fill(self, part: int, rows: slice, x_NH: np.ndarray, half_NH: np.ndarray) -> None:
        frame = self._frame
        centre_NH = frame.left_N[:, None] + frame.facing_N[:, None] * frame.scale_x_N[:, None] * x_NH
        reach_NH = frame.scale_x_N[:, None] * half_NH
        shown_NH = half_NH > 0
        left_NH = np.where(shown_NH, np.clip(np.rint(centre_NH - reach_NH), 0, self._width), self._width).astype(np.int16)
        right_NH = np.where(shown_NH, np.clip(np.rint(centre_NH + reach_NH), 0, self._width), 0).astype(np.int16)
        on_N = np.flatnonzero(shown_NH.any(axis=1))
        if not len(on_N):
            return
        columns = slice(int(left_NH.min()), int(right_NH.max()))
        if columns.start >= columns.stop:
            return
        x_W = self._x_W[columns]
        if len(on_N) > 0.7 * len(left_NH):
            inside = (x_W >= left_NH[:, :, None]) & (x_W < right_NH[:, :, None])
            np.copyto(self.label_NHW[:, rows, columns], np.uint8(part), where=inside)
        else:  # few pictures have this part (a hat, a skirt): only they are touched
            inside = (x_W >= left_NH[on_N, :, None]) & (x_W < right_NH[on_N, :, None])
            patch = self.label_NHW[on_N, rows, columns]
            np.copyto(patch, np.uint8(part), where=inside)
            self.label_NHW[on_N, rows, columns] = patch
