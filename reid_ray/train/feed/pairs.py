"""Image-caption pairs, joined once into memory-mapped Arrow files: training samples, validation set, encoded images.

A worker opens them in milliseconds, shares their pages with its neighbours and reads any row by its number, which Parquet cannot
do without decoding a row group. Knows tables and bytes; not models, batches or Ray. Every caption read ends as a sample, a rewrite
or a counted reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import ImagesConfig
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.pieces import UNREAD
from reid_ray.data.sources import iter_images
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import Counts, read_table, write_json
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.mllm.config import TuneJob
from reid_ray.versions import check_json, numbered

SAMPLES, VALIDATION, PICTURES, FACTS = "samples.arrow", "validation.arrow", "pictures.arrow", "facts.json"
IDS = "ids.arrow"  # caption_id and image_id of each row of SAMPLES, for messages; read only when there is one to write
_CAPTION_COLUMNS = ["caption_id", "image_id", "parent_id", "kind", "text", "status"]
_IMAGE_COLUMNS = ["image_id", "dataset", "split", "person_id", "camera_id"]

# A row is one caption with its image; text and rewrites as written, person a dense number, picture a row of PICTURES, camera -1 if unknown.
PAIRS = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("rewrites", pa.list_(pa.string()), nullable=False),
        pa.field("person", pa.int64(), nullable=False),
        pa.field("picture", pa.int64(), nullable=False),
        pa.field("camera", pa.int64(), nullable=False),
    ]
)


PairsJob = TrainJob | TuneJob


def prepare_pairs(
    config: PairsJob,
    folder: Path,
    counts: Counts,
    *,
    fits: Callable[[str], bool] | None = None,
    answered: Callable[[pa.Table], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Join config.images and config.captions and write what training reads into `folder`.

    Args:
        config: the training job; images, captions and max_pixels count here.
        folder: where the files go; must exist.
        counts: of captions: read, written (samples, rewrites and validation queries), failed by reason.
        fits: whether the model can read a text; one that it cannot is counted as too_long.
        answered: of the training pairs, which have a text to learn to say; others are counted as no_continuation.

    Returns:
        Facts for the manifest: samples, rewrites, persons, pictures, validation queries and pictures, names of the data sets.

    Raises:
        DataError: a table is unusable, or nothing is left to train or validate on (says why captions dropped out), or the sampler
            cannot fill a batch.
    """
    images = _read_images(config)
    captions = _read_captions(config, images, counts)
    if fits is not None:
        short = pa.chunked_array([[fits(text) for text in captions["text"].to_pylist()]], pa.bool_())
        captions = _keep(captions, short, otherwise="too_long", counts=counts)
    wanted = pc.unique(captions["image_id"])
    pictures = pack_pictures(config.images.path, wanted, folder / PICTURES, max_pixels=config.images.max_pixels)
    reasons = pa.chunked_array([[pictures.reasons.get(name) for name in captions["image_id"].to_pylist()]], pa.string())
    captions = _keep(captions, pc.is_null(reasons), otherwise=reasons, counts=counts)
    original = pc.is_in(captions["kind"], pa.array(config.captions.kinds))
    rewrites, captions = captions.filter(pc.invert(original)), captions.filter(original)
    rewrites = _keep(rewrites, pc.is_in(rewrites["parent_id"], captions["caption_id"]), otherwise="parent_not_used", counts=counts)
    pairs = _pairs(captions, rewrites, images, pictures.ids)
    learnt = pc.equal(captions["split"], config.images.train_split)
    train, ids = pairs.filter(learnt), captions.filter(learnt).select(["caption_id", "image_id"])
    val = pairs.filter(pc.not_equal(captions["split"], config.images.train_split))
    if answered is not None:
        answers = pa.chunked_array([answered(train)], pa.bool_())
        train, ids = _keep(train, answers, otherwise="no_continuation", counts=counts), ids.filter(answers)
    _refuse_empty(config, train, val, counts)
    identities = _identity_facts(config, train) if config.batches.sampler == "identity" else {}
    write_arrow(folder / SAMPLES, train)
    write_arrow(folder / IDS, ids)
    write_arrow(folder / VALIDATION, val)
    counts.written = train.num_rows + val.num_rows + rewrites.num_rows
    learnt_from = images.filter(pc.fill_null(pc.equal(images["split"], config.images.train_split), False))
    facts = {
        "samples": train.num_rows,
        "rewrites": int(pc.sum(pc.list_value_length(train["rewrites"])).as_py() or 0),
        "persons": len(pc.unique(train["person"])),
        "pictures": len(pc.unique(train["picture"])),
        "validation_queries": val.num_rows,
        "validation_pictures": len(pc.unique(val["picture"])),
        "datasets": sorted(set(learnt_from["dataset"].drop_null().to_pylist())),
        **identities,
    }
    write_json(folder / FACTS, {**numbered("prepared"), "facts": facts, "counts": counts.as_dict()})
    return facts


