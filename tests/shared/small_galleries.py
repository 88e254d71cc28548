"""Galleries of a few items for tests that search one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery


def make_gallery(folder: Path, vector_ND: np.ndarray, rows: Sequence[Mapping[str, Any]], *, encoder: str = "e") -> Path:
    """A gallery whose item n has vector n and the columns of row n: item_id, optionally thumbnail and others. Returns its folder."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vector_ND, np.float32).reshape(-1)), vector_ND.shape[1])
    create_gallery(folder, dim=vector_ND.shape[1], encoder=encoder)
    with GalleryWriter(folder) as writer:
        writer.add(table.append_column("embedding", vectors), encoder=encoder)
    return folder
