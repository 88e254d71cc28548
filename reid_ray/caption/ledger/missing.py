"""Incremental work: which images lack captions, which captions lack rewrites, and which rows make up the result.

Knows listings, recipes and the ledger's keys; starts nothing. An image whose file is as it was when it was last read is found in the
digest cache and not read again; any other is read by a Ray task, and what it lacks is decided there, from the digest of what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.ledger.ledger_files import read_ledger_file
from reid_ray.caption.ledger.row_keys import ASK_TYPE, KEY_BYTES, CaptionRecipe, CaptionRequest, ImageAsk, RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import DIGEST_CACHE, KEYS, Index, Ledger, as_keys, find
from reid_ray.data.pieces import Piece
from reid_ray.data.sources import ImageListing
from reid_ray.records import IDENTITY_COLUMNS

if TYPE_CHECKING:
    import ray

ASK = pa.field("ask", ASK_TYPE)  # column beside IMAGES: the captions that an image still lacks (ImageAsk)
_SLOTS = 3  # static, dynamic, fallback
_CHUNK = 20_000


@dataclass(frozen=True)
class DigestCache:
    """The digest cache: which content an image file has, by place (its location, size and time of change); one row per place."""

    places: np.ndarray  # sorted
    table: pa.Table  # in the order of `places`


def read_digest_cache(ledger: Ledger) -> DigestCache:
    """Read the ledger's digest cache."""
    files = ledger.digest_files()
    table = pa.concat_tables([read_ledger_file(file, schema=DIGEST_CACHE) for file in files]) if files else DIGEST_CACHE.empty_table()
    places, first = np.unique(as_keys(table["place"]), return_index=True)
    return DigestCache(places, table.take(pa.array(first)))


@dataclass(frozen=True)
class CachedListing:
    """A listing joined with the digest cache: each image's content digest where it is known, without reading an image.

    row_N holds each image's row in `cache`, -1 where its place is new; starts holds where each piece's images begin.
    """

    listing: ImageListing
    cache: DigestCache
    row_N: np.ndarray
    starts: np.ndarray

    @property
    def unknown(self) -> int:
        """Images that must be read before anything can be said of them."""
        return int((self.row_N < 0).sum())


def look_up_listing(listing: ImageListing, ledger: Ledger) -> CachedListing:
    """Join a listing with the digest cache."""
    cache = read_digest_cache(ledger)
    row_P, lengths = [], []
    for piece in listing.pieces:
        places = piece.places(ledger.run)
        row_P.append(find(as_keys([place_key(place) for place in places]), cache.places))
        lengths.append(len(places))
    row_N = np.concatenate(row_P) if row_P else np.empty(0, np.int64)
    return CachedListing(listing, cache, row_N, np.cumsum([0, *lengths])[:-1])


def renewed(listing: ImageListing, ledger: Ledger) -> ImageListing:
    """The listing with the states of now wherever a place is unknown: those files changed since they were listed."""
    view = look_up_listing(listing, ledger)
    unknown = np.searchsorted(view.starts, np.flatnonzero(view.row_N < 0), side="right") - 1
    return listing.renewed(frozenset(unknown.tolist()))


def place_key(place: str) -> bytes:
    """The digest cache's key of a place: key_of("place", place), written out, for each of millions is asked for at every look."""
    return sha256(f'["place",{encode_basestring(place)}]'.encode()).digest()[:KEY_BYTES]


@dataclass
class PassPlan:
    """The plan of one captioner's pass: the pieces to read, the captions to rewrite, and the rows of the result.

    result_key and result_order name the rows of the result and their order: image, caption, rewrite.
    """

    unread: list[Piece] = field(default_factory=list)  # pieces to read
    images: int = 0  # that an engine must look at, or that must be read to know
    pending: np.ndarray = field(default_factory=lambda: np.empty(0, KEYS))  # captions there are, of which rewrites are missing
    result_key: np.ndarray = field(default_factory=lambda: np.empty(0, KEYS))
    result_order: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def done(self) -> bool:
        """Nothing left to make."""
        return not self.unread and not len(self.pending)


def orders_per_image(rewrites: RewriteRecipe | None) -> int:
    """How many order numbers an image takes up in result_order."""
    return _SLOTS * (1 + (rewrites.count if rewrites is not None else 0))


