"""External hash join of captions with their images and of rewrites with their captions, in passes over files, each linear in the rows.

The first pass reads and tests captions, stretch by stretch where the cluster has room (spread.py); the others are numbers and copies, here.
Texts stream from file to file; what is held is numbers, about 50 bytes a caption, and the ids of the images. Knows tables, roles of
images and reasons; not pixels or models. Every caption read ends as a sample, a rewrite or a counted reason.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS
from reid_ray.storage import Counts, parquet_files
from reid_ray.storage.table_files import TableFile
from reid_ray.storage.tables import iter_file
from reid_ray.train.failed_dynamic import STAND_IN_COLUMNS, StandIns
from reid_ray.train.feed.key_index import KeyIndex, hashes
from reid_ray.train.feed.prepared import PAIRS, ROWS, RowFile
from reid_ray.train.feed.splits import Roles
from reid_ray.train.feed.spread import Spread

_COLUMNS = ["parent_id", "text", *STAND_IN_COLUMNS]
_READ_ROWS = 131_072

# Captions that passed every test of their own row; `original` is no rewrite, image_row a row of the images' table.
ACCEPTED = pa.schema(
    [
        pa.field("caption_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("parent_id", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        pa.field("image_row", pa.int64(), nullable=False),
        pa.field("original", pa.bool_(), nullable=False),
    ]
)
# The ids of a sample, for messages.
NAMES = pa.schema([pa.field("caption_id", pa.string(), nullable=False), pa.field("image_id", pa.string(), nullable=False)])


class ImageRows:
    """Rows of a table of images by image_id.

    Args:
        image_ids: of N images.
        origin: the table's place, for messages.

    Raises:
        DataError: an image_id stands in more than one row.
    """

    def __init__(self, image_ids: pa.ChunkedArray, *, origin: str) -> None:
        # One array whose offsets have 64 bits: the ids of some ten million images exceed 2 GiB.
        self._ids = image_ids.cast(pa.large_string()).combine_chunks()
        self._index = KeyIndex(hashes(self._ids))
        self._shadowed = {self._ids[row].as_py(): row for row in self._index.repeated().tolist()}  # an earlier row has the same hash
        repeated = self._ids.take(pa.array(self._index.find(hashes(pa.array(self._shadowed, pa.string()))))).to_pylist()
        for image_id, earlier in zip(self._shadowed, repeated, strict=True):
            if image_id == earlier:
                raise DataError(f"{origin}: image_id {image_id!r} stands in more than one row ({len(self._shadowed)} such ids)")

    def find(self, image_ids: pa.Array) -> np.ndarray:
        """The row of each id, int64; -1 where no image has it."""
        row_R = self._index.find(hashes(image_ids))
        hit = np.flatnonzero(row_R >= 0)
        same = pc.equal(self._ids.take(pa.array(row_R[hit])), image_ids.take(pa.array(hit)).cast(pa.large_string()))
        for row in hit[~same.to_numpy(zero_copy_only=False)].tolist():
            row_R[row] = self._shadowed.get(image_ids[row].as_py(), -1)
        return row_R


@dataclass(frozen=True)
class Accepting:
    """What makes a caption usable.

    images: where each image stands.
    role_N: which of them are for anything, bool.
    held_back_N: which would be learnt from, were the person whom they were made of, bool.
    kinds: of originals, and `rewrite` if those are taken.
    fits: whether a model can read a text; one that it cannot is counted as too_long.
    stand_ins: for dynamic captions that failed.
    """

    images: ImageRows
    role_N: np.ndarray
    held_back_N: np.ndarray
    kinds: tuple[str, ...]
    fits: Callable[[str], bool] | None
    stand_ins: StandIns


def accept_captions(paths: Sequence[str], accepting: Accepting, out: Path, counts: Counts, *, spread: Spread) -> np.ndarray:
    """First pass: the usable captions of images that have a role, in their tables' order, into Arrow files in the folder `out`.

    Args:
        paths: CAPTIONS tables.
        accepting: which are usable.
        out: a folder of files of schema ACCEPTED.
        counts: read, and not used by reason.
        spread: who reads.

    Returns:
        Which images have an accepted caption, bool [N].
    """
    for facts in spread.write(out, ACCEPTED, _accept, accepting, list(_stretches(paths))):
        counts.read += facts["read"]
        counts.unused.update(facts["unused"])
    wanted_N = np.zeros(len(accepting.role_N), bool)
    wanted_N[RowFile(out).column("image_row")] = True
    return wanted_N


# Row groups of a file, by number.
_Stretch = tuple[tuple[TableFile, int], ...]


def _stretches(paths: Sequence[str]) -> Iterator[_Stretch]:
    held: list[tuple[TableFile, int]] = []
    rows = 0
    for file in (file for path in paths for file in parquet_files(path)):
        with file.open() as parquet:
            sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
        for number, size in enumerate(sizes):
            held.append((file, number))
            rows += size
            if rows >= _READ_ROWS:
                yield tuple(held)
                held, rows = [], 0
    yield tuple(held)


def _accept(accepting: Accepting, stretch: _Stretch) -> Generator[pa.RecordBatch, None, dict[str, Any]]:
    """The usable captions of a stretch; {"read": rows, "unused": {reason: rows}}."""
    counts = Counts()
    for file, row_group in stretch:
        for table in iter_file(file, CAPTIONS, columns=_COLUMNS, batch_rows=ROWS, row_group=row_group):
            counts.read += table.num_rows
            yield from _accepted(accepting, accepting.stand_ins.applied(table), counts).cast(ACCEPTED).combine_chunks().to_batches()
    return {"read": counts.read, "unused": dict(counts.unused)}


def _accepted(accepting: Accepting, table: pa.Table, counts: Counts) -> pa.Table:
    table = _keep(table, pc.is_in(table["kind"], pa.array(accepting.kinds, pa.string())), "other_kind", counts)
    table = _keep(table, pc.equal(table["status"], "ok"), table["status"], counts)
    table = _keep(table, pc.greater(pc.fill_null(pc.utf8_length(table["text"]), 0), 0), "no_text", counts)
    table = table.append_column("image_row", pa.array(accepting.images.find(table["image_id"].combine_chunks())))
    table = _keep(table, pc.greater_equal(table["image_row"], 0), "image_unknown", counts)
    table = _keep(table, pa.array(~accepting.held_back_N[table["image_row"].to_numpy()]), "source_held_out", counts)
    table = _keep(table, pa.array(accepting.role_N[table["image_row"].to_numpy()]), "other_split", counts)
    if accepting.fits is not None:
        table = _keep(table, pa.array([accepting.fits(text) for text in table["text"].to_pylist()], pa.bool_()), "too_long", counts)
    return table.append_column("original", pc.not_equal(table["kind"], "rewrite")).select(ACCEPTED.names)


@dataclass(frozen=True)
class Joined:
    """Which accepted captions become samples, and which rewrites stand in for each. Numbers are rows of the file of accepted captions.

    sample_S: ascending, S samples of both roles.
    rewrite_R: rewrites, those of one sample side by side, in the samples' order.
    first_S: rewrite_R[first_S[s] : first_S[s + 1]] are sample s's; [S + 1].
    """

    sample_S: np.ndarray
    rewrite_R: np.ndarray
    first_S: np.ndarray


def join_rewrites(accepted: RowFile, reason_N: np.ndarray, reasons: Sequence[str], train_N: np.ndarray, counts: Counts) -> Joined:
    """Second pass: captions of images that cannot be read drop out, rewrites find their originals.

    Args:
        accepted: the file that accept_captions wrote.
        reason_N: per image, the number of a reason why it cannot be read, or -1; int [N].
        reasons: the reasons by their numbers.
        train_N: which images are learnt from, bool [N]; captions of the others validate, as they stand.
        counts: not used, by those reasons; parent_not_used: a rewrite whose original is no sample; parent_validates: whose original is one
            that validates.
    """
    reason_A = reason_N[accepted.column("image_row")]
    original_A = accepted.column("original")
    for number, count in zip(*np.unique(reason_A[reason_A >= 0], return_counts=True), strict=True):
        counts.unused[reasons[number]] += int(count)
    sample_S, rewrite_R = np.flatnonzero(original_A & (reason_A < 0)), np.flatnonzero(~original_A & (reason_A < 0))
    of_R = np.full(len(rewrite_R), -1, np.int64)
    if len(rewrite_R):
        key_A = np.concatenate([_keys(batch) for batch in accepted.batches()])
        of_R = KeyIndex(key_A[sample_S]).find(key_A[rewrite_R])
    of_R[_strangers(accepted, rewrite_R, of_R, sample_S)] = -1
    rewrite_R, of_R = _counted_out(rewrite_R, of_R, of_R >= 0, "parent_not_used", counts)
    learnt_R = train_N[accepted.column("image_row")[sample_S[of_R]]]
    rewrite_R, of_R = _counted_out(rewrite_R, of_R, learnt_R, "parent_validates", counts)
    order = np.argsort(of_R, kind="stable")
    return Joined(sample_S, rewrite_R[order], np.concatenate([[0], np.cumsum(np.bincount(of_R, minlength=len(sample_S)))]))


def _counted_out(rewrite_R: np.ndarray, of_R: np.ndarray, keep_R: np.ndarray, reason: str, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Rewrites, and what they are of, where `keep_R` holds; the others are counted."""
    if left_out := int((~keep_R).sum()):
        counts.unused[reason] += left_out
    return rewrite_R[keep_R], of_R[keep_R]


