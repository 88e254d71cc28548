"""What a score is of, as rows of SEEN: the gallery's pictures and the queries, and which pictures of queries the gallery has as well.

Reads the pictures once more, for their contents and perceptual hashes. Knows tables and pictures; not models or what they have seen.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import ImagesConfig
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.perceptual_hash import BITS, picture_hash
from reid_ray.data.seen_rows import image_rows, text_rows, with_source
from reid_ray.data.sources import image_listing, iter_images
from reid_ray.progress import progress_bar
from reid_ray.records import IMAGES, SEEN, text_hash64
from reid_ray.retrieval.evaluate.own_tracks import APART
from reid_ray.retrieval.evaluate.seen_lookup import hashes_of
from reid_ray.retrieval.index.near_hashes import NearHashes
from reid_ray.storage import iter_table, sha256_of

_COLUMNS = ["image_sha256", "dataset", "person_id", "source"]
_TOLD = ["content", "near", "source"]  # of a picture, by the table that has it


@dataclass(frozen=True)
class Pictures:
    """N images: rows of SEEN, their ids, and who is on them where: int64, -1 if unknown."""

    rows: pa.Table
    ids: pa.ChunkedArray
    person_N: np.ndarray
    camera_N: np.ndarray


def read_pictures(path: str, split: str | None, *, max_pixels: int) -> Pictures | None:
    """The images of a split with their contents and perceptual hashes; None if the table has none of it.

    One that cannot be decoded has no hash. A table that does not tell an image's digest is helped out.
    """
    if not _has_split(path, split):
        return None
    source = ImagesConfig(source="parquet", path=path, split=split, max_pixels=max_pixels)
    listing = image_listing(source)
    parts, ids, cameras = [], [], []
    with ThreadPoolExecutor(4) as pool, progress_bar("exposure", listing.count, unit="image") as bar:
        for piece in iter_images(source, listing=listing):
            data = piece["image"].to_pylist()
            hashed = b"".join(pool.map(lambda image: _hash(image, max_pixels), data))
            told = piece["image_sha256"].to_pylist()
            digests = [digest or (sha256_of(image) if image is not None else None) for digest, image in zip(told, data, strict=True)]
            named = with_source(piece.set_column(piece.column_names.index("image_sha256"), "image_sha256", pa.array(digests, pa.string())))
            parts.append(image_rows("", named.select(_COLUMNS), np.frombuffer(hashed, np.uint8).reshape(-1, BITS // 8)))
            ids.extend(piece["image_id"].chunks)
            cameras.append(pc.fill_null(piece["camera_id"].cast(pa.int64()), -1).to_numpy())
            bar.update(piece.num_rows)
    rows = pa.concat_tables(parts)
    return Pictures(rows, pa.chunked_array(ids, pa.string()), pc.fill_null(rows["person_id"], -1).to_numpy(), np.concatenate(cameras))


def pictures_of(items: pa.Table, pictures: Pictures) -> Pictures:
    """The images that are scored, rows of EMBEDDINGS, with what they look like and come from: null where `pictures` lacks the id.

    Who they are is theirs: the table of pictures may be another than the one that was embedded.
    """
    place_N = pc.index_in(items["item_id"], value_set=pictures.ids)
    rows, told = _named(items), pictures.rows.select(_TOLD).take(place_N)
    for name in _TOLD:
        rows = rows.set_column(rows.column_names.index(name), SEEN.field(name), told[name])
    apart = APART if APART in items.column_names else "camera_id"  # what the protocol removes by, beside the person
    who = (pc.fill_null(items[name].cast(pa.int64()), -1).to_numpy() for name in ("person_id", apart))
    return Pictures(rows, items["item_id"], *who)


def item_rows(items: pa.Table) -> pa.Table:
    """Identities and texts of rows of EMBEDDINGS, whose pictures are not at hand."""
    return pa.concat_tables([_named(items), text_rows("", text_hash64(items["text"]))])


def copies_across(queries: Pictures, gallery: Pictures) -> dict[str, int]:
    """{"images", "near"}: queries whose picture, or only a near duplicate of it, the gallery has in a row that counts.

    Rows of the query's person and camera do not count by the protocol image_to_image, by leave_one_out those of its person and track; the
    query's own row among them.
    """
    same = _counting(queries, gallery, *_same_content(queries.rows["content"], gallery.rows["content"]))
    hash_MB, row_M = hashes_of(gallery.rows["near"])
    asked_LB, row_L = hashes_of(queries.rows["near"])
    asked, found = NearHashes(hash_MB).pairs(asked_LB)
    near = _counting(queries, gallery, row_L[asked], row_M[found])
    return {"images": len(same), "near": len(np.setdiff1d(near, same))}


def gallery_digest(items: pa.Table) -> str:
    """16 hex digits of a gallery, whatever its order: which images, and of whom."""
    columns = [items[name].cast(pa.string()) for name in ("item_id", "dataset", "person_id")]
    told = pc.binary_join_element_wise(*columns, "\0", null_handling="replace", null_replacement="-")
    digest = hashlib.sha256()
    for batch in pa.chunked_array(told.take(pc.sort_indices(told))).chunks:
        digest.update("\n".join(batch.to_pylist()).encode("utf-8") + b"\n")
    return digest.hexdigest()[:16]


def _named(items: pa.Table) -> pa.Table:
    columns = items.select(["dataset", "person_id"]).append_column("image_sha256", pa.nulls(items.num_rows, pa.string()))
    return image_rows("", columns, None)


def _hash(data: bytes | None, max_pixels: int) -> bytes:
    try:
        return picture_hash(decode_image(data, max_pixels=max_pixels))
    except BadImageError:
        return bytes(BITS // 8)


def _has_split(path: str, split: str | None) -> bool:
    pieces = iter_table(path, IMAGES, columns=["split"], batch_rows=65_536)
    return any(piece.num_rows if split is None else pc.any(pc.equal(piece["split"], split)).as_py() for piece in pieces)


def _same_content(first: pa.ChunkedArray, second: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (of first, of second) of equal, known values."""
    row_F, row_S = (np.flatnonzero(pc.is_valid(column).to_numpy()) for column in (first, second))
    value_F, value_S = first.drop_null().to_numpy(), second.drop_null().to_numpy()
    order = np.argsort(value_S, kind="stable")
    low, high = (np.searchsorted(value_S[order], value_F, side=side) for side in ("left", "right"))
    count = high - low
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    return np.repeat(row_F, count), row_S[order[place]]


def _counting(queries: Pictures, gallery: Pictures, query_P: np.ndarray, gallery_P: np.ndarray) -> np.ndarray:
    """The distinct queries of pairs that the protocol does not remove; one of unknown person is no query."""
    removed_P = (queries.person_N[query_P] == gallery.person_N[gallery_P]) & (queries.camera_N[query_P] == gallery.camera_N[gallery_P])
    return np.unique(query_P[~removed_P & (queries.person_N[query_P] >= 0)])
