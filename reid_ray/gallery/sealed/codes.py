"""8-bit codes of a segment's vectors, and how far off they may be: an exact search reads a quarter of the bytes.

Scalar quantization as FAISS's QT_8bit has it, each component in equal steps over its own range in the segment; beside it stands the
greatest distance of any vector from what its code says, so that a search knows which vectors it need not look at. Knows one segment's
vectors; not items, files' places or queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numba
import numpy as np

STEPS = 127  # to either side of a component's middle
_ROWS_PER_BLOCK = 8_192
_LEAST_STEP = 1e-30  # of components that differ by less the code is 0


@dataclass(frozen=True)
class Codes:
    """A vector is middle_D + step_D * its code, but for at most `error`.

    code_ND: int8 [N, D], each within -STEPS and STEPS.
    middle_D, step_D: float32 [D].
    error: greatest length of a vector's difference from what its code says.
    """

    code_ND: np.ndarray
    middle_D: np.ndarray
    step_D: np.ndarray
    error: float

    @cached_property
    def wide_middle(self) -> np.ndarray:
        """middle_D as float64."""
        return self.middle_D.astype(np.float64)

    @cached_property
    def reach(self) -> np.ndarray:
        """How large middle and step by code become, together: float64 [D]."""
        return STEPS * self.step_D.astype(np.float64) + np.abs(self.wide_middle)

    def worst_error(self, start: int, vectors: np.ndarray) -> float:
        """The greatest length of a difference among some vectors, float32 or float16 [B, D], whose codes begin at a row."""
        vector_BD = np.ascontiguousarray(vectors, np.float32)
        return float(_worst_square(vector_BD, self.middle_D, self.step_D, self.code_ND[start : start + len(vector_BD)]) ** 0.5)

    @classmethod
    def read(cls, code_ND: np.ndarray, scale: np.ndarray) -> Codes:
        """As `encoded` gave them.

        Raises:
            ValueError: they do not belong together.
        """
        dim = code_ND.shape[-1]
        if code_ND.ndim != 2 or code_ND.dtype != np.int8 or scale.shape != (2 * dim + 1,) or not np.isfinite(scale).all():
            raise ValueError(f"codes {code_ND.dtype} {code_ND.shape} with a scale of {scale.shape}")
        return cls(code_ND, scale[:dim], scale[dim : 2 * dim], float(scale[-1]))


def write_codes(codes: Path, scale: Path, vectors: np.ndarray) -> None:
    """Write the codes of vectors, and middles, steps and error behind one another as float32 [2D + 1]; no more than a block is held.

    Args:
        codes: a .npy file.
        scale: another.
        vectors: float32 or float16 [N, D], at least one.
    """
    code_ND = np.lib.format.open_memmap(codes, mode="w+", dtype=np.int8, shape=vectors.shape)
    np.save(scale, encoded(vectors, code_ND))
    code_ND.flush()


def encoded(vectors: np.ndarray, code_ND: np.ndarray) -> np.ndarray:
    """Fill in the codes of vectors: their scale, float32 [2D + 1]."""
    low_D, high_D = np.full(vectors.shape[1], np.inf, np.float32), np.full(vectors.shape[1], -np.inf, np.float32)
    for _, vector_BD in _blocks(vectors):
        low_D, high_D = np.minimum(low_D, vector_BD.min(axis=0)), np.maximum(high_D, vector_BD.max(axis=0))
    middle_D, step_D = (low_D + high_D) / 2, (high_D - low_D) / (2 * STEPS)
    steps_D = np.where(step_D > _LEAST_STEP, 1 / np.maximum(step_D, _LEAST_STEP), 0).astype(np.float32)  # for each unit
    worst = 0.0
    for start, vector_BD in _blocks(vectors):
        code_BD = code_ND[start : start + len(vector_BD)]
        _encode(vector_BD, middle_D, steps_D, code_BD)
        worst = max(worst, _worst_square(vector_BD, middle_D, step_D, code_BD))
    error = np.nextafter(np.float32(worst**0.5 * (1 + 1e-6)), np.float32(np.inf))  # sums of the difference round, too
    return np.concatenate([middle_D, step_D, [error]]).astype(np.float32)


def _blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(vectors), _ROWS_PER_BLOCK):
        yield start, np.ascontiguousarray(vectors[start : start + _ROWS_PER_BLOCK], np.float32)


@numba.njit(nogil=True, cache=True)
def _encode(vector_BD: np.ndarray, middle_D: np.ndarray, steps_D: np.ndarray, code_BD: np.ndarray) -> None:
    most = np.float32(STEPS)
    for row in range(vector_BD.shape[0]):
        for d in range(vector_BD.shape[1]):
            code = np.rint((vector_BD[row, d] - middle_D[d]) * steps_D[d])
            code_BD[row, d] = np.int8(min(max(code, -most), most))


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _worst_square(vector_BD: np.ndarray, middle_D: np.ndarray, step_D: np.ndarray, code_BD: np.ndarray) -> float:
    """The greatest square of a vector's difference from what its code says, as it is, however the code was rounded."""
    worst = 0.0
    for row in range(vector_BD.shape[0]):
        total = 0.0
        for d in range(vector_BD.shape[1]):
            said = np.float64(middle_D[d]) + np.float64(step_D[d]) * np.float64(code_BD[row, d])
            left = np.float64(vector_BD[row, d]) - said
            total += left * left
        worst = max(worst, total)
    return worst