def write_samples(
    accepted: RowFile,
    joined: Joined,
    roles: Roles,
    picture_N: np.ndarray,
    *,
    camera_N: np.ndarray,
    edited_N: np.ndarray,
    own_identity: bool,
    train: tuple[Path, Path],
    val: Path,
) -> None:
    """Third pass: samples with their rewrites, those learnt from and those that choose the weights.

    Args:
        accepted: the file that accept_captions wrote.
        joined: what join_rewrites found.
        roles: of the N images.
        picture_N: their rows in PICTURES.
        camera_N: their cameras, -1 if unknown.
        edited_N: which of them an editor made, bool.
        own_identity: each sample learnt from is an identity of its own.
        train: files of schema PAIRS and NAMES.
        val: a file of schema PAIRS.
    """
    with _writer(train[0], PAIRS) as pairs, _writer(train[1], NAMES) as names, _writer(val, PAIRS) as watched:
        for start in range(0, len(joined.sample_S), _READ_ROWS):
            stop = min(start + _READ_ROWS, len(joined.sample_S))
            rows = accepted.take(joined.sample_S[start:stop])
            image = rows["image_row"].to_numpy()
            first, last = joined.first_S[start], joined.first_S[stop]
            texts = accepted.take(joined.rewrite_R[first:last])["text"].combine_chunks()
            learnt = roles.train_N[image]
            person = np.where(learnt & own_identity, len(picture_N) + np.arange(start, stop), roles.person_N[image])
            table = pa.table(
                [
                    rows["text"].combine_chunks(),
                    pa.ListArray.from_arrays(pa.array((joined.first_S[start : stop + 1] - first).astype(np.int32)), texts),
                    pa.array(person),
                    pa.array(picture_N[image]),
                    pa.array(camera_N[image]),
                    pa.array(edited_N[image]),
                ],
                schema=PAIRS,
            )
            pairs.write_table(table.filter(pa.array(learnt)), max_chunksize=ROWS)
            names.write_table(rows.select(NAMES.names).filter(pa.array(learnt)).cast(NAMES), max_chunksize=ROWS)
            watched.write_table(table.filter(pa.array(~learnt)), max_chunksize=ROWS)


