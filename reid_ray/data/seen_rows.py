"""Rows of SEEN: what images and texts look like to who asks later whether they were seen. Knows tables; not models or roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.records import SEEN, SEEN_FILE, content_hash64
from reid_ray.storage import iter_table

_ROWS = 262_144  # of a table held at once


def image_rows(role: str, images: pa.Table, hash_NB: np.ndarray | None) -> pa.Table:
    """Rows of N images.

    Args:
        role: train or val.
        images: columns image_sha256, dataset and person_id.
        hash_NB: their perceptual hashes, uint8 [N, 16]; zeros: a flat picture, which looks like no other. None: pictures not at hand.
    """
    near = None
    if hash_NB is not None:
        near = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(hash_NB), [None, pa.py_buffer(np.ascontiguousarray(hash_NB))])
    columns = {
        "role": [role] * images.num_rows,
        "kind": ["image"] * images.num_rows,
        "content": content_hash64(images["image_sha256"]),
        **({} if near is None else {"near": near}),
        "dataset": images["dataset"],
        "person_id": images["person_id"],
    }
    return _rows(images.num_rows, columns)


def text_rows(role: str, text_M: np.ndarray) -> pa.Table:
    """Rows of M texts, by their records.text_hash64."""
    return _rows(len(text_M), {"role": [role] * len(text_M), "kind": ["text"] * len(text_M), "content": text_M})


def unknown_rows(name: str | None) -> pa.Table:
    """What stands for weights whose training is not recorded; None: for those themselves beside which a table would lie."""
    return _rows(1, {"role": ["unknown"], "weights": [name]})


def seen_by(folder: Path, name: str | None = None) -> Iterator[pa.Table]:
    """Pieces of what the weights in a folder have seen; of weights without such a table one row of role unknown.

    Args:
        folder: of the weights.
        name: what they are called in the column weights, where these are to be those of a training before; None leaves it as it is.
    """
    if not (folder / SEEN_FILE).is_file():
        yield unknown_rows(name)
        return
    at = SEEN.get_field_index("weights")
    for table in iter_table(folder / SEEN_FILE, SEEN, batch_rows=_ROWS):
        yield table if name is None else table.set_column(at, SEEN.field(at), pc.fill_null(table["weights"], name))


def all_seen(own: Path, before: Mapping[str, Path]) -> Iterator[pa.Table]:
    """Pieces of what a training has seen, by the table beside it in the folder `own`, and what each of the weights before it had."""
    yield from seen_by(own)
    for name, folder in before.items():
        yield from seen_by(folder, name)


def _rows(count: int, columns: Mapping[str, object]) -> pa.Table:
    return pa.table({name: columns.get(name, pa.nulls(count)) for name in SEEN.names}, schema=SEEN)
