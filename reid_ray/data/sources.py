"""Where images come from: synthetic people, a folder of image files, or a Parquet table, at a path or an address, as rows of SOURCED.

Knows names, splits and limits; not what an image shows, and never decodes one: rows carry the encoded bytes and what the header says.
The driver only lists, once: names and counts and, where they are asked for, the files' states, many at a time. Bytes are read where the
rows are made, a piece of a few dozen images at a time (pieces.py), by Ray Data tasks (`read_images`) or in this process (`iter_images`).
"""

from __future__ import annotations

import json
import os
import pickle
import time
import uuid
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from reid_ray.config.called import called
from reid_ray.config.common import ImagesConfig
from reid_ray.data.images import IMAGE_SUFFIXES, is_image_name
from reid_ray.data.labels.path_and_table import labeller_of, labels_need_all
from reid_ray.data.pieces import (
    SETTLED_S,
    TABLE_ROWS,
    FilePiece,
    Piece,
    SyntheticPiece,
    TablePiece,
    pack_names,
    packed_states,
    unpack_names,
)
from reid_ray.data.table_listing import table_pieces
from reid_ray.errors import ConfigError, DataError
from reid_ray.storage.file_systems import store_at
from reid_ray.storage.table_files import parquet_files

if TYPE_CHECKING:
    import ray.data

_MAX_PIECES = 20_000  # of a large source: more tasks than this cost the scheduler more than they give
_SAMPLE, _AT_ONCE_S = 16, 2e-5  # pieces that are asked first, and seconds a file
_STATERS = 32  # pieces whose files are asked for their states at the same time: over a network that is waiting
# A reading task gives 200 pictures a second where a file takes 5 ms, or 80 ms at a store, 16 at a time; an engine with a model
# of 7 B weights and one short caption for a picture takes 40.
_LEAST_READERS, _ENGINES_PER_READER = 2, 5
_STORE_ROWS = 128  # of a piece: its last files keep only some of the threads waiting


