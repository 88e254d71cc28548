"""Where images come from: synthetic people, a folder of image files, or a Parquet table, all as rows of the IMAGES schema.

Knows files, splits and limits; not what an image shows, and never decodes one: rows carry the encoded bytes and what the header
says. The driver only lists (names, counts); bytes are read where the rows are made, a piece of a few dozen images at a time, by
Ray Data tasks (`read_images`) or in this process (`iter_images`). A file that cannot be read is a row whose `image` is null: it
fails later, with a reason and a count, in whatever job decodes it.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from reid_ray.config.common import ImagesConfig, SyntheticConfig
from reid_ray.data.images import BadImageError, image_size
from reid_ray.data.parquet_errors import reading_parquet
from reid_ray.data.regular_files import open_regular, printable, raise_if_system
from reid_ray.data.store import Store
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import IMAGES, conform, table_of
from reid_ray.storage import parquet_files, sha256_of
from reid_ray.versions import check_table

if TYPE_CHECKING:
    import ray.data

# Other files in a folder (notes, archives, labels) are no images and are left out without being counted.
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
# A person crop is a few kilobytes; a "picture" beyond this is not worth a worker's memory and becomes an unreadable row.
MAX_FILE_BYTES = 256 << 20
SETTLED_S = 2.0  # a file may change twice within one tick of its file system's clock
_PIECE_ROWS = 32  # small pieces keep a pipeline streaming and its memory bounded
_MAX_PIECES = 20_000  # of a large source: more tasks than this cost the scheduler more than they give


@dataclass(frozen=True)
class _FolderPiece:
    root: str
    names: tuple[str, ...]  # relative posix paths
    max_pixels: int

    def places(self, session: str) -> list[str]:
        return [_state_of(Path(self.root, name), session) for name in self.names]

    def tables(self) -> Iterator[pa.Table]:
        yield table_of(IMAGES, [_file_row(Path(self.root), name, self.max_pixels) for name in self.names])


@dataclass(frozen=True)
class _SyntheticPiece:
    config: SyntheticConfig
    ranges: tuple[tuple[int, int], ...]  # of image numbers: start, stop

    def places(self, session: str) -> list[str]:
        # Another version of this package may draw other people from the same numbers.
        made_by = f"{session} synthetic {self.config.model_dump_json()}"
        return [f"{made_by} {number}" for start, stop in self.ranges for number in range(start, stop)]

    def tables(self) -> Iterator[pa.Table]:
        from reid_ray.data.synthetic.people import SyntheticPeople

        people = SyntheticPeople(self.config)
        yield pa.concat_tables([people.image_table(start, stop) for start, stop in self.ranges])


@dataclass(frozen=True)
class _ParquetPiece:
    file: str
    row_group: int
    rows: int  # how many matching rows to give at most
    split: str | None
    max_pixels: int
    inline: bool = True  # every row holds its bytes; else they lie in files of their own

    def places(self, session: str) -> list[str]:
        table = _state_of(Path(self.file), session) if self.inline else f"{session} {self.file}"
        return [f"{table} {self.row_group} {self.split} {row}" for row in range(self.rows)]

    def tables(self) -> Iterator[pa.Table]:
        left = self.rows
        with reading_parquet(self.file), pq.ParquetFile(self.file) as parquet:
            present = [name for name in IMAGES.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(batch_size=_PIECE_ROWS, row_groups=[self.row_group], columns=present):
                table = conform(pa.Table.from_batches([batch]), IMAGES, origin=self.file)
                if self.split is not None:
                    table = table.filter(pc.equal(table["split"], self.split))
                table = table.slice(0, left)
                left -= table.num_rows
                if table.num_rows:
                    yield _with_bytes(table, Path(self.file).parent, self.max_pixels)
                if not left:
                    return


Piece = _FolderPiece | _SyntheticPiece | _ParquetPiece


@dataclass(frozen=True)
class ImageListing:
    """What a source holds, known without reading an image: how many, and how they divide into pieces of work."""

    count: int
    origin: str  # for messages and manifests: the path, or what was generated
    pieces: tuple[Piece, ...]
    generated: bool = False  # made from numbers, so that configuration and package say all about it

    def places(self, session: str) -> list[list[str]]:
        """Per piece and row, where the image lies and in which state: the same words for the same bytes, known without reading them.

        A file is known by path, size and time of change. What cannot be known so (a file of the last two seconds may change again
        without a trace; a generated image; a row of a table that only names a file) is known within a `session` alone.
        """
        return [piece.places(session) for piece in self.pieces]


def image_listing(config: ImagesConfig) -> ImageListing:
    """List a source: names and counts only.

    A folder is searched recursively; files with an image extension (EXTENSIONS, any case) count, names that start with a dot do not.

    Raises:
        DataError: the path is missing, holds no image, or no image of `config.split`; names the path and the remedy.
        ConfigError: a split is asked of a folder, which has none.
    """
    listing = {"synthetic": _list_synthetic, "folder": _list_folder, "parquet": _list_parquet}[config.source](config)
    if not listing.count:
        wanted = f"no image of split {config.split!r}" if config.split else "no image"
        raise DataError(f"{listing.origin}: holds {wanted}; check images.path and images.split")
    return listing


def count_images(config: ImagesConfig) -> int:
    """How many rows `read_images(config)` will give."""
    return image_listing(config).count


def read_images(
    config: ImagesConfig, *, listing: ImageListing | None = None, through: Callable[[Piece], Iterator[pa.Table]] | None = None
) -> ray.data.Dataset:
    """A Ray Dataset of IMAGES rows in small blocks, read or generated by Ray tasks; Ray must be running.

    Args:
        config: the source.
        listing: what image_listing(config) returned, to save listing it twice, or some of its pieces.
        through: how a piece becomes tables, where not by its own `tables` alone; runs in the reading task.
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
        compute=ray.data.TaskPoolStrategy(config.readers),
    )
    # A row group may be far larger than a block should be; other pieces are small already.
    return images.repartition(target_num_rows_per_block=_PIECE_ROWS) if config.source == "parquet" else images


