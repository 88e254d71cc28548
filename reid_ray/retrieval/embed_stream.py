"""Batch embedding of images or texts: a pool of Ray Data actors, each with one encoder, -> unit vectors.

Knows tables and the encoder interface; not what becomes of the vectors. The work is in plain classes (ImageEmbedder, TextEmbedder)
that take and give Arrow tables; the actors only load an encoder and call them. Every input row gives one output row: one that
cannot be embedded has status failed, a reason and a null vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import EmbedPoolConfig
from reid_ray.data.images import DEFAULT_MAX_PIXELS, BadImageError, decode_image, jpeg_thumbnail
from reid_ray.data.pieces import SOURCED, UNREAD
from reid_ray.errors import DataError
from reid_ray.model.encoder import Encoder
from reid_ray.model.plain_text import TruncationCounts
from reid_ray.own_columns import NOTHING_OWN, own_of, with_own
from reid_ray.records import CAPTIONS, EMBEDDINGS, IDENTITY_COLUMNS
from reid_ray.retrieval.encoder_identity import located_encoder
from reid_ray.storage import read_table

if TYPE_CHECKING:
    import ray.data
    from PIL import Image

# Columns that embed_images adds on request; they are for whoever builds an index, not part of the EMBEDDINGS contract.
THUMBNAIL = pa.field("thumbnail", pa.binary())  # JPEG; null where status is failed
ENCODER = pa.field("encoder_fingerprint", pa.string())  # which encoder made the vector
# Columns of texts: tokens before the cut, null where status is failed; and whether the model could not read the text to its end.
TOKENS, TRUNCATED = pa.field("text_tokens", pa.int64()), pa.field("text_truncated", pa.bool_())

# What a row to embed may have that is no column of her own.
_SOURCE = pa.schema([*SOURCED, *(field for field in CAPTIONS if field.name not in SOURCED.names)])
_CAPTION_COLUMNS = ["caption_id", "image_id", "kind", "text", "status", *IDENTITY_COLUMNS]


class ImageEmbedder:
    """IMAGES tables -> EMBEDDINGS tables of kind image, plus the images' own columns, encoder_fingerprint and, if asked for, thumbnail."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        thumbnail_height: int | None = None,
        include_synthetic: bool = True,
    ) -> None:
        self._encoder, self._max_pixels, self._thumbnail_height = encoder, max_pixels, thumbnail_height
        self._include_synthetic = include_synthetic

    def __call__(self, images: pa.Table) -> pa.Table:
        """Embed a batch; rows stay in order. Reasons: those of decode_image, not_finite, zero_vector and, if left out, synthetic."""
        pictures: dict[int, Image.Image] = {}
        reasons: dict[int, str] = {}
        unread = images[UNREAD.name].to_pylist() if UNREAD.name in images.column_names else [None] * images.num_rows
        edited = images["synthetic"].to_pylist() if not self._include_synthetic else [None] * images.num_rows
        for row, data in enumerate(images["image"].to_pylist()):
            if edited[row]:
                reasons[row] = "synthetic: an editor made the picture, and include_synthetic is false"
                continue
            try:
                pictures[row] = decode_image(data, max_pixels=self._max_pixels, unread=unread[row])
            except BadImageError as error:
                reasons[row] = str(error)
        vectors = _encode(self._encoder.encode_images, pictures, reasons)
        table = _embeddings(
            images,
            "image",
            item_ids=images["image_id"],
            texts=None,
            vectors=vectors,
            reasons=reasons,
            fingerprint=self._encoder.fingerprint,
        )
        if self._thumbnail_height is None:
            return table
        height = self._thumbnail_height
        thumbnails = [
            jpeg_thumbnail(pictures[row], width=4 * height, height=height) if row in vectors else None for row in range(images.num_rows)
        ]
        return table.append_column(THUMBNAIL, pa.array(thumbnails, THUMBNAIL.type))


