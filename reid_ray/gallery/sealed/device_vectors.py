"""A segment's vectors on a GPU, by torch: every query is compared with all that pass, and what may be among its best is named.

What it says is never an answer: the candidates' stored vectors are compared by whoever asks, in one order of sums, so a search with a GPU
finds what one without finds, to the last bit. FAISS's indexes on a GPU know no filter, and of equal vectors at most 2,048. Knows one
segment's vectors; not items, or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from reid_ray.gallery.config import NearestConfig

if TYPE_CHECKING:
    import torch

_ROWS_AT_ONCE = 65_536  # of 512 dimensions, as float32: 128 MiB, and 16 MiB of scores for 64 queries
_SPARE = 256  # candidates beyond the wanted ones; where more than so many come too close to tell apart, they are compared exactly
_GATHERED = 0.5  # up to which share of rows that pass these are gathered; else all are multiplied, and the others masked


class DeviceVectors:
    """Vectors on a device. May be asked from several threads.

    Args:
        vectors: float32 or float16 [N, D]; they take as many bytes there.
        device: a torch device, such as cuda:0.

    Raises:
        torch.OutOfMemoryError: they do not fit there.
    """

    def __init__(self, vectors: np.ndarray, device: str) -> None:
        import torch

        kind = torch.float16 if vectors.dtype == np.float16 else torch.float32
        self._vector_ND = torch.empty(vectors.shape, dtype=kind, device=device)
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            block = np.array(vectors[start : start + _ROWS_AT_ONCE])  # of a map that cannot be written to
            self._vector_ND[start : start + len(block)] = torch.from_numpy(block).to(device)

    def candidates(self, query_QD: np.ndarray, wanted: int, passing_N: np.ndarray | None, _: NearestConfig) -> list[np.ndarray | None]:
        """Rows that may be among the best of each query and pass, ascending; None of a query with too many equal ones.

        Args:
            query_QD: float32 unit vectors.
            wanted: how many are sought.
            passing_N: which rows count, None: all.
        """
        import torch

        total, dim = self._vector_ND.shape
        count = total if passing_N is None else int(np.count_nonzero(passing_N))
        wanted = min(wanted, count)
        if not wanted:
            return [np.zeros(0, np.int64) for _ in query_QD]
        # Two float32 sums are off by D x 2^-24 each; where this process lets the GPU multiply in TF32, each factor by 2^-11.
        slack = 4 * dim * 2.0**-24 if torch.get_float32_matmul_precision() == "highest" else 2.0**-8
        with torch.inference_mode():
            found = self._best(torch.from_numpy(query_QD).to(self._vector_ND.device), min(wanted + _SPARE, count), passing_N)
            score_QC, row_QC = (each.cpu().numpy() for each in found)
        near_QC = score_QC >= score_QC[:, wanted - 1 : wanted] - np.float32(slack)
        return [
            None if near_C.all() and len(near_C) < count else np.sort(row_C[near_C]) for near_C, row_C in zip(near_QC, row_QC, strict=True)
        ]

    def _best(self, query_QD: torch.Tensor, kept: int, passing_N: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and rows of the `kept` best of each query, best first: at least so many pass."""
        import torch

        device = query_QD.device
        best_QC = torch.zeros((len(query_QD), 0), device=device)
        row_QC = torch.zeros((len(query_QD), 0), dtype=torch.int64, device=device)
        for row_B, vector_BD, mask_B in self._blocks(passing_N):
            score_QB = query_QD @ vector_BD.T
            if mask_B is not None:
                score_QB.masked_fill_(~mask_B, -torch.inf)
            new_QC, at_QC = score_QB.topk(min(kept, len(row_B)), dim=1)
            joined_QC, rows_QC = torch.cat([best_QC, new_QC], dim=1), torch.cat([row_QC, row_B[at_QC]], dim=1)
            best_QC, at_QC = joined_QC.topk(min(kept, joined_QC.shape[1]), dim=1)
            row_QC = rows_QC.gather(1, at_QC)
        return best_QC, row_QC

    def _blocks(self, passing_N: np.ndarray | None) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """Row numbers, vectors as float32, and which of them count (None: all), block by block."""
        import torch

        device, total = self._vector_ND.device, len(self._vector_ND)
        if passing_N is not None and np.count_nonzero(passing_N) <= _GATHERED * total:
            row_M = torch.from_numpy(np.flatnonzero(passing_N)).to(device)
            for row_B in row_M.split(_ROWS_AT_ONCE):
                yield row_B, self._vector_ND[row_B].float(), None
            return
        mask_N = None if passing_N is None or passing_N.all() else torch.from_numpy(np.ascontiguousarray(passing_N)).to(device)
        for start in range(0, total, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, total)
            row_B = torch.arange(start, stop, device=device)
            yield row_B, self._vector_ND[start:stop].float(), None if mask_N is None else mask_N[start:stop]
