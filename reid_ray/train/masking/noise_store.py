"""Sharded store of noise levels: one byte for every token of every caption, kept from one epoch to the next.

A level in [0, 2] is one byte, so 4 million captions of 77 tokens are 308 MB, cut over the workers: row t lies with worker t modulo
their number. Saved as one .npy file per worker that any number of workers can load. Knows rows and numbers; not texts, models or
how workers talk.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from reid_ray.errors import DataError
from reid_ray.storage import write_json
from reid_ray.versions import check_json, numbered

# 0 is "not known", so that adding up the answers of all workers, of which one owns the row, gives the row.
_STEP = 2 / 254
_FILE = "noise-{rank:05d}-of-{world:05d}.npy"
_FORMAT = "noise.json"


class NoiseStore:
    """The part of the noise levels that lies with one worker.

    Args:
        texts: rows over all workers.
        tokens: longest text, marks included.
        rank: this worker, from 0.
        world: how many workers.
    """

    def __init__(self, texts: int, tokens: int, *, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of {world} workers")
        self.texts, self.tokens, self.rank, self.world = texts, tokens, rank, world
        self._own_KT = np.zeros((len(range(rank, texts, world)), tokens), np.uint8)

    @property
    def bytes(self) -> int:
        """Memory of this worker's part."""
        return self._own_KT.nbytes

    def rows(self) -> np.ndarray:
        """The rows that lie here, ascending."""
        return np.arange(self.rank, self.texts, self.world)

    def read(self, text_N: np.ndarray) -> np.ndarray:
        """Codes (see encode) of rows: uint8 [N, tokens], 0 in rows of other workers; an all-reduce sum gives all rows."""
        text_N = self._checked(text_N)
        codes_NT = np.zeros((len(text_N), self.tokens), np.uint8)
        own_N = text_N % self.world == self.rank
        codes_NT[own_N] = self._own_KT[text_N[own_N] // self.world]
        return codes_NT

    def write(self, text_N: np.ndarray, codes_NT: np.ndarray) -> None:
        """Replace rows by `codes_NT` ([N, T], T at most `tokens`; the rest of a row is unknown). Rows of other workers are left out."""
        text_N = self._checked(text_N)
        own_N = text_N % self.world == self.rank
        place_N = text_N[own_N] // self.world
        self._own_KT[place_N] = 0
        self._own_KT[place_N, : codes_NT.shape[1]] = codes_NT[own_N]

    def save(self, folder: Path) -> None:
        """Write this worker's part; every worker writes its own file, and all the same number of the format beside it."""
        write_json(folder / _FORMAT, numbered("noise_levels"))
        np.save(folder / _FILE.format(rank=self.rank, world=self.world), self._own_KT)

    def load(self, folder: Path) -> None:
        """Read this worker's rows from the files that any number of workers saved.

        Raises:
            DataError: a file is missing, or they are of another number of captions or tokens, or of a newer format.
        """
        if (folder / _FORMAT).is_file():
            check_json("noise_levels", json.loads((folder / _FORMAT).read_text(encoding="utf-8")), origin=folder / _FORMAT)
        parts = self._parts(folder)
        own_K = self.rows()
        for rank, part_KT in enumerate(parts):
            mine_K = own_K % len(parts) == rank
            self._own_KT[mine_K] = part_KT[own_K[mine_K] // len(parts)]

    def _parts(self, folder: Path) -> list[np.ndarray]:
        names = sorted(file.name for file in folder.glob("noise-*-of-*.npy"))
        worlds = {int(match[1]) for name in names if (match := re.search(r"-of-(\d+)\.npy$", name))}
        if len(worlds) != 1:
            raise DataError(f"{folder}: holds noise levels of {len(worlds)} runs, expected one; point to one whole checkpoint")
        world = worlds.pop()
        missing = [name for rank in range(world) if (name := _FILE.format(rank=rank, world=world)) not in names]
        if missing:
            raise DataError(f"{folder}: {missing[0]} is missing ({len(missing)} of {world}); restore it or use an older checkpoint")
        parts = [np.load(folder / _FILE.format(rank=rank, world=world), mmap_mode="r") for rank in range(world)]
        rows, widths = sum(len(part) for part in parts), {part.shape[1] for part in parts}
        if rows != self.texts or widths != {self.tokens}:
            raise DataError(
                f"{folder}: holds noise levels of {rows} captions of up to {max(widths)} tokens, but training has {self.texts} of up to "
                f"{self.tokens}; resume with the captions and the model that the run began with"
            )
        return parts

    def _checked(self, text_N: np.ndarray) -> np.ndarray:
        text_N = np.asarray(text_N, np.int64)
        if len(text_N) and (text_N.min() < 0 or text_N.max() >= self.texts):
            raise IndexError(f"rows {text_N.min()} to {text_N.max()} of a store of {self.texts}")
        return text_N


def encode(noise_NT: np.ndarray) -> np.ndarray:
    """Noise levels in [0, 2], NaN where unknown -> codes: 0 unknown, else 1 + r / (2 / 254) rounded. Wrong by at most 0.004."""
    codes_NT = np.rint(np.clip(noise_NT, 0, 2) / _STEP) + 1
    return np.where(np.isnan(noise_NT), 0, codes_NT).astype(np.uint8)


def decode(codes_NT: np.ndarray) -> np.ndarray:
    """Codes -> noise levels, float64, NaN where unknown."""
    return np.where(codes_NT == 0, np.nan, (codes_NT.astype(np.float64) - 1) * _STEP)