class TextEmbedder:
    """CAPTIONS tables -> EMBEDDINGS tables of kind text, plus the columns encoder_fingerprint, text_tokens and text_truncated."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __call__(self, captions: pa.Table) -> pa.Table:
        """Embed a batch; rows stay in order. Reasons: caption_failed (no text to embed), empty_text, not_finite, zero_vector."""
        texts: dict[int, str] = {}
        reasons: dict[int, str] = {}
        for row, (text, status) in enumerate(zip(captions["text"].to_pylist(), captions["status"].to_pylist(), strict=True)):
            if status == "failed":
                reasons[row] = "caption_failed: the caption itself is a failed row"
            elif not text or not text.strip():
                reasons[row] = "empty_text: the caption holds no text"
            else:
                texts[row] = text
        tokens: dict[int, int] = {}

        def encode(texts_of_batch: list[str]) -> np.ndarray:
            vector_ND, tokens_N = self._encoder.encode_and_measure(texts_of_batch)
            tokens.update(zip(texts, tokens_N.tolist(), strict=True))
            return vector_ND

        vectors = _encode(encode, texts, reasons)
        table = _embeddings(
            captions,
            "text",
            item_ids=captions["caption_id"],
            texts=captions["text"],
            vectors=vectors,
            reasons=reasons,
            fingerprint=self._encoder.fingerprint,
        )
        measured = [tokens[row] if row in vectors else None for row in range(captions.num_rows)]
        cut = [None if length is None else length > self._encoder.context for length in measured]
        return table.append_column(TOKENS, pa.array(measured, TOKENS.type)).append_column(TRUNCATED, pa.array(cut, TRUNCATED.type))


def add_truncation_counts(cut: TruncationCounts, table: pa.Table) -> None:
    """Count the rows of a table that has TOKENS and TRUNCATED."""
    cut.of += table.num_rows - table[TOKENS.name].null_count
    cut.truncated += pc.sum(table[TRUNCATED.name]).as_py() or 0
    cut.longest = max(cut.longest, pc.max(table[TOKENS.name]).as_py() or 0)


def embed_images(
    images: ray.data.Dataset,
    encoder_path: str,
    pool: EmbedPoolConfig,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    thumbnail_height: int | None = None,
    include_synthetic: bool = True,
) -> ray.data.Dataset:
    """A Ray Dataset of EMBEDDINGS rows, one for each row of `images` (IMAGES schema). Call and run it inside ray_data_execution.

    Args:
        images: rows of the IMAGES schema with encoded bytes.
        encoder_path: folder that load_encoder loads, which every node must see, or a hub name (fetch_encoder).
        pool: actors, what each asks for, rows per call, and the encoder's precision.
        max_pixels: an image whose header claims more is a failed row.
        thumbnail_height: if given, a column `thumbnail` holds a JPEG at most so many pixels high (and 4 times as wide).
        include_synthetic: embed what an editor made, too; else those are failed rows.
    """
    options = {"max_pixels": max_pixels, "thumbnail_height": thumbnail_height, "include_synthetic": include_synthetic}
    return _embed(images, ImageActor, encoder_path, pool, options)


def embed_texts(captions: ray.data.Dataset, encoder_path: str, pool: EmbedPoolConfig) -> ray.data.Dataset:
    """A Ray Dataset of EMBEDDINGS rows, one for each row of `captions` (CAPTIONS). Call and run it inside ray_data_execution."""
    return _embed(captions, TextActor, encoder_path, pool, {})


def read_captions(path: str, *, kinds: Sequence[str], split: str | None, own: pa.Schema = NOTHING_OWN) -> pa.Table:
    """The captions of a CAPTIONS table that are of these kinds and, unless it is None, of this split; with what embed_texts needs.

    Args:
        path: CAPTIONS table.
        kinds: of captions.
        split: of their images.
        own: columns of a user's own that go along.

    Raises:
        DataError: there is none.
    """
    captions = read_table(path, with_own(CAPTIONS, own), columns=[*_CAPTION_COLUMNS, *own.names])
    wanted = pc.is_in(captions["kind"], pa.array(kinds))
    if split is not None:
        wanted = pc.and_(wanted, pc.fill_null(pc.equal(captions["split"], split), False))
    captions = captions.filter(wanted)
    if not captions.num_rows:
        raise DataError(f"{path}: holds no caption of kinds {list(kinds)} in split {split!r}; check caption_kinds and split")
    return captions


def caption_rows(captions: pa.Table) -> ray.data.Dataset:
    """The captions as a Ray Dataset of small blocks, so that all actors get some."""
    import ray.data

    return ray.data.from_arrow(caption_blocks(captions))


def caption_blocks(captions: pa.Table) -> list[pa.Table]:
    """The captions in tables of 1024 rows."""
    return [captions.slice(start, 1024) for start in range(0, captions.num_rows, 1024)]


class ImageActor:
    """An ImageEmbedder with the encoder at a path."""

    def __init__(self, encoder_path: str, pool: EmbedPoolConfig, **options: Any) -> None:
        self._embedder = ImageEmbedder(_load(encoder_path, pool), **options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Embed a batch."""
        return self._embedder(batch)


