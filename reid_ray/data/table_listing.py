"""A Parquet table of images as pieces: its files' footers say how many rows there are, and which columns of a user's own.

Reads footers, and the columns split and camera where they matter; not images.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.config.common import ImagesConfig
from reid_ray.data.labels.own_of_files import cameras_of_files, own_of_files
from reid_ray.data.pieces import TablePiece
from reid_ray.errors import DataError
from reid_ray.own_columns import NOTHING_OWN
from reid_ray.records import IMAGES
from reid_ray.storage.table_files import TableFile
from reid_ray.versions import check_table

_FOOTERS = 16  # read at the same time


def table_pieces(files: Sequence[TableFile], config: ImagesConfig, *, carry: bool) -> tuple[list[TablePiece], tuple[str, ...]]:
    """(a piece for each row group that has wanted rows, names of the columns beside those of IMAGES).

    Args:
        files: of the table.
        config: which rows are wanted, and which further columns.
        carry: the rows shall have the further columns.

    Raises:
        DataError: a file is no table of images, or a column cannot be carried.
    """
    with ThreadPoolExecutor(1 if files[0].store.is_local else _FOOTERS) as pool:
        footers = list(pool.map(lambda file: _footer(file, config.split), files))
        schemas = [footer.schema for footer in footers]
        own = own_of_files(files, schemas, config.own) if carry else NOTHING_OWN
        cameras = cameras_of_files(files, schemas, pool) if "camera" in own.names else None
    pieces: list[TablePiece] = []
    left = config.limit
    for file, footer in zip(files, footers, strict=True):
        for row_group, matching in enumerate(footer.matching_R):
            rows = matching if left is None else min(matching, left)
            left = None if left is None else left - rows
            if rows:
                pieces.append(TablePiece(file, row_group, rows, config.split, config.max_pixels, footer.inline, own, cameras))
    further = dict.fromkeys(name for schema in schemas for name in schema.names if name not in IMAGES.names)
    return pieces, tuple(own.names if carry else further)


class _Footer(NamedTuple):
    """What a file's footer says, and its split column.

    matching_R: rows of each row group that belong to the wanted split.
    inline: no row lacks its image's bytes.
    """

    matching_R: list[int]
    inline: bool
    schema: pa.Schema


def _footer(file: TableFile, split: str | None) -> _Footer:
    with file.open() as parquet:
        schema = parquet.schema_arrow
        check_table(schema.metadata, origin=file)
        if "image_id" not in schema.names:
            raise DataError(f"{file}: has no column image_id, so it is no IMAGES table; columns are {schema.names}")
        inline = _holds_bytes(parquet.metadata)
        groups = range(parquet.metadata.num_row_groups)
        if split is None:
            return _Footer([parquet.metadata.row_group(group).num_rows for group in groups], inline, schema)
        if "split" not in schema.names:
            return _Footer([0 for _ in groups], inline, schema)
        columns = [parquet.read_row_group(group, columns=["split"])["split"].cast(pa.string()) for group in groups]
        return _Footer([pc.sum(pc.equal(column, split)).as_py() or 0 for column in columns], inline, schema)


def _holds_bytes(metadata: pq.FileMetaData) -> bool:
    leaves = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
    column = next((leaf for leaf, path in enumerate(leaves) if path in ("image", "image.bytes")), None)
    if column is None:
        return False
    found = [metadata.row_group(group).column(column) for group in range(metadata.num_row_groups)]
    return all(chunk.statistics is not None and chunk.statistics.null_count == 0 for chunk in found)
