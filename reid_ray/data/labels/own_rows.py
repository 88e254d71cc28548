"""The columns of a user's own of listed images, by the images' numbers in their listing: for tables whose rows are about these images.

Of a folder they lie in the listing; of a table they are read again, row group by row group, without a picture. Whoever asks in the order of
the listing has each piece read once, and holds one at a time. Knows listings and pieces; not what is made of an image.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import ImagesConfig
from reid_ray.data.labels.label_columns import LABELS
from reid_ray.data.pieces import FilePiece, Piece, TablePiece
from reid_ray.data.sources import ImageListing, image_listing
from reid_ray.errors import DataError
from reid_ray.own_columns import own_of
from reid_ray.records import conform


class OwnByPlace:
    """See the module.

    Attributes:
        own: the schema of what `take` gives.

    Args:
        listing: of the images.
        own: their columns that are wanted.
    """

    def __init__(self, listing: ImageListing, own: pa.Schema) -> None:
        self.own = own
        self._pieces = listing.pieces
        self._starts = np.cumsum([0, *(piece.rows for piece in listing.pieces)])
        self._held: tuple[int, pa.Table] | None = None

    def take(self, image_N: np.ndarray) -> pa.Table:
        """A row for each number in the listing, int64 [N], in their order."""
        piece_N = np.searchsorted(self._starts, image_N, side="right") - 1
        parts, order = [self.own.empty_table()], []
        for number in np.unique(piece_N).tolist():
            at = np.flatnonzero(piece_N == number)
            parts.append(self._rows(number).take(pa.array(image_N[at] - self._starts[number])))
            order.append(at)
        back = np.argsort(np.concatenate([np.zeros(0, np.int64), *order]), kind="stable")
        return pa.concat_tables(parts).take(pa.array(back))

    def _rows(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            self._held = number, _of_piece(self._pieces[number], self.own)
        return self._held[1]


def own_by_place(config: ImagesConfig, listing: ImageListing, *, beside: pa.Schema) -> OwnByPlace | None:
    """The further columns of `listing` that can stand beside those of another schema; None if there are none.

    Args:
        config: of the images.
        listing: of the images.
        beside: columns of hers by these names stay with the images.

    Raises:
        DataError: a column cannot be carried, or the table has changed since it was listed.
    """
    if not listing.further:
        return None
    # the rows that are read for their pictures do not carry further columns, so a table is listed once more: its footers
    carried = image_listing(config, carry=True) if config.source == "parquet" else listing
    if [piece.rows for piece in carried.pieces] != [piece.rows for piece in listing.pieces]:
        raise DataError(f"{listing.origin}: has changed since it was listed; let its writer finish, then start again")
    found = _schema_of(carried.pieces[0])
    own = pa.schema([field for field in found if field.name not in beside.names])
    return OwnByPlace(carried, own) if own.names else None


def _schema_of(piece: Piece) -> pa.Schema:
    if isinstance(piece, TablePiece):
        return piece.own
    return own_of(piece.labels.schema, LABELS) if isinstance(piece, FilePiece) and piece.labels is not None else pa.schema([])


def _of_piece(piece: Piece, own: pa.Schema) -> pa.Table:
    if isinstance(piece, FilePiece) and piece.labels is not None:
        return conform(piece.labels, own, origin=str(piece.store))
    if not isinstance(piece, TablePiece):
        return pa.table([pa.nulls(piece.rows, field.type) for field in own], schema=own)
    with piece.file.open() as parquet:
        names = [*own.names, *(() if piece.split is None else ("split",))]
        table = parquet.read_row_group(piece.row_group, columns=[name for name in names if name in parquet.schema_arrow.names])
        rows = parquet.metadata.row_group(piece.row_group).num_rows
    if piece.split is not None:
        kept = pc.equal(table["split"].cast(pa.string()), piece.split)
        table, rows = table.filter(kept), pc.sum(kept).as_py() or 0
    if not set(own.names) & set(table.column_names):
        return pa.table([pa.nulls(min(rows, piece.rows), field.type) for field in own], schema=own)
    return conform(table, own, origin=str(piece.file)).slice(0, piece.rows)