def iter_images(config: ImagesConfig, *, listing: ImageListing | None = None) -> Iterator[pa.Table]:
    """The same rows in this process, in the source's order, as small IMAGES tables; needs no Ray."""
    for piece in (listing or image_listing(config)).pieces:
        yield from piece.tables()


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
    pieces = [_SyntheticPiece(config.synthetic, _ranges(number_N[at : at + rows])) for at in range(0, len(number_N), rows)]
    return ImageListing(len(number_N), f"synthetic people (seed {config.synthetic.seed})", tuple(pieces), generated=True)


def _ranges(number_N: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as (start, stop) ranges without gaps."""
    runs = np.split(number_N, np.flatnonzero(np.diff(number_N) > 1) + 1)
    return tuple((int(run[0]), int(run[-1]) + 1) for run in runs)


def _list_folder(config: ImagesConfig) -> ImageListing:
    root = Path(str(config.path)).expanduser()
    if config.split is not None:
        raise ConfigError(f"images.split is {config.split!r}, but a folder of images has no splits; drop it or give a Parquet table")
    if not root.exists():
        raise DataError(f"{root}: does not exist; set images.path to a folder of images")
    if not root.is_dir():
        raise DataError(f"{root}: is a file, but images.source is folder; set images.path to the folder, or images.source to parquet")
    names, others = _image_names(root)
    if not names:
        held = f"{others} files but none with an image extension ({', '.join(sorted(EXTENSIONS))})" if others else "no file at all"
        raise DataError(f"{root}: holds {held}; set images.path to a folder of images")
    names = names[: config.limit]
    rows = _piece_rows(len(names))
    base = str(root.resolve())
    pieces = [_FolderPiece(base, tuple(names[at : at + rows]), config.max_pixels) for at in range(0, len(names), rows)]
    return ImageListing(len(names), base, tuple(pieces))


def _image_names(root: Path) -> tuple[list[str], int]:
    """(sorted relative posix paths of image files, number of other files); follows links to folders, each folder once."""
    names, others = [], 0
    for name in Store(fs.LocalFileSystem(), str(root)).walk():
        if os.path.splitext(name)[1].lower() in EXTENSIONS:
            names.append(name)
        else:
            others += 1
    return sorted(names), others


def _list_parquet(config: ImagesConfig) -> ImageListing:
    path = Path(str(config.path)).expanduser()
    pieces: list[_ParquetPiece] = []
    count = 0
    for file in parquet_files(path):
        matching_R = _matching_rows(file, config.split)
        inline = _holds_bytes(file)
        for row_group, matching in enumerate(matching_R):
            rows = min(matching, config.limit - count) if config.limit else matching
            if rows:
                pieces.append(_ParquetPiece(str(file.resolve()), row_group, rows, config.split, config.max_pixels, inline))
                count += rows
    return ImageListing(count, str(path), tuple(pieces))


def _matching_rows(file: Path, split: str | None) -> list[int]:
    """Rows of each row group that belong to `split`: from the footer, or from the split column alone."""
    with reading_parquet(str(file)), pq.ParquetFile(file) as parquet:
        check_table(parquet.schema_arrow.metadata, origin=file)
        if "image_id" not in parquet.schema_arrow.names:
            raise DataError(f"{file}: has no column image_id, so it is no IMAGES table; columns are {parquet.schema_arrow.names}")
        groups = range(parquet.metadata.num_row_groups)
        if split is None:
            return [parquet.metadata.row_group(group).num_rows for group in groups]
        if "split" not in parquet.schema_arrow.names:
            return [0 for _ in groups]
        columns = [parquet.read_row_group(group, columns=["split"])["split"].cast(pa.string()) for group in groups]
        return [pc.sum(pc.equal(column, split)).as_py() or 0 for column in columns]


def _holds_bytes(file: Path) -> bool:
    """Whether the footer says that no row lacks its image's bytes."""
    with reading_parquet(str(file)), pq.ParquetFile(file) as parquet:
        metadata = parquet.metadata
        leaves = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
        column = next((leaf for leaf, path in enumerate(leaves) if path in ("image", "image.bytes")), None)
        if column is None:
            return False
        found = [metadata.row_group(group).column(column) for group in range(metadata.num_row_groups)]
        return all(chunk.statistics is not None and chunk.statistics.null_count == 0 for chunk in found)


def _state_of(path: Path, session: str) -> str:
    try:
        stat = path.stat()
    except OSError:
        return f"{session} {printable(str(path))}"
    recent = time.time() - stat.st_mtime < SETTLED_S
    return f"{session if recent else 'file'} {printable(str(path))} {stat.st_size} {stat.st_mtime_ns}"


def _piece_rows(count: int) -> int:
    return max(_PIECE_ROWS, -(-count // _MAX_PIECES))


# --- reading


def _file_row(root: Path, name: str, max_pixels: int) -> dict[str, Any]:
    data = _read_file(root / name)
    shown = printable(name)
    return {"image_id": shown, "path": printable(str(root / name)), "dataset": printable(root.name), **_content(data, max_pixels)}


def _read_file(path: Path) -> bytes | None:
    """The bytes of a regular file; None if it is gone, forbidden, no regular file (a pipe would block for ever) or far too large."""
    try:
        with open_regular(path) as file:
            return None if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES else file.read()
    except OSError as error:
        raise_if_system(error)
        return None


def _content(data: bytes | None, max_pixels: int) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        width, height = image_size(data, max_pixels=max_pixels)
    except BadImageError:
        return {"image": data, "image_sha256": sha256_of(data)}
    return {"image": data, "image_sha256": sha256_of(data), "width": width, "height": height}


def _with_bytes(table: pa.Table, folder: Path, max_pixels: int) -> pa.Table:
    """Rows that keep only a path get their bytes (a relative path is relative to the Parquet file's folder)."""
    if not table["image"].null_count and not table["image_sha256"].null_count:
        return table
    rows = table.to_pylist()
    for row in rows:
        if row["image"] is None and row["path"] is not None:
            row.update(_content(_read_file(folder / row["path"]), max_pixels))
        elif row["image"] is not None and row["image_sha256"] is None:
            row["image_sha256"] = sha256_of(row["image"])
    return table_of(IMAGES, rows)
