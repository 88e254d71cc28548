"""What an evaluation would refuse, told by the labels alone: before a picture is embedded, or a vector read.

Reads ids, persons, cameras and splits of the tables, some 100 bytes a row while it lasts. What only the pictures tell (one that cannot be
decoded) comes later, as a counted row. Knows labels; not vectors or models.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, EMBEDDINGS, IMAGES
from reid_ray.retrieval.embed.features import NO_CAMERA
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.own_tracks import apart_numbers, known_tracks, tracks_of
from reid_ray.retrieval.metrics import UNKNOWN
from reid_ray.storage import iter_table

_LABELS = ["split", "person_id", "camera_id", "synthetic"]
_ONE_CAMERA = "set protocol to leave_one_out, which asks with every picture for the others of one camera"


@dataclass(frozen=True)
class LabelledRows:
    """Labels of the rows that a side of an evaluation takes: unknown persons are UNKNOWN, unknown cameras NO_CAMERA."""

    origin: str
    ids: pa.ChunkedArray
    person_N: np.ndarray
    camera_N: np.ndarray

    def known(self) -> np.ndarray:
        """Which rows are of a known person, bool [N]."""
        return self.person_N != UNKNOWN


def refuse_unscorable(config: EvaluateJob) -> None:
    """See that at least one query can have a match, by the labels of what the configuration names.

    Raises:
        DataError: a side has no row of its split, or none that can be used; no query is of a known person; the protocol image_to_image
            finds no two cameras; or no query has a match. Names table, field and remedy.
    """
    gallery = _gallery(config)
    if config.protocol == "leave_one_out":
        _refuse_strangers(gallery, "picture")
        _refuse_lone_pictures(config, gallery)
        return
    queries = _queries(config) or gallery
    _refuse_strangers(queries, "query")
    if config.protocol == "image_to_image":
        _refuse_one_camera(queries, gallery)
    elif not np.isin(queries.person_N[queries.known()], gallery.person_N).any():
        raise DataError(
            f"none of the {int(queries.known().sum())} queries of {queries.origin} is of a person of {gallery.origin}; "
            "give tables of one data set, and one split"
        )


def _gallery(config: EvaluateJob) -> LabelledRows:
    if config.gallery_embeddings is not None:
        return _labels(config.gallery_embeddings, EMBEDDINGS, "item_id", config.split, config)
    return _labels(str(config.images), IMAGES, "image_id", config.split, config)


def _queries(config: EvaluateJob) -> LabelledRows | None:
    """None: the gallery's own images."""
    split = config.query_split or config.split
    if config.query_embeddings is not None:
        return _labels(config.query_embeddings, EMBEDDINGS, "item_id", split, config, field="query_split")
    if config.captions is not None:
        return _labels(config.captions, CAPTIONS, "caption_id", split, config, field="query_split")
    return None if split == config.split else _labels(str(config.images), IMAGES, "image_id", split, config, field="query_split")


def _labels(path: str, schema: pa.Schema, ids: str, split: str | None, config: EvaluateJob, *, field: str = "split") -> LabelledRows:
    """The rows of a table that this side takes.

    Raises:
        DataError: there is none; says which splits there are.
    """
    further = [name for name in ("status", "kind") if name in schema.names]
    parts, splits = [], Counter[str | None]()
    for table in iter_table(path, schema, columns=[ids, *_LABELS, *further], batch_rows=65_536):
        usable_N = pc.not_equal(table["status"], "failed") if "status" in further else pc.is_valid(table[ids])
        if schema is CAPTIONS:
            usable_N = pc.and_(usable_N, pc.is_in(table["kind"], pa.array(config.caption_kinds)))
        rows = table.filter(usable_N)
        splits.update({each["values"]: each["counts"] for each in pc.value_counts(rows["split"]).to_pylist()})
        rows = rows if split is None else rows.filter(pc.fill_null(pc.equal(rows["split"], split), False))
        if not config.include_synthetic:
            rows = rows.filter(pc.invert(pc.fill_null(rows["synthetic"], False)))
        parts.append(rows.select([ids, "person_id", "camera_id"]))
    taken = pa.concat_tables(parts) if parts else None
    if taken is None or not taken.num_rows:
        raise DataError(_nothing(path, schema, split, splits, field))
    persons, cameras = taken["person_id"].fill_null(UNKNOWN), taken["camera_id"].cast(pa.int64()).fill_null(NO_CAMERA)
    return LabelledRows(path, taken[ids], persons.to_numpy(), cameras.to_numpy())