def plan_pass(view: CachedListing, captions: CaptionRecipe, rewrites: RewriteRecipe | None, index: Index) -> PassPlan:
    """Compare the rows that a captioner's pass needs with those that the ledger holds."""
    plan, lacking = PassPlan(), view.row_N < 0
    parts = [_Part()]
    names, digests = view.cache.table["image_id"], view.cache.table["image_sha256"]
    stride = orders_per_image(rewrites)
    for start in range(0, len(view.row_N), _CHUNK):
        at = np.flatnonzero(view.row_N[start : start + _CHUNK] >= 0) + start
        row = pa.array(view.row_N[at])
        images = list(zip(names.take(row).to_pylist(), digests.take(row).to_pylist(), strict=True))
        parts.append(_Part())
        for position, settled in zip(at.tolist(), caption_states(images, captions, index), strict=True):
            lacking[position] = settled.missing is not None
            for slot, (request, key, ok) in enumerate(settled.rows):
                wanted = rewrites.keys(request.caption_id, key) if ok and rewrites is not None else []
                parts[-1].add(key, wanted, position * stride + slot * (stride // _SLOTS))
        parts[-1].close(index)
    for piece, start, stop in zip(view.listing.pieces, view.starts, [*view.starts[1:], len(view.row_N)], strict=True):
        if lacking[start:stop].any():
            plan.unread.append(piece)
    plan.images = int(lacking.sum())
    plan.pending = np.unique(np.concatenate([part.pending for part in parts]))
    plan.result_key = np.concatenate([part.key for part in parts])
    plan.result_order = np.concatenate([part.order for part in parts])
    return plan


class _Part:
    """The wanted rows of a chunk of images; lists of Python objects only until it is closed."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._orders: list[int] = []
        self._parents: list[bytes | None] = []
        self.key, self.order, self.pending = np.empty(0, KEYS), np.empty(0, np.int64), np.empty(0, KEYS)

    def add(self, key: bytes, rewrites: Sequence[bytes], order: int) -> None:
        """A caption and its wanted rewrites."""
        self._keys += [key, *rewrites]
        self._orders += range(order, order + 1 + len(rewrites))
        self._parents += [None, *[key] * len(rewrites)]

    def close(self, index: Index) -> None:
        """Turn into arrays; find out whose rewrites are missing."""
        self.key, self.order = as_keys(self._keys), np.array(self._orders, np.int64)
        there = (find(self.key, index.ok) >= 0) | (find(self.key, index.failed) >= 0)
        self.pending = as_keys([parent for parent, known in zip(self._parents, there, strict=True) if parent is not None and not known])
        self._keys, self._orders, self._parents = [], [], []


@dataclass(frozen=True)
class CaptionState:
    """An image's captions in the ledger: (request, key, whether it is a text) for each one there, and what is to be asked, if anything."""

    rows: list[tuple[CaptionRequest, bytes, bool]]
    missing: ImageAsk | None


def caption_states(images: Sequence[tuple[str, str | None]], recipe: CaptionRecipe, index: Index) -> list[CaptionState]:
    """For each (image_id, image_sha256): which captions are in the ledger, and which are to be made."""
    asked = [(recipe.requests(*image), recipe.fallback(*image)) for image in images]
    keys = as_keys([key for requests, extra in asked for request in (*requests, extra) if request is not None for key in request.keys])
    ok, failed, unasked = (find(keys, known) >= 0 for known in (index.ok, index.failed, index.unasked))
    at, settled = 0, []
    for requests, fallback in asked:
        rows: list[tuple[CaptionRequest, bytes, bool]] = []
        missing: list[CaptionRequest] = []
        fallback_due = False
        for request in (*requests, fallback):
            if request is None:
                continue
            span = slice(at, at + len(request.keys))
            at += len(request.keys)
            if request is fallback and not fallback_due:
                continue
            if ok[span].any():
                rows.append((request, request.keys[int(np.argmax(ok[span]))], True))
            elif failed[span][-1]:
                rows.append((request, request.keys[-1], False))
                fallback_due |= not unasked[span][-1]
            else:
                missing.append(request)
        stand_in = fallback if any(request.kind == "dynamic" for request in missing) else None
        settled.append(CaptionState(rows, ImageAsk(tuple(missing), stand_in) if missing else None))
    return settled


class MissingFilter:
    """Filter inside the reading task: passes on the images that lack a caption, and adds what was read to the digest cache.

    Args:
        ledger: of this run.
        recipe: of the captioner.
        index: a reference to the Index in Ray's object store; a task takes the keys from there without a copy.
        record: whether places are to be written down; not where all are known.
        through: told of each piece whose images have all been passed on.
    """

    def __init__(
        self, ledger: Ledger, recipe: CaptionRecipe, index: ray.ObjectRef, *, record: bool, through: Callable[[str], None]
    ) -> None:
        self._ledger, self._recipe, self._index, self._record, self._through = ledger, recipe, index, record, through

    def __call__(self, piece: Piece) -> Iterator[pa.Table]:
        """IMAGES rows with the column ASK; images that lack nothing are left out."""
        import ray

        index: Index = ray.get(self._index)
        before = piece.places(self._ledger.run)
        seen: list[dict[str, Any]] = []
        for table in piece.tables():
            rows = table.select(["image_id", "image_sha256", *IDENTITY_COLUMNS]).to_pylist()
            seen += rows
            settled = caption_states([(row["image_id"], row["image_sha256"]) for row in rows], self._recipe, index)
            asks = pa.array([None if each.missing is None else each.missing.column_value() for each in settled], ASK_TYPE)
            yield table.append_column(ASK, asks).filter(asks.is_valid())
        if self._record:
            # A file that changed while it was read is not cached: the next lookup finds its place unknown, and it is read again.
            after = piece.renewed().places(self._ledger.run)
            rows = [row | {"place": place_key(a)} for row, a, b in zip(seen, before, after, strict=True) if a == b]
            self._ledger.commit_digests(pa.Table.from_pylist(rows, schema=DIGEST_CACHE))
        self._through(before[0] if before else "")


def some_pieces(listing: ImageListing, pieces: Sequence[Piece]) -> ImageListing:
    """The listing of a part of a source."""
    return replace(listing, pieces=tuple(pieces), count=sum(piece.rows for piece in pieces))


def rows_with(file: str, keys: np.ndarray) -> pa.Table:
    """The LEDGER rows of a file that lie under one of `keys` (sorted) and are no failures."""
    table = read_ledger_file(file)
    table = table.filter(pc.and_(pa.array(find(as_keys(table["key"]), keys) >= 0), pc.not_equal(table["status"], "failed")))
    # Their images were counted when they were captioned.
    return table.set_column(table.schema.get_field_index("image_outcome"), "image_outcome", pa.nulls(table.num_rows, pa.string()))