class TextActor:
    """A TextEmbedder with the encoder at a path."""

    def __init__(self, encoder_path: str, pool: EmbedPoolConfig) -> None:
        self._embedder = TextEmbedder(_load(encoder_path, pool))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Embed a batch."""
        return self._embedder(batch)


def _embed(dataset: ray.data.Dataset, actor: type, encoder_path: str, pool: EmbedPoolConfig, options: dict[str, Any]) -> ray.data.Dataset:
    from reid_ray.data.execution import actor_pool

    # A relative path is one of the driver's folder, which need not be an actor's.
    arguments = {"encoder_path": located_encoder(encoder_path), "pool": pool, **options}
    return dataset.map_batches(actor, fn_constructor_kwargs=arguments, **actor_pool(pool))


def _load(encoder_path: str, pool: EmbedPoolConfig) -> Encoder:
    import torch

    from reid_ray.model.half_precision import with_precision
    from reid_ray.model.pretrained import load_encoder

    torch.set_num_threads(max(1, int(pool.num_cpus)))
    device = "cuda:0" if pool.num_gpus else "cpu"
    return with_precision(load_encoder(encoder_path, device=device, batch_size=pool.batch_size), pool.precision, device=device)


def _encode(encode: Any, inputs: dict[int, Any], reasons: dict[int, str]) -> dict[int, np.ndarray]:
    """Vectors by row; rows whose vector has no direction (NaN, infinity, all zero) go to `reasons`: one would spoil every ranking."""
    if not inputs:
        return {}
    vector_ND = np.asarray(encode(list(inputs.values())), dtype=np.float32)
    vectors = dict(zip(inputs, vector_ND, strict=True))
    for row, vector in list(vectors.items()):
        if not np.isfinite(vector).all():
            reasons[row] = "not_finite: the encoder gave NaN or infinity"
        elif not vector.any():
            reasons[row] = "zero_vector: the encoder gave zeros, which have no direction"
        if row in reasons:
            del vectors[row]
    return vectors


def _embeddings(
    source: pa.Table,
    kind: str,
    *,
    item_ids: pa.ChunkedArray,
    texts: pa.ChunkedArray | None,
    vectors: dict[int, np.ndarray],
    reasons: dict[int, str],
    fingerprint: str,
) -> pa.Table:
    rows: Sequence[int] = range(source.num_rows)
    columns = {
        "item_id": item_ids,
        "kind": pa.array([kind] * len(rows), pa.string()),
        "embedding": pa.array([vectors.get(row) for row in rows], pa.list_(pa.float32())),
        "status": pa.array(["ok" if row in vectors else "failed" for row in rows], pa.string()),
        "reason": pa.array([reasons.get(row) for row in rows], pa.string()),
        "image_id": source["image_id"],
        "text": texts if texts is not None else pa.nulls(len(rows), pa.string()),
        **{name: source[name] for name in IDENTITY_COLUMNS},
    }
    own = own_of(source.schema, _SOURCE)
    columns |= {name: source[name] for name in own.names}
    schema = with_own(EMBEDDINGS, own)
    table = pa.table([columns[field.name] for field in schema], schema=schema)
    return table.append_column(ENCODER, pa.array([fingerprint] * len(rows), pa.string()))
