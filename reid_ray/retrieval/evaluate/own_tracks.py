"""Which pictures are set apart from a query of leave-one-out: those of its own track, where a table has a column `track`.

Two pictures of one track are neighbours in time: finding one by the other says nothing. A track is told apart by data set, camera and video
as well, for trackers count from nought in each. Knows columns; not vectors or scores.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.storage import parquet_files

APART = "apart"  # column that a protocol adds to what is scored: equal for rows that are set apart from each other
_TRACK, _TOLD_BY = "track", ("dataset", "camera_id", "camera", "video")


def known_tracks(config: EvaluateJob) -> pa.Table | None:
    """read_tracks of the table that is scored; where its vectors were given and tell of no track, of the images beside them."""
    if config.gallery_embeddings is not None and (tracks := read_tracks(config.gallery_embeddings, "item_id")) is not None:
        return tracks
    return read_tracks(config.images, "image_id") if config.images is not None else None


def read_tracks(path: str, ids: str) -> pa.Table | None:
    """{"id", "track"} of the rows of a table that are of a track, its name unique in the table; None if no file has such a column.

    Args:
        path: IMAGES or EMBEDDINGS table, at a path or an address.
        ids: the column that names a row: image_id or item_id.

    Raises:
        DataError: the table cannot be read.
    """
    parts, known = [], False
    for file in parquet_files(path):
        with file.open() as parquet:
            names = parquet.schema_arrow.names
            if _TRACK not in names:
                continue
            known = True
            columns = [ids, _TRACK, *(name for name in _TOLD_BY if name in names)]
            for batch in parquet.iter_batches(batch_size=65_536, columns=columns):
                table = pa.Table.from_batches([batch])
                table = table.filter(pc.is_valid(table[_TRACK]))
                told = [table[name].cast(pa.string()) for name in table.column_names if name != ids]
                name_N = pc.binary_join_element_wise(*told, "\0", null_handling="replace", null_replacement="")
                parts.append(pa.table({"id": table[ids].cast(pa.string()), "track": name_N.cast(pa.string())}))
    if not known:
        return None
    return pa.concat_tables(parts) if parts else pa.table({"id": pa.array([], pa.string()), "track": pa.array([], pa.string())})


def tracks_of(ids: pa.ChunkedArray, tracks: pa.Table | None) -> pa.Array:
    """The track of each row by its id; null where it is of none, or none are known."""
    if tracks is None or not tracks.num_rows:
        return pa.nulls(len(ids), pa.string())
    place_N = pc.index_in(ids, value_set=tracks["id"].combine_chunks())
    return tracks["track"].take(place_N).combine_chunks()


def apart_numbers(track_N: pa.Array) -> np.ndarray:
    """int64 [N], equal for rows that are set apart from each other: those of one track; a row without a track from itself alone."""
    codes = track_N.dictionary_encode().indices
    own_N = np.arange(len(track_N), dtype=np.int64) + len(track_N)  # above every code
    return np.where(codes.is_valid().to_numpy(False), codes.fill_null(0).to_numpy(False).astype(np.int64), own_N)
