"""Added items as a frame of the log, and back."""

from __future__ import annotations

import pyarrow as pa

from reid_ray.gallery.depot.journal import LogRecord
from reid_ray.gallery.items import THUMBNAIL, VECTOR, Items


def record_of_items(items: Items) -> LogRecord:
    """The frame that adds items."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(items.vectors.reshape(-1)), items.vectors.shape[1])
    return LogRecord({"op": "add"}, items.rows.append_column(VECTOR, vectors).append_column(THUMBNAIL, items.thumbnails))


def items_of_record(table: pa.Table) -> Items:
    """The items of a frame that adds some."""
    array = table[VECTOR].combine_chunks()
    vectors = array.flatten().to_numpy().reshape(len(array), -1)
    return Items(vectors, table.drop_columns([VECTOR, THUMBNAIL]), table[THUMBNAIL].combine_chunks())
