"""Rows of SEEN: what images and texts look like to who asks later whether they were seen. Knows tables; not models or roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.data.dataset_overlap import is_mixed
from reid_ray.data.seen_binding import bound_to, weights_at
from reid_ray.records import IMAGES, SEEN, SEEN_FILE, content_hash64
from reid_ray.storage import iter_table

_ROWS = 262_144  # of a table held at once
# In attributes an entry says by these from which data set its image was taken: UFine3C, ITCPR.
_SOURCE = r'"(?:source|datasets)": *"(?P<source>[^"\\]+)"'


def image_rows(role: str, images: pa.Table, hash_NB: np.ndarray | None) -> pa.Table:
    """Rows of N images.

    Args:
        role: train or val.
        images: columns image_sha256, dataset and person_id, and source where it is known.
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
        **({"source": images["source"]} if "source" in images.column_names else {}),
    }
    return _rows(images.num_rows, columns)


def with_source(images: pa.Table) -> pa.Table:
    """Rows of IMAGES with a column source in the place of attributes: from which data set each was taken, null where that is not said.

    Of data sets that are known to be mixed: elsewhere anybody's attributes may say anything by that name.
    """
    at = images.column_names.index("attributes")
    mixed = [name for name in images["dataset"].unique().to_pylist() if name is not None and is_mixed(name)]
    if not mixed:
        return images.set_column(at, SEEN.field("source"), pa.nulls(images.num_rows, pa.string()))
    said = pc.struct_field(pc.extract_regex(images["attributes"], _SOURCE), "source")
    known = pc.is_in(images["dataset"], value_set=pa.array(mixed, pa.string()))
    return images.set_column(at, SEEN.field("source"), pc.if_else(known, said, pa.scalar(None, pa.string())))


def text_rows(role: str, text_M: np.ndarray) -> pa.Table:
    """Rows of M texts, by their records.text_hash64."""
    return _rows(len(text_M), {"role": [role] * len(text_M), "kind": ["text"] * len(text_M), "content": text_M})


def unknown_rows(name: str | None) -> pa.Table:
    """What stands for weights whose training is not recorded; None: for those themselves beside which a table would lie."""
    return _rows(1, {"role": ["unknown"], "weights": [name]})


def read_with_source(path: str, columns: Sequence[str]) -> pa.Table:
    """A whole table of images: these of its columns, and source."""
    pieces = iter_table(path, IMAGES, columns=[*columns, "attributes"], batch_rows=65_536)
    schema = pa.schema([*(IMAGES.field(name) for name in columns), SEEN.field("source")])
    return pa.concat_tables([schema.empty_table(), *(with_source(piece).replace_schema_metadata(None) for piece in pieces)])


def rows_of(folder: Path) -> Iterator[pa.Table]:
    """Pieces of what a training has seen, by the table among the data that were prepared for it."""
    return iter_table(folder / SEEN_FILE, SEEN, batch_rows=_ROWS)


def seen_by(folder: Path, name: str | None = None) -> Iterator[pa.Table]:
    """Pieces of what the weights in a folder have seen; with a row of role unknown where that is not recorded, or not known to be theirs.

    A table of other weights tells nothing of these. Where either names none, what it tells counts, but it may be of others.

    Args:
        folder: of the weights.
        name: what they are called in the column weights, where these are to be those of a training before; None leaves it as it is.
    """
    told = (folder / SEEN_FILE).is_file()
    bound, own = (bound_to(folder / SEEN_FILE), weights_at(folder)) if told else (None, None)
    if None in {bound, own} or bound != own:
        yield unknown_rows(name)
    if told and (None in {bound, own} or bound == own):
        at = SEEN.get_field_index("weights")
        for table in rows_of(folder):
            yield table if name is None else table.set_column(at, SEEN.field(at), pc.fill_null(table["weights"], name))


def all_seen(data: Path, before: Mapping[str, Path | None]) -> Iterator[pa.Table]:
    """Pieces of what a training has seen, by the table among its prepared data, and what each of the weights before it had.

    Of weights before it that are not at hand (None), that is unknown.
    """
    yield from rows_of(data)
    for name, folder in before.items():
        if folder is None:
            yield unknown_rows(name)
        else:
            yield from seen_by(folder, name)


def _rows(count: int, columns: Mapping[str, object]) -> pa.Table:
    return pa.table({name: columns.get(name, pa.nulls(count)) for name in SEEN.names}, schema=SEEN)