def _keys(accepted: pa.RecordBatch) -> np.ndarray:
    """The hash by which an original is found, and by which a rewrite finds it."""
    return hashes(pc.fill_null(pc.if_else(accepted.column("original"), accepted.column("caption_id"), accepted.column("parent_id")), ""))


def _writer(path: Path, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
    return pa.ipc.new_file(str(path), schema)


def _strangers(accepted: RowFile, rewrite_R: np.ndarray, of_R: np.ndarray, sample_S: np.ndarray) -> np.ndarray:
    """Which rewrites found an original by its hash alone, and not by its name; positions in rewrite_R."""
    found = [np.zeros(0, np.int64)]
    hit = np.flatnonzero(of_R >= 0)
    for start in range(0, len(hit), _READ_ROWS):
        part = hit[start : start + _READ_ROWS]
        parent, own = accepted.take(rewrite_R[part])["parent_id"], accepted.take(sample_S[of_R[part]])["caption_id"]
        found.append(part[~pc.fill_null(pc.equal(parent, own), False).to_numpy()])
    return np.concatenate(found)


def _keep(table: pa.Table, keep: pa.Array | pa.ChunkedArray, otherwise: str | pa.ChunkedArray, counts: Counts) -> pa.Table:
    """Rows of `table` where `keep` holds; each other row is counted as not used for the reason `otherwise`, or its row of `otherwise`."""
    gone = pc.invert(keep)
    if isinstance(otherwise, str):
        if left_out := pc.sum(gone).as_py() or 0:
            counts.unused[otherwise] += left_out
    else:
        counts.unused.update(otherwise.filter(gone).to_pylist())
    return table.filter(keep)