def read_pairs(path: Path) -> pa.Table:
    """SAMPLES or VALIDATION as a table whose columns lie in the mapped file."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


class PictureStore:
    """The encoded images of PICTURES, by row number; bytes stay in the mapped file until they are asked for.

    Pickled, it is its path: another process maps the file for itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        rows = [self._reader.get_batch(index).num_rows for index in range(self._reader.num_record_batches)]
        self._ends = np.cumsum(rows)

    def __reduce__(self) -> tuple[type[PictureStore], tuple[Path]]:
        return PictureStore, (self._path,)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(row)
        batch = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[batch - 1]) if batch else 0
        return self._reader.get_batch(batch).column("image")[row - start].as_py()


@dataclass(frozen=True)
class PackedPictures:
    """What a file of pictures holds, and what it does not."""

    ids: pa.Array  # image_id of each row of PICTURES
    reasons: dict[str, str]  # image_id -> why it is not among them


def _read_images(config: PairsJob) -> pa.Table:
    images = read_table(config.images.path, IMAGES, columns=_IMAGE_COLUMNS)
    repeated = [row["values"] for row in pc.value_counts(images["image_id"]).to_pylist() if row["counts"] > 1]
    if repeated:
        raise DataError(f"{config.images.path}: image_id {repeated[0]!r} stands in more than one row ({len(repeated)} such ids)")
    return images


def _read_captions(config: PairsJob, images: pa.Table, counts: Counts) -> pa.Table:
    """Usable captions of both splits, originals and rewrites, with the split and row of their image."""
    tables = [read_table(path, CAPTIONS, columns=_CAPTION_COLUMNS) for path in config.captions.paths]
    captions = pa.concat_tables(tables)
    counts.read += captions.num_rows
    kinds = [*config.captions.kinds, *(["rewrite"] if config.captions.reads_rewrites else [])]
    captions = _keep(captions, pc.is_in(captions["kind"], pa.array(kinds)), otherwise="other_kind", counts=counts)
    captions = _keep(captions, pc.equal(captions["status"], "ok"), otherwise=captions["status"], counts=counts)
    captions = _keep(captions, pc.fill_null(pc.greater(pc.utf8_length(captions["text"]), 0), False), otherwise="no_text", counts=counts)
    row = pc.index_in(captions["image_id"], images["image_id"])
    captions = captions.append_column("image_row", row)
    captions = _keep(captions, pc.is_valid(row), otherwise="image_unknown", counts=counts)
    captions = captions.append_column("split", images["split"].take(captions["image_row"]))
    splits = pa.array([split for split in (config.images.train_split, config.images.val_split) if split is not None])
    return _keep(captions, pc.is_in(captions["split"], splits), otherwise="other_split", counts=counts)


def _keep(table: pa.Table, keep: pa.ChunkedArray, *, otherwise: str | pa.ChunkedArray, counts: Counts) -> pa.Table:
    """Rows of `table` where `keep` holds; each other row is counted as failed for the reason `otherwise`, or its row of `otherwise`."""
    gone = pc.invert(keep)
    reasons = [otherwise] * (pc.sum(gone).as_py() or 0) if isinstance(otherwise, str) else otherwise.filter(gone).to_pylist()
    counts.failed.update(reasons)
    return table.filter(keep)


def pack_pictures(images: str, wanted: pa.Array, path: Path, *, max_pixels: int) -> PackedPictures:
    """Copy the encoded images of `wanted` into one Arrow file, each decoded once to see that it can be."""
    kept: list[str] = []
    reasons: dict[str, str] = {}
    schema = pa.schema([pa.field("image", pa.binary())])
    source = ImagesConfig(source="parquet", path=images, max_pixels=max_pixels)

    def reason(data: bytes | None, unread: str | None) -> str | None:
        try:
            decode_image(data, max_pixels=max_pixels, unread=unread)
        except BadImageError as error:
            return error.reason
        return None

    with ThreadPoolExecutor(4) as pool, pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for piece in iter_images(source):
            table = piece.filter(pc.is_in(piece["image_id"], wanted))
            data, ids = table["image"].to_pylist(), table["image_id"].to_pylist()
            bad = list(pool.map(reason, data, table[UNREAD.name].to_pylist()))
            reasons.update({name: why for name, why in zip(ids, bad, strict=True) if why is not None})
            good = [row for row, why in enumerate(bad) if why is None]
            if good:
                writer.write_batch(pa.record_batch([pa.array([data[row] for row in good], pa.binary())], schema=schema))
                kept += [ids[row] for row in good]
    return PackedPictures(pa.array(kept, pa.string()), reasons)


