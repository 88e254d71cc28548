"""Training provenance: the images and texts that weights have seen, written beside them so that no score on these passes for clean.

A run writes what it learns from and what chooses its weights; what it went on from is put behind that when the weights are published, or
named as not recorded. Knows tables and roles; not models or scores. What a score shares with it, reid_ray.retrieval.evaluate finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.data.seen_binding import bound_schema, weights_at
from reid_ray.data.seen_rows import all_seen, image_rows, rows_of, text_rows
from reid_ray.model.model_files import model_revision, resolve_model
from reid_ray.records import EDITS, SEEN, SEEN_FILE, text_hash64
from reid_ray.retrieval.evaluate.exposure import exposure
from reid_ray.storage import iter_table
from reid_ray.train.feed.prepared import RowFile
from reid_ray.train.feed.splits import Roles

_ROWS = 262_144  # written at once


def write_seen(
    path: Path, images: pa.Table, roles: Roles, *, hash_NB: np.ndarray, used_N: np.ndarray, texts: Mapping[str, RowFile]
) -> None:
    """Write a table of SEEN, some 26 bytes an image and 8 bytes a distinct text.

    Args:
        path: the file.
        images: columns image_sha256, dataset, person_id and source of N images.
        roles: what each is for.
        hash_NB: their perceptual hashes, uint8 [N, 16].
        used_N: which have a caption and could be read, bool.
        texts: role (train, val) -> rows of PAIRS, whose texts and rewrites are meant.
    """
    with pq.ParquetWriter(path, SEEN, compression="zstd") as writer:
        for role, here_N in (("train", roles.train_N), ("val", roles.val_N)):
            rows = np.flatnonzero(here_N & used_N)
            for start in range(0, len(rows), _ROWS):
                part = rows[start : start + _ROWS]
                writer.write_table(image_rows(role, images.take(pa.array(part)), hash_NB[part]))
        for role, file in texts.items():
            writer.write_table(text_rows(role, _texts(file)))


def publish_seen(data: Path, model: Path, before: Mapping[str, Path | None]) -> None:
    """Write beside the weights in the folder `model` what they have seen: the run's own table in `data`, and that of the weights before.

    It names these weights by the fingerprint in their manifest. A run that an older version prepared has no table, and its weights get
    none: unknown.

    Args:
        data: the run's prepared data.
        model: the published folder, with its manifest.
        before: the weights that training went on from, and the editors that made pictures for it: name -> their folder, None where that is
            not at hand.
    """
    if (data / SEEN_FILE).is_file():
        with pq.ParquetWriter(model / SEEN_FILE, bound_schema(weights_at(model)), compression="zstd") as writer:
            for table in all_seen(data, before):
                writer.write_table(table)


def editors_of(edits: Sequence[str]) -> dict[str, Path | None]:
    """The editors that made the pictures of tables of EDITS, name -> folder: what they learnt from is in what they drew.

    None where the folder is not at hand, or holds other weights than those that drew.
    """
    found: dict[str, Path | None] = {}
    for path in edits:
        for table in iter_table(path, EDITS, columns=["editor", "revision"], batch_rows=_ROWS):
            for row in table.group_by(["editor", "revision"]).aggregate([]).to_pylist():
                found[f"{row['editor']} {row['revision']}"] = _editor_at(row["editor"], row["revision"])
    return found


def _editor_at(name: str, revision: str | None) -> Path | None:
    folder = Path(resolve_model(name)) if name.startswith("builtin:") else Path(name)
    return folder if folder.is_dir() and model_revision(str(folder)) == revision else None


def validation_exposure(data: Path, before: Mapping[str, Path | None]) -> dict[str, Any] | None:
    """What the weights will have seen of what chooses them; None where nothing does, or an older version prepared the data."""
    return exposure_of_rows(data, before, _role(data, "val")) if (data / SEEN_FILE).is_file() else None


def exposure_of_rows(data: Path, before: Mapping[str, Path | None], shown: pa.Table) -> dict[str, Any] | None:
    """What a run learns from, and what the weights before it have seen, of other rows of SEEN; None if these are none.

    Args:
        data: the run's prepared data.
        before: as of publish_seen.
        shown: images, which are the gallery, and texts, which query.
    """
    if not shown.num_rows:
        return None
    learnt = (piece.filter(pc.or_(pc.not_equal(piece["role"], "val"), pc.is_valid(piece["weights"]))) for piece in all_seen(data, before))
    texts_N = pc.fill_null(pc.equal(shown["kind"], "text"), False)  # an older table does not say of images that they are
    return exposure(learnt, shown.filter(pc.invert(texts_N)), shown.filter(texts_N))


def _role(data: Path, role: str) -> pa.Table:
    pieces = [piece.filter(pc.equal(piece["role"], role)) for piece in rows_of(data)]
    return pa.concat_tables([SEEN.empty_table(), *pieces])


def _texts(file: RowFile) -> np.ndarray:
    found = [np.zeros(0, np.int64)]
    for batch in file.batches():
        found.append(text_hash64(batch.column("text")))
        if "rewrites" in batch.schema.names:
            found.append(text_hash64(pc.list_flatten(batch.column("rewrites"))))
    return np.unique(np.concatenate(found))
