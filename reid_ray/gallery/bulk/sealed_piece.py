"""A sealed piece: a segment that a task wrote beside a gallery, with the facts of it, until the gallery's writer takes it in.

A piece has a name that says what it was made of, and by which version's layout, so that who does the same again finds it; its segment's
folder has one of its own, so that two tasks that make one piece at the same time do not meet. The file of facts is written last: a piece
with facts is whole. Knows folders of pieces; not tables, or a gallery.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from reid_ray.errors import DataError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import Items, json_of_schema, schema_of_json
from reid_ray.gallery.sealed.segment import Segment, SegmentFacts, write_segment
from reid_ray.storage.files import read_object, sync, write_durably, write_json


class PiecesGoneError(DataError):
    """Pieces were removed while they were made or before they were taken: an erasure was carried out. They can be made again."""


PIECES = "pieces"  # in a gallery: what is to be taken in; it goes with the generation that takes it, and with every erasure


@dataclass(frozen=True)
class SealedPiece:
    """What is said of a piece.

    name: of the piece.
    facts: of its segment; None where no row was taken.
    schema: columns of its items.
    counts: input rows by what became of them.
    """

    name: str
    facts: SegmentFacts | None
    schema: pa.Schema
    counts: Mapping[str, int]


def read_piece(folder: Path, name: str) -> SealedPiece | None:
    """A piece that is whole; None if it has to be made (again)."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        value = read_object(path, remedy="remove it, and run again")
        facts = None
        if value["segment"] is not None:
            files = {name: (size, digest) for name, (size, digest) in value["files"].items()}
            facts = SegmentFacts(value["segment"], value["rows"], files)
            Segment.open(folder / facts.name, facts).close()
        return SealedPiece(name, facts, schema_of_json(value["columns"]), dict(value["counts"]))
    except (KeyError, TypeError, ValueError, DataError, FileNotFoundError):
        return None


def seal_piece(
    folder: Path,
    name: str,
    batches: Iterable[Items],
    rows: int,
    *,
    dim: int,
    config: GalleryConfig,
    schema: pa.Schema,
    counts: Mapping[str, int],
) -> SealedPiece:
    """Write a piece, verify it, and only then say that it is there.

    Args:
        folder: of pieces; it is made if it is not there.
        name: of the piece.
        batches: its items, in order.
        rows: how many they are; of none there is no segment.
        dim: of the vectors.
        config: how they are stored and indexed.
        schema: of the items' columns.
        counts: kept in the facts.

    Raises:
        DataError: what was read back is not what was written.
    """
    facts = None
    folder.mkdir(parents=True, exist_ok=True)
    if rows:
        place = folder / f"{name}-{uuid.uuid4().hex[:8]}"
        place.mkdir()
        try:
            facts = write_segment(place, batches, rows=rows, dim=dim, config=config, schema=schema)
            segment = Segment.open(place, facts)
            faults = segment.faults()
            segment.close()
            if faults:
                raise DataError(faults[0])
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        sync(folder)
    said = {
        "segment": facts and facts.name,
        "rows": rows,
        "files": {name: list(each) for name, each in facts.files.items()} if facts else {},
        "columns": json_of_schema(schema),
        "counts": dict(counts),
    }
    write_durably(folder / f"{name}.json", lambda hidden: write_json(hidden, said))
    return SealedPiece(name, facts, schema, dict(counts))


def drop_pieces(folder: Path, aside: Path | None = None) -> None:
    """Remove a folder of pieces, if there is one.

    Args:
        folder: of pieces.
        aside: a name that it gets first, so that tasks which still write there make nothing in it any more; None where there are none.
    """
    if folder.is_dir():
        if aside is not None:
            folder.rename(aside)
            sync(folder.parent)
        shutil.rmtree(aside or folder)
        sync((aside or folder).parent)
