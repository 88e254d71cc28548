"""A user's own inputs in a rehearsal: a few dozen rows of her tables, a few of her pictures, a tiny model in the place of a large one.

What another job of ours made of such, a run of captions or an index, is read as it is, for what is in it belongs together. Nothing of
hers is written to. Knows files; not configurations.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.data.images import is_image_name
from reid_ray.errors import DataError
from reid_ray.rehearse.stand_ins import holds_model, link_files, stand_in_of_folder
from reid_ray.storage import MANIFEST, parquet_files
from reid_ray.storage.table_files import TableFile

Place = Path | str  # a text is the address of a table
_ROWS, _PICTURES = 32, 24  # rows of each split, pictures of a folder


def excerpts(places: Sequence[tuple[Place, Path]]) -> Iterator[str]:
    """Make small copies of what lies at each first place, a path or the address of a table, at the second; yields in words what each holds.

    Captions are cut to the images of the tables of images among them, of which those that an earlier call made are taken as they are.
    """
    images: set[str] = set()
    for place, to in sorted(_apart(places), key=lambda pair: _is_of_captions(pair[0])):
        made = isinstance(place, Path) and (place / MANIFEST).is_file()
        files = [] if made else _parquet(place)
        if not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            if files and not (isinstance(place, Path) and holds_model(place)):
                tables = _captions(files, images) if _is_of_captions(place) else _first_of_each_split(files)
                to.mkdir()
                pq.write_table(pa.concat_tables(list(tables)), to / "part-00000.parquet")
            elif isinstance(place, str):
                raise DataError(f"{place}: holds no table any more")
            elif holds_model(place):
                yield f"{place} is a tiny {stand_in_of_folder(place, to)}"
            elif made:
                link_files(place.resolve(), to)
                yield f"{place} is read as it is"
            elif place.is_dir():
                _link_pictures(place, to)
            else:
                to.symlink_to(place)
        if files:
            held = pq.read_table(to)
            images |= set(held["image_id"].to_pylist()) if "image_id" in held.column_names and not _is_of_captions(place) else set()
            yield f"{place} is cut to {held.num_rows} rows"


def _apart(places: Sequence[tuple[Place, Path]]) -> Iterator[tuple[Place, Path]]:
    """A folder that holds tables of images and of captions, as ingest writes it, as these two."""
    for place, to in places:
        if isinstance(place, str):
            yield place, to
            continue
        of_images = bool(_parquet(place / "images")) or not (place / MANIFEST).is_file()
        tables = [name for name in ("images", "captions") if of_images and _parquet(place / name)]
        yield from ((place / name, to / name) for name in tables) if tables else [(place, to)]


def _parquet(place: Place) -> list[TableFile]:
    if isinstance(place, Path) and not (next(place.rglob("*.parquet"), None) if place.is_dir() else place.suffix == ".parquet"):
        return []
    return parquet_files(place)


def _is_of_captions(place: Place) -> bool:
    files = _parquet(place)
    if not files:
        return False
    with files[0].open() as opened:
        return "caption_id" in opened.schema_arrow.names


def _first_of_each_split(files: list[TableFile]) -> Iterator[pa.Table]:
    """The first rows of each split, of the table where it has no such column.

    A row group without any is read in its column of splits alone, of its pictures nothing.
    """
    taken: Counter[str | None] = Counter()
    for file in files:
        with file.open() as opened:
            for group in range(opened.num_row_groups):
                table = opened.read_row_group(group, columns=["split"])
                splits = table["split"].to_pylist() if table.num_columns else [None] * opened.metadata.row_group(group).num_rows
                rows = []
                for number, split in enumerate(splits):
                    if taken[split] < _ROWS:
                        taken[split] += 1
                        rows.append(number)
                if rows:
                    yield opened.read_row_group(group).take(rows)


def _captions(files: list[TableFile], images: set[str]) -> Iterator[pa.Table]:
    wanted = pa.array(sorted(images), pa.string())
    for file in files:
        with file.open() as opened:
            for batch in opened.iter_batches():
                table = pa.Table.from_batches([batch])
                yield table.filter(pc.is_in(table["image_id"], value_set=wanted))


def _link_pictures(place: Path, to: Path) -> None:
    names = (
        os.path.relpath(os.path.join(folder, name), place) for folder, _, names in os.walk(place) for name in names if is_image_name(name)
    )
    for name in islice(names, _PICTURES):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).symlink_to(place / name)
