"""Arrow schemas of the tables that pass between jobs (IMAGES, CAPTIONS, SEGMENTS, EMBEDDINGS, HITS, ...): the only contract between them.

Every job reads and writes Parquet in these schemas. A column that a source does not know is null, never a made-up value. A schema's
metadata holds the number of its format, and a file inherits it (reid_ray.versions): who changes a schema raises the number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.versions import stamp

# Identity and camera labels, with data set, split and origin; shared by every table with rows about an image, and handed on with them.
_IDENTITY_FIELDS: list[pa.Field] = [
    pa.field("dataset", pa.string()),  # name of the data set the image comes from
    pa.field("split", pa.string()),  # train | val | test | query | gallery; null: unsplit
    pa.field("person_id", pa.int64()),  # identity; null: unknown
    pa.field("camera_id", pa.int32()),  # camera; null: unknown
    pa.field(
        "synthetic", pa.bool_()
    ),  # true: an editor made the picture, so nobody looks like this; null or false: a photograph, or unknown
]
IDENTITY_COLUMNS = tuple(field.name for field in _IDENTITY_FIELDS)

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # unique in its table: relative path, LMDB key or synthetic name
        pa.field("image", pa.binary()),  # encoded file (JPEG, PNG, ...); null if only a path is kept
        pa.field("path", pa.string()),  # where the file lies; null for generated images
        pa.field("image_sha256", pa.string()),  # hex digest of the encoded bytes: the image's content identity
        pa.field("width", pa.int32()),  # pixels, after EXIF rotation; null if unreadable
        pa.field("height", pa.int32()),
        *_IDENTITY_FIELDS,
        pa.field("attributes", pa.string()),  # JSON object {attribute: value} where the truth is known, else null
    ],
    metadata=stamp("images"),
)

CAPTIONS = pa.schema(
    [
        pa.field("caption_id", pa.string(), nullable=False),  # digest of image content, instruction, model, sampling: see content_keys.py
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string()),
        pa.field("parent_id", pa.string()),  # caption_id of the caption that a rewrite rewrites, else null
        pa.field("kind", pa.string(), nullable=False),  # human | static | dynamic | rewrite
        pa.field("text", pa.string()),  # null only where status is failed
        pa.field("status", pa.string(), nullable=False),  # ok | unfaithful (a rewrite below alpha) | failed
        pa.field("reason", pa.string()),  # why the row is not ok: a short code, ": ", detail
        pa.field("faithfulness", pa.float32()),  # cosine of a rewrite with its original in [-1, 1], else null
        pa.field("agreement", pa.float32()),  # attribute agreement of a rewrite with its original in [0, 1], else null
        pa.field("tries", pa.int32()),  # generations spent on this row
        pa.field("captioner", pa.string()),  # the configuration's name of the captioner; of a rewrite, of its original; else null
        pa.field("model", pa.string()),  # model path or hub name; null for human captions
        pa.field("revision", pa.string()),  # digest or hub revision of the weights
        pa.field("instruction_id", pa.string()),  # which instruction or template
        pa.field("prompt_fingerprint", pa.string()),  # digest of instruction text and sampling
        pa.field("seed", pa.int64()),
        *_IDENTITY_FIELDS,
    ],
    metadata=stamp("captions"),
)

# Where on an image one of a person's things is: one row for each image, slot and caption that could name it (or each image and slot,
# where there are no captions), so that what was not found is on record, too.
SEGMENTS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string()),
        pa.field("slot", pa.string(), nullable=False),  # hair | upper | lower | full | shoes | bag | hat
        pa.field("caption_id", pa.string()),  # the caption whose noun this is; null: no caption was linked
        pa.field("noun", pa.string()),  # as the caption spells it: "denim jeans"
        pa.field("noun_start", pa.int32()),  # the noun in the caption's text: characters noun_start to noun_end (exclusive)
        pa.field("noun_end", pa.int32()),
        pa.field("mask", pa.binary()),  # PNG of the image's size, one bit a pixel, 1 where the thing is; null where status is not ok
        pa.field("box", pa.list_(pa.int32(), 4)),  # left, top, right, bottom of the mask in pixels, right and bottom exclusive
        pa.field("area", pa.float32()),  # share of the image's pixels in the mask, in [0, 1]
        pa.field("source", pa.string(), nullable=False),  # truth, or the name of what parsed the image
        pa.field("revision", pa.string()),  # digest or hub revision of the parser's weights; null for truth
        pa.field("status", pa.string(), nullable=False),  # ok | absent (the image or the caption has none) | failed
        pa.field("reason", pa.string()),  # why the row is not ok: a short code, ": ", detail
        *_IDENTITY_FIELDS,
    ],
    metadata=stamp("segments"),
)

# The bank of things to dress people in. The identity columns are those of the image that a reference was cut out of.
REFERENCES = pa.schema(
    [
        pa.field("reference_id", pa.string(), nullable=False),  # digest of slot, size and visible pixels: one thing, one id
        pa.field("slot", pa.string(), nullable=False),
        pa.field("values", pa.string()),  # JSON object {attribute: value} of what is known of it, else null
        pa.field("image", pa.binary()),  # PNG, RGBA, cut to the thing's box; alpha 255 where the thing is, else 0; null where not ok
        pa.field("source_image_id", pa.string(), nullable=False),  # image it was cut out of, or its file below the folder
        pa.field("image_sha256", pa.string()),  # of that image
        pa.field("source", pa.string(), nullable=False),  # table, or the configuration's name of the folder
        pa.field("status", pa.string(), nullable=False),  # ok | refused (may not be used) | failed (cannot be)
        pa.field("reason", pa.string()),
        *_IDENTITY_FIELDS,
    ],
    metadata=stamp("references"),
)

# What was changed on each edited picture, and how it came out; the picture itself is a row of IMAGES, its caption one of CAPTIONS.
EDITS = pa.schema(
    [
        pa.field("edit_id", pa.string(), nullable=False),  # digest of source image, slot -> reference, editor and sampling
        pa.field("image_id", pa.string()),  # the new picture's; null where there is none
        pa.field("image_sha256", pa.string()),
        pa.field("source_image_id", pa.string(), nullable=False),
        pa.field("source_sha256", pa.string()),
        pa.field("person_id", pa.int64()),  # the new person's
        pa.field("source_person_id", pa.int64()),
        pa.field(
            "slots",
            pa.list_(
                pa.struct(
                    [
                        pa.field("slot", pa.string()),
                        pa.field("reference_id", pa.string()),
                        pa.field("mask_sha256", pa.string()),  # of the mask's PNG in SEGMENTS
                        pa.field("old", pa.string()),  # JSON {attribute: value}: of the source, as far as known
                        pa.field("new", pa.string()),  # what the reference has
                        pa.field("read", pa.string()),  # what the verifier reads on the new picture
                    ]
                )
            ),
        ),
        pa.field("editor", pa.string(), nullable=False),  # folder or hub name
        pa.field("revision", pa.string()),  # digest or hub revision of the editor's weights
        pa.field("fingerprint", pa.string()),  # digest of the sampling
        pa.field("seed", pa.int64()),  # of the try that stands
        pa.field("difference_outside", pa.float32()),  # mean absolute grey levels outside the masks, new picture against source
        pa.field("tries", pa.int32()),
        pa.field("status", pa.string(), nullable=False),  # ok | rejected (by the verifier) | failed
        pa.field("reason", pa.string()),
        *[each for each in _IDENTITY_FIELDS if each.name != "person_id"],
    ],
    metadata=stamp("edits"),
)

EMBEDDINGS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),  # image_id or caption_id
        pa.field("kind", pa.string(), nullable=False),  # image | text
        pa.field("embedding", pa.list_(pa.float32())),  # L2-normalised; null where status is failed
        pa.field("status", pa.string(), nullable=False),  # ok | failed
        pa.field("reason", pa.string()),
        pa.field("image_id", pa.string()),  # the image, or the image that a text describes
        pa.field("text", pa.string()),  # the text, for kind text
        *_IDENTITY_FIELDS,
    ],
    metadata=stamp("embeddings"),
)

# Beside a model's weights: the images and texts that they were trained on, and those that chose them; theirs and those of the weights
# that training went on from.
SEEN_FILE = "seen.parquet"
SEEN = pa.schema(
    [
        pa.field("role", pa.string(), nullable=False),  # train | val | unknown: what `weights` have seen is not recorded
        pa.field("kind", pa.string()),  # image | text; null of role unknown
        pa.field("content", pa.int64()),  # content_hash64 of an image, null if the table did not tell its digest; text_hash64 of a text
        pa.field("near", pa.binary(16)),  # perceptual hash of an image (data/perceptual_hash.py); null: not recorded
        pa.field("dataset", pa.string()),  # of an image
        pa.field("person_id", pa.int64()),
        pa.field("source", pa.string()),  # of an image: the data set that its own data set took it from, where an entry says so
        pa.field("weights", pa.string()),  # null: the training beside which this lies; else what it went on from
    ],
    metadata=stamp("seen"),
)

HITS = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("query_text", pa.string()),
        pa.field("query_person_id", pa.int64()),
        pa.field("rank", pa.int32(), nullable=False),  # 1 is best
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("person_id", pa.int64()),
        pa.field("camera_id", pa.int32()),
        pa.field("score", pa.float32(), nullable=False),  # cosine similarity
        pa.field("correct", pa.bool_()),  # same person_id as the query; null if either is unknown
    ],
    metadata=stamp("hits"),
)


def table_of(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of `rows` in `schema`; absent columns become null, unknown ones are refused.

    Raises:
        DataError: a row has a column that the schema lacks, or lacks one that must not be null.
    """
    names = set(schema.names)
    for row in rows:
        unknown = sorted(set(row) - names)
        if unknown:
            raise DataError(f"row has columns {unknown} that the schema lacks; known are {schema.names}")
    table = pa.table({field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}, schema=schema)
    _refuse_nulls(table, schema, "rows")
    return table