@dataclass(frozen=True)
class ImageListing:
    """What a source holds, known without reading an image: how many, and how they divide into pieces of work."""

    count: int
    origin: str  # for messages and manifests: the path, or what was generated
    pieces: tuple[Piece, ...]
    generated: bool = False  # made from numbers, so that configuration and package say all about it
    at_store: bool = False  # at an address, whose listing told the files' states
    further: tuple[str, ...] = ()  # columns beside those of IMAGES
    told: Mapping[str, int] = field(default_factory=dict)  # how far a table beside the folder is of its images

    def places(self, session: str) -> Iterator[list[str]]:
        """Per piece and row, where the image lies and in which state: the same words for the same bytes, known without reading them.

        A file is known by path, size and time of change, as they were when it was listed if the listing has them, else as they are
        now. What cannot be known so (a file of the last two seconds may change again without a trace; a generated image; a row of a
        table that only names a file) is known within a `session` alone.
        """
        return (piece.places(session) for piece in self.pieces)

    def renewed(self, old: Collection[int] | None = None) -> Self:
        """The listing with the states of its files as they are now.

        They are asked for many at a time, unless some of them, from all over the listing, are there at once: on a disk whose states are in
        memory, threads would only wait for each other.

        Args:
            old: numbers of the pieces that are looked at again; None takes all.
        """
        pieces = list(self.pieces)
        numbers = list(range(len(pieces))) if old is None else sorted(old)
        some = numbers[:: max(_SAMPLE, len(numbers) // _SAMPLE)]
        clock = time.perf_counter()
        for number in some:
            pieces[number] = pieces[number].renewed()
        slow = time.perf_counter() - clock > _AT_ONCE_S * sum(pieces[number].rows for number in some)
        others = sorted(set(numbers) - set(some))
        with ThreadPoolExecutor(_STATERS if slow else 1, thread_name_prefix="state") as pool:
            for number, piece in zip(others, pool.map(lambda number: pieces[number].renewed(), others), strict=True):
                pieces[number] = piece
        return replace(self, pieces=tuple(pieces))

    def digest(self) -> str:
        """32 hex digits that change when an image is added, leaves or changes; never the same twice where that cannot be told unread."""
        session = "generated" if self.generated else uuid.uuid4().hex
        found, young = self._digest(session)
        if young and not self.generated:
            time.sleep(SETTLED_S)  # files that changed just now: a little later their places are known for good
            found, _ = self._digest(session)
        return found

    def _digest(self, session: str) -> tuple[str, bool]:
        """(digest of all places, whether some are known in this session alone); the places of one piece are held at a time."""
        digest, young = sha256(b"[["), False
        for number, places in enumerate(self.places(session)):
            young |= any(place.startswith(session) for place in places)
            digest.update(b"," * bool(number) + json.dumps(places, ensure_ascii=False, separators=(",", ":")).encode())
        digest.update(b"]]")
        return digest.hexdigest()[:32], young

    def contents(self) -> dict[str, str]:
        """For JobOutput: a digest of what lies at an address, from this listing, so that it need not be listed again; else nothing."""
        if not self.at_store:
            return {}
        digest = sha256()
        for piece in self.pieces:
            digest.update(repr(_listed(piece)).encode())
        return {"images.path": digest.hexdigest()[:16]}


def image_listing(config: ImagesConfig, *, states: bool = False, carry: bool = False) -> ImageListing:
    """List a source, without looking into an image.

    A folder is searched recursively, in the order of ingest; files with an image suffix (IMAGE_SUFFIXES, any case) count, names that
    start with a dot do not.

    Args:
        config: the source.
        states: hold the files' sizes and times of change, too, which cost a local disk a call for each; a store's listing has them.
        carry: of a table: the rows shall have the columns beside those of IMAGES, too. Of a folder they have what is known of each image.

    Raises:
        DataError: the path is missing, holds no image, or no image of `config.split`; or a column cannot be carried. Names the path and the
            remedy.
        ConfigError: a split is asked of a folder, which has none.
    """
    if config.source == "parquet":
        listing = _list_parquet(config, carry=carry)
    else:
        listing = _list_folder(config) if config.source == "folder" else _list_synthetic(config)
    if not listing.count:
        wanted = f"no image of split {config.split!r}" if config.split else "no image"
        raise DataError(f"{listing.origin}: holds {wanted}; check {called('images.path')} and {called('images.split')}")
    return listing.renewed() if states and not listing.at_store else listing


def read_images(
    config: ImagesConfig,
    *,
    listing: ImageListing | None = None,
    through: Callable[[Piece], Iterator[pa.Table]] | None = None,
    engines: int = 0,
) -> ray.data.Dataset:
    """A Ray Dataset of SOURCED rows in small blocks, read or generated by Ray tasks; Ray must be running.

    Args:
        config: the source.
        listing: what image_listing(config) returned, to save listing it twice, or some of its pieces.
        through: how a piece becomes tables, where not by its own `tables` alone; runs in the reading task.
        engines: how many answer for the pictures at the same time; the readers are as many as they need if `config` does not say.
    """
    import ray

    listing = listing or image_listing(config)
    # Pickled pieces rather than columns: a file name need not be valid UTF-8, an Arrow string must be.
    pieces = [{"piece": pickle.dumps(piece)} for piece in listing.pieces]
    images = ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
        _read_pieces,
        fn_args=(through,),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(readers_for(config, engines)),
    )
    # A row group may be far larger than a block should be; other pieces are small already.
    return images.repartition(target_num_rows_per_block=TABLE_ROWS) if config.source == "parquet" else images


def readers_for(config: ImagesConfig, engines: int) -> int:
    """Reading tasks at the same time: as configured, else what so many engines eat."""
    return config.readers or max(_LEAST_READERS, -(-engines // _ENGINES_PER_READER))


def iter_images(config: ImagesConfig, *, listing: ImageListing | None = None, only: pa.Array | None = None) -> Iterator[pa.Table]:
    """The same rows in this process, in the source's order, as small SOURCED tables; needs no Ray.

    Args:
        config: the source.
        listing: as of read_images.
        only: image_ids of the rows to give, and of the only files to open; None gives all.
    """
    for piece in (listing or image_listing(config)).pieces:
        yield from piece.tables(only)


def _read_pieces(batch: pa.Table, through: Callable[[Piece], Iterator[pa.Table]] | None) -> Iterator[pa.Table]:
    for pickled in batch["piece"].to_pylist():
        piece: Piece = pickle.loads(pickled)
        yield from through(piece) if through is not None else piece.tables()


# --- listing


def _list_synthetic(config: ImagesConfig) -> ImageListing:
    from reid_ray.data.synthetic.people import SyntheticPeople
    from reid_ray.data.synthetic.traits import split_of

    people = SyntheticPeople(config.synthetic)
    number_N = np.arange(people.num_images)
    if config.split is not None:
        number_N = number_N[split_of(config.synthetic)[people.shots().person_N] == config.split]
    number_N = number_N[: config.limit]
    rows = _piece_rows(len(number_N))
    pieces = [SyntheticPiece(config.synthetic, _ranges(number_N[at : at + rows])) for at in range(0, len(number_N), rows)]
    return ImageListing(len(number_N), f"synthetic people (seed {config.synthetic.seed})", tuple(pieces), generated=True)


def _ranges(number_N: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as (start, stop) ranges without gaps."""
    runs = np.split(number_N, np.flatnonzero(np.diff(number_N) > 1) + 1)
    return tuple((int(run[0]), int(run[-1]) + 1) for run in runs)


def _list_folder(config: ImagesConfig) -> ImageListing:
    if config.split is not None:
        raise ConfigError(
            f"{called('images.split')} is {config.split!r}, but a folder of images has no splits; drop it or give a Parquet table"
        )
    store = store_at(_resolved(str(config.path)))
    if store.is_file():
        raise DataError(
            f"{store}: is a file, but {called('images.source')} is folder; set {called('images.path')} to the folder, or "
            f"{called('images.source')} to parquet"
        )
    if not store.is_folder():
        raise DataError(f"{store}: does not exist; set {called('images.path')} to a folder of images")
    packed, ends = bytearray(), array("q", [0])  # of millions of files
    listed = packed_states([])
    others = 0
    for name, state in store.walk_states():
        if not is_image_name(name):
            others += 1
            continue
        packed += pack_names([name])
        ends.append(len(packed))
        if not store.is_local:
            listed.extend(packed_states([state]))
        if len(ends) - 1 == config.limit and not labels_need_all(config):
            break
    found = len(ends) - 1
    count = min(found, config.limit or found)
    if not count:
        held = f"{others} files but none with an image extension ({', '.join(sorted(IMAGE_SUFFIXES))})" if others else "no file at all"
        raise DataError(f"{store}: holds {held}; set {called('images.path')} to a folder of images")
    names = (name for at in range(0, found, TABLE_ROWS) for name in unpack_names(packed[ends[at] : ends[min(at + TABLE_ROWS, found)]]))
    labeller = labeller_of(config, store.root, names)
    rows = _piece_rows(count, at_store=not store.is_local)
    starts = range(0, count, rows)
    pieces = [
        FilePiece(store, bytes(packed[ends[at] : ends[stop]]), config.max_pixels, None if store.is_local else listed[2 * at : 2 * stop])
        for at, stop in zip(starts, [*starts[1:], count], strict=True)
    ]
    if labeller is None:
        return ImageListing(count, str(store), tuple(pieces), at_store=not store.is_local)
    pieces = [replace(piece, labels=labeller.labels(piece.names)) for piece in pieces]
    further, told = tuple(labeller.own.names), labeller.facts()
    return ImageListing(count, str(store), tuple(pieces), at_store=not store.is_local, further=further, told=told)


def _list_parquet(config: ImagesConfig, *, carry: bool) -> ImageListing:
    location = str(config.path)
    files = parquet_files(_resolved(location))
    pieces, further = table_pieces(files, config, carry=carry)
    count = sum(piece.rows for piece in pieces)
    return ImageListing(count, location, tuple(pieces), at_store=not files[0].store.is_local, further=further)


def _resolved(location: str) -> str:
    """A local path absolute, links resolved: an image's place is the same whatever happens to the working directory."""
    return location if "://" in location else os.path.realpath(os.path.expanduser(location))


def _listed(piece: Piece) -> object:
    """What a store's listing told of the files that a piece is read from."""
    if isinstance(piece, FilePiece):
        return piece.names, piece.listed
    return (piece.file.name, piece.file.listed, piece.row_group, piece.rows) if isinstance(piece, TablePiece) else None


def _piece_rows(count: int, *, at_store: bool = False) -> int:
    return max(_STORE_ROWS if at_store else TABLE_ROWS, -(-count // _MAX_PIECES))