def _nothing(path: str, schema: pa.Schema, split: str | None, splits: Counter[str | None], field: str) -> str:
    what = "usable caption of these caption_kinds" if schema is CAPTIONS else "usable row"
    if not splits:
        return f"{path}: holds no {what}"
    has = ", ".join(f"{name} ({count})" if name is not None else f"none ({count})" for name, count in splits.most_common(8))
    if split is None or split in splits:
        return f"{path}: holds no {what} but those that an editor made; set include_synthetic to score them"
    remedy = f"set {field} to one of these" if set(splits) - {None} else f"set {field} to null, which takes all"
    return f"{path}: holds no {what} of split {split!r}; its rows are of split {has}: {remedy}"


def _refuse_strangers(rows: LabelledRows, what: str) -> None:
    if not rows.known().any():
        raise DataError(
            f"{rows.origin}: none of {len(rows.person_N)} rows has a person_id, so no {what} has a right answer; give identities when the "
            "data set is ingested (source.pattern), or label them: reid-ray label"
        )


def _refuse_one_camera(queries: LabelledRows, gallery: LabelledRows) -> None:
    """image_to_image needs a known person that two cameras show, one of them among the queries."""
    for rows in (queries, gallery):
        unknown_N = rows.camera_N == NO_CAMERA
        if unknown_N.all():
            raise DataError(
                f"{rows.origin}: none of {len(unknown_N)} rows, {rows.ids[0]} the first, has a camera_id, which image_to_image needs; give "
                f"cameras when the data set is ingested, or {_ONE_CAMERA}"
            )
    asked, shown = (
        np.unique(np.stack([rows.person_N, rows.camera_N], axis=1)[rows.known() & (rows.camera_N != NO_CAMERA)], axis=0)
        for rows in (queries, gallery)
    )
    cameras = np.unique(np.concatenate([asked[:, 1], shown[:, 1]]))
    if len(cameras) < 2:
        raise DataError(
            f"{gallery.origin}: all pictures of known persons are of camera {cameras[0] if len(cameras) else 'unknown'}, but "
            f"image_to_image finds a person on another camera; {_ONE_CAMERA}"
        )
    person_S, count_S = np.unique(shown[:, 0], return_counts=True)  # of each person of the gallery, the cameras
    place_A = np.minimum(np.searchsorted(person_S, asked[:, 0]), max(len(person_S) - 1, 0))
    there_A = person_S[place_A] == asked[:, 0] if len(person_S) else np.zeros(len(asked), bool)
    if not there_A.any() or not (count_S[place_A[there_A]] - _seen_there(asked[there_A], shown) > 0).any():
        raise DataError(
            f"none of the queries of {queries.origin} has a match in {gallery.origin}: no known person is seen by two cameras; check "
            f"person_id and camera_id, or {_ONE_CAMERA}"
        )


def _seen_there(asked: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Whether (person, camera) of each row of `asked` is a row of `shown`; both are sorted and distinct."""
    kind = np.dtype([("person", np.int64), ("camera", np.int64)])
    return np.isin(*(np.ascontiguousarray(each, np.int64).view(kind).ravel() for each in (asked, shown)))


def _refuse_lone_pictures(config: EvaluateJob, rows: LabelledRows) -> None:
    """leave_one_out needs a known person of two pictures that are not of one track."""
    apart_N = apart_numbers(tracks_of(rows.ids, known_tracks(config)))
    known_N = rows.known()
    pairs = np.unique(np.stack([rows.person_N[known_N], apart_N[known_N]], axis=1), axis=0)
    if (np.unique(pairs[:, 0], return_counts=True)[1] < 2).all():
        why = "no person has a second picture" if len(pairs) == known_N.sum() else "no person has a second track"
        raise DataError(
            f"{rows.origin}: {why}, so no query has a match; label more pictures of the same people (reid-ray label), or check person_id"
        )
