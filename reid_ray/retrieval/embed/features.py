"""Feature matrices for ranking, from EMBEDDINGS tables: unit vectors [N, D] with ids, persons and cameras beside them.

Knows the table and the matrix; not what is scored. Rows that failed, and rows that a protocol cannot use, are counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.model.plain_text import TruncationCounts
from reid_ray.records import EMBEDDINGS
from reid_ray.retrieval.embed_stream import ENCODER, TOKENS, TRUNCATED, add_truncation_counts
from reid_ray.retrieval.metrics import UNKNOWN, unit_rows
from reid_ray.storage import iter_table, parquet_files

NO_CAMERA = -1
_ITEM = [name for name in EMBEDDINGS.names if name not in {"embedding", "status", "reason", "kind"}]


@dataclass(frozen=True)
class Features:
    """Unit vectors [N, D] with each row's id, person and camera. Unknown persons are UNKNOWN, unknown cameras NO_CAMERA."""

    origin: str
    vector_ND: np.ndarray
    items: pa.Table  # columns item_id, image_id, text, dataset, split, person_id, camera_id
    unused: Counter[str]  # rows left out or failed, by reason
    encoder_fingerprints: frozenset[str]  # of the encoders that made them, where the table says
    texts_cut: TruncationCounts | None = None  # of texts, where the table says

    def __len__(self) -> int:
        """Rows."""
        return len(self.vector_ND)

    @property
    def ids(self) -> list[str]:
        """item_id of each row."""
        return list(self.items["item_id"].to_pylist())

    def persons(self) -> np.ndarray:
        """Person ids, int64 [N]."""
        return self.items["person_id"].fill_null(UNKNOWN).to_numpy()

    def cameras(self) -> np.ndarray:
        """Cameras, int64 [N]."""
        return self.items["camera_id"].cast(pa.int64()).fill_null(NO_CAMERA).to_numpy()

    def of_known_persons(self) -> Features:
        """The rows whose person is known, which can be queries; the others are counted as unknown_person.

        Raises:
            DataError: nothing is left.
        """
        return self._where(self.items["person_id"].is_valid(), "unknown_person")

    def _where(self, known_N: pa.ChunkedArray, reason: str) -> Features:
        unknown = len(self) - (pc.sum(known_N).as_py() or 0)
        if not unknown:
            return self
        unused = self.unused + Counter({reason: unknown})
        if unknown == len(self):
            raise DataError(f"{self.origin}: holds no usable row (left out: {dict(unused)}); check the path and the split")
        return replace(self, vector_ND=self.vector_ND[known_N.to_numpy()], items=self.items.filter(known_N), unused=unused)

    def of_known_cameras(self) -> Features:
        """The rows whose camera is known: image_to_image cannot tell whether to remove the others, which are counted as unknown_camera.

        Raises:
            DataError: nothing is left.
        """
        return self._where(self.items["camera_id"].is_valid(), "unknown_camera")

    def taken(self, row_T: np.ndarray) -> Features:
        """Some rows, int64 [T], in that order; the others are not counted."""
        return replace(self, vector_ND=self.vector_ND[row_T], items=self.items.take(pa.array(row_T)))


def collect_features(
    tables: Iterable[pa.Table],
    *,
    origin: str,
    capacity: int,
    split: str | None = None,
    drop_unknown_persons: bool = False,
    include_synthetic: bool = False,
) -> Features:
    """Gather EMBEDDINGS rows into one matrix.

    Args:
        tables: EMBEDDINGS tables; the further columns of TextEmbedder (embed_stream.py) are understood.
        origin: where they come from, for messages.
        capacity: at least the number of rows: the matrix is allocated once, so that memory holds it once.
        split: rows of another split are left out uncounted, they are another data set.
        drop_unknown_persons: leave out, and count, rows of unknown person (a query of unknown person has no answer).
        include_synthetic: keep rows of pictures that an editor made; else they are left out and counted.

    Raises:
        DataError: nothing is left; widths differ; an id appears twice; a vector is not finite or zero. Names the row.
    """
    vector_ND: np.ndarray | None = None
    items: list[pa.Table] = []
    unused: Counter[str] = Counter()
    fingerprints: set[str] = set()
    cut: TruncationCounts | None = None
    rows = 0
    for table in tables:
        kept = table if split is None else table.filter(pc.fill_null(pc.equal(table["split"], split), False))
        good_N = pc.equal(kept["status"], "ok")
        unused.update((reason or "failed").partition(":")[0] for reason in kept.filter(pc.invert(good_N))["reason"].to_pylist())
        kept = kept.filter(good_N)
        if not include_synthetic and (edited := pc.sum(kept["synthetic"]).as_py()):
            unused["synthetic"] += edited
            kept = kept.filter(pc.invert(pc.fill_null(kept["synthetic"], False)))
        if drop_unknown_persons and kept["person_id"].null_count:
            unused["unknown_person"] += kept["person_id"].null_count
            kept = kept.filter(pc.is_valid(kept["person_id"]))
        if not kept.num_rows:
            continue
        block_BD = _matrix(kept, origin)
        if vector_ND is None:
            vector_ND = np.empty((capacity, block_BD.shape[1]), dtype=np.float32)
        if block_BD.shape[1] != vector_ND.shape[1]:
            raise DataError(f"{origin}: {kept['item_id'][0]} has {block_BD.shape[1]} dimensions, earlier rows {vector_ND.shape[1]}")
        vector_ND[rows : rows + kept.num_rows] = block_BD
        rows += kept.num_rows
        items.append(kept.select(_ITEM))
        if ENCODER.name in kept.column_names:
            fingerprints.update(kept[ENCODER.name].to_pylist())
        if TOKENS.name in kept.column_names:
            add_truncation_counts(cut := cut or TruncationCounts(), kept)
    if vector_ND is None:
        wanted = f"of split {split!r} " if split is not None else ""
        raise DataError(f"{origin}: holds no usable row {wanted}(left out: {dict(unused) or 'none'}); check the path and the split")
    table = pa.concat_tables(items)
    _refuse_repeats(table["item_id"], origin)
    unit_ND = unit_rows(vector_ND[:rows], what=origin, names=_Names(table["item_id"]))
    return Features(origin, unit_ND, table, unused, frozenset(fingerprints), cut)