def conform(table: pa.Table, schema: pa.Schema, *, origin: str) -> pa.Table:
    """`table` with exactly the columns of `schema`: casts types, adds absent nullable columns as null, drops others.

    What pandas and Hugging Face's datasets write for the same things is read as it is meant: NaN for a number that is not known, a struct
    {bytes, path} for an image.

    Raises:
        DataError: names `origin`, the column and what is wrong with it.
    """
    if twice := [name for name in schema.names if table.column_names.count(name) > 1]:
        raise DataError(f"{origin}: has the column {', '.join(twice)} more than once; keep one of each")
    table = unpack_images(table)
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            if not field.nullable:
                raise DataError(f"{origin}: column {field.name} is missing; the table has {table.column_names}")
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(_without_nan(table.column(field.name), field.type).cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{origin}: column {field.name} should be {field.type}: {error}") from None
    result = pa.table(columns, schema=schema)
    _refuse_nulls(result, schema, origin)
    return result


def unpack_images(table: pa.Table) -> pa.Table:
    """`table` with a column image of structs {bytes, path} as columns image and, for images without bytes, path; others as they are."""
    if "image" not in table.column_names or not pa.types.is_struct(table.schema.field("image").type):
        return table
    column = table.column("image")
    fields = {field.name for field in table.schema.field("image").type}
    if "bytes" not in fields:
        return table
    data = pc.struct_field(column, "bytes")
    table = table.set_column(table.column_names.index("image"), "image", data)
    if "path" not in fields:
        return table
    # beside bytes the path is only the file's former name
    path = pc.if_else(pc.is_null(data), pc.struct_field(column, "path").cast(pa.string()), pa.scalar(None, pa.string()))
    if "path" not in table.column_names:
        return table.append_column("path", path)
    own = table.column_names.index("path")
    return table.set_column(own, "path", pc.coalesce(table.column(own).cast(pa.string()), path))


def _without_nan(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if not (pa.types.is_integer(wanted) and pa.types.is_floating(column.type)):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _refuse_nulls(table: pa.Table, schema: pa.Schema, origin: str) -> None:
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise DataError(f"{origin}: column {field.name} must not be null, but is in {table.column(field.name).null_count} rows")


def content_hash64(sha256: pa.ChunkedArray) -> pa.ChunkedArray:
    """The first 64 bits of hex digests as signed integers, null where there is none: 8 bytes an image, for comparing millions."""
    return pa.chunked_array(
        [[None if digest is None else int.from_bytes(bytes.fromhex(digest[:16]), "big", signed=True) for digest in sha256.to_pylist()]],
        pa.int64(),
    )


def text_hash64(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """64 bits of hash of each text's words, letters' case and all else left out; distinct and sorted, int64, nulls dropped."""
    words = pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\pL\pN]+", " ")
    digests = [hashlib.blake2b(text.strip().encode("utf-8"), digest_size=8).digest() for text in words.to_pylist() if text is not None]
    return np.unique(np.frombuffer(b"".join(digests), "<i8"))