def _pairs(captions: pa.Table, rewrites: pa.Table, images: pa.Table, pictures: pa.Array) -> pa.Table:
    parent = pc.index_in(rewrites["parent_id"], captions["caption_id"]).to_numpy()
    order = np.argsort(parent, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=captions.num_rows))]).astype(np.int32)
    texts = rewrites["text"].take(pa.array(order)).combine_chunks()
    image_row = captions["image_row"].to_numpy()
    return pa.table(
        [
            captions["text"].combine_chunks(),
            pa.ListArray.from_arrays(pa.array(offsets), texts),
            pa.array(person_numbers(images)[image_row]),
            pc.index_in(captions["image_id"], pictures).cast(pa.int64()).combine_chunks(),
            pa.array(pc.fill_null(images["camera_id"].cast(pa.int64()), -1).to_numpy()[image_row]),
        ],
        schema=PAIRS,
    )


def person_numbers(images: pa.Table) -> np.ndarray:
    """A dense number per identity: (dataset, person_id); an image without a person_id is an identity of its own."""
    known = pc.is_valid(images["person_id"]).to_numpy()
    dataset = pc.fill_null(images["dataset"], "").combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    person = pc.fill_null(images["person_id"], 0).to_numpy()
    key = np.stack([np.where(known, dataset, -1), np.where(known, person, np.arange(images.num_rows))], axis=1)
    return np.unique(key, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _refuse_empty(config: PairsJob, train: pa.Table, val: pa.Table, counts: Counts) -> None:
    if train.num_rows < config.batches.size:
        raise DataError(
            f"{', '.join(config.captions.paths)}: {train.num_rows} captions of split {config.images.train_split!r} are usable, fewer than "
            f"batches.size {config.batches.size}; captions: {counts}; check captions.kinds and images.train_split, or lower batches.size"
        )
    if config.images.val_split is not None and not val.num_rows:
        raise DataError(
            f"{', '.join(config.captions.paths)}: no usable caption of split {config.images.val_split!r} to choose the weights by; "
            "set images.val_split to a split that the images have, or to null to keep the last weights"
        )


def _identity_facts(config: PairsJob, train: pa.Table) -> dict[str, int]:
    """How many identities show fewer pictures than sampler identity draws of each, so that theirs repeat.

    Raises:
        DataError: fewer identities than a batch holds, or none with a second picture.
    """
    pictures_P = np.bincount(np.unique(np.stack([train["person"].to_numpy(), train["picture"].to_numpy()]), axis=1)[0])
    pictures_P = pictures_P[pictures_P > 0]
    batches = config.batches
    if len(pictures_P) < batches.identities:
        raise DataError(
            f"{config.images.path}: split {config.images.train_split!r} has {len(pictures_P)} identities with captions, fewer than the "
            f"{batches.identities} of a batch (batches.size / batches.samples_per_identity); lower batches.size"
        )
    if (pictures_P == 1).all():
        raise DataError(
            f"{config.images.path}: each of the {len(pictures_P)} identities of split {config.images.train_split!r} has one picture, so "
            "batches.sampler identity has nothing to pair; give images.person_id, or set batches.sampler to shuffle"
        )
    return {
        "persons_with_one_picture": int((pictures_P == 1).sum()),
        "persons_with_repeated_pictures": int((pictures_P < batches.samples_per_identity).sum()),
    }


def read_prepared(folder: Path) -> dict[str, Any]:
    """What prepare_pairs, or prepare_held_out, wrote down of the data in `folder`.

    Raises:
        DataError: a newer version of this package prepared them.
    """
    prepared = dict(json.loads((folder / FACTS).read_text(encoding="utf-8")))
    check_json("prepared", prepared, origin=folder / FACTS)
    return prepared


def write_arrow(path: Path, table: pa.Table) -> None:
    """A table as a file that read_pairs maps."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=65_536)


def texts_of(pairs: pa.Table) -> Iterator[str]:
    """Every text of SAMPLES: captions, then rewrites."""
    for column in (pairs["text"], pc.list_flatten(pairs["rewrites"])):
        for start in range(0, len(column), 65_536):
            yield from column.slice(start, 65_536).to_pylist()