def read_features(
    path: str, *, kind: str, split: str | None, drop_unknown_persons: bool = False, include_synthetic: bool = False
) -> Features:
    """Features of an EMBEDDINGS table on disk (a file or a folder of parts, from however many writers).

    Raises:
        DataError: as collect_features; or the table holds another kind than asked for.
    """
    capacity = 0
    for file in parquet_files(path):
        with file.open() as parquet:
            capacity += parquet.metadata.num_rows

    def tables() -> Iterable[pa.Table]:
        for table in iter_table(path, EMBEDDINGS):
            wrong = table.filter(pc.not_equal(table["kind"], kind))
            if wrong.num_rows:
                raise DataError(
                    f"{path}: {wrong['item_id'][0]} is of kind {wrong['kind'][0]}, but the protocol needs {kind}; give another table"
                )
            yield table

    features = collect_features(
        tables(),
        origin=path,
        capacity=capacity,
        split=split,
        drop_unknown_persons=drop_unknown_persons,
        include_synthetic=include_synthetic,
    )
    return replace(features, encoder_fingerprints=_fingerprints(path), texts_cut=_texts_cut(path, split))


def _fingerprints(path: str) -> frozenset[str]:
    """Distinct encoders of a table on disk; the column is no part of EMBEDDINGS, so it may be absent."""
    found: set[str] = set()
    for file in parquet_files(path):
        with file.open() as parquet:
            if ENCODER.name in parquet.schema_arrow.names:
                found.update(pc.unique(parquet.read(columns=[ENCODER.name])[ENCODER.name].drop_null()).to_pylist())
    return frozenset(found)


def _texts_cut(path: str, split: str | None) -> TruncationCounts | None:
    """Of the texts of this split; None if a file does not say, as images' do not."""
    cut = TruncationCounts()
    for file in parquet_files(path):
        with file.open() as parquet:
            if TOKENS.name not in parquet.schema_arrow.names:
                return None
            table = parquet.read(columns=[TOKENS.name, TRUNCATED.name, "split"])
            add_truncation_counts(cut, table if split is None else table.filter(pc.fill_null(pc.equal(table["split"], split), False)))
    return cut


class _Names:
    """Ids of an Arrow column by row, without making a Python list of all of them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __getitem__(self, row: int) -> str:
        return str(self._column[int(row)].as_py())


def _matrix(table: pa.Table, origin: str) -> np.ndarray:
    column = table["embedding"].combine_chunks()
    lengths = pc.list_value_length(column)
    width = lengths[0].as_py()
    odd = pc.fill_null(pc.not_equal(lengths, width), True)
    if width is None or pc.any(odd).as_py():
        row = 0 if width is None else pc.index(odd, True).as_py()
        found = lengths[row].as_py()
        said = "is null, but its status is ok" if found is None else f"has {found} dimensions, others {width}"
        raise DataError(f"{origin}: the embedding of {table['item_id'][row]} {said}; embed it again")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, width)


def _refuse_repeats(ids: pa.ChunkedArray, origin: str) -> None:
    counts = pc.value_counts(ids.combine_chunks())
    often = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(often):
        first = often[0].as_py()
        raise DataError(f"{origin}: {first['values']} appears {first['counts']} times ({len(often)} such ids); an item is scored once")
