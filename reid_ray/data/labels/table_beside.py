"""A table beside a folder of images, CSV or Parquet, one row an image: read, its columns typed, its rows matched to the images' paths.

Held whole, without pictures: four million rows of a few columns take some hundreds of megabytes. Knows tables and names; not the folder.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from reid_ray.config.called import called
from reid_ray.config.folder_columns import IDENTITY, FolderColumnsConfig
from reid_ray.data.containers.values import slashes
from reid_ray.data.labels.label_columns import REFUSED, in_utc, read_values, type_of_name
from reid_ray.data.labels.time_reader import TimeReader
from reid_ray.errors import DataError
from reid_ray.own_columns import TIME
from reid_ray.records import IMAGES
from reid_ray.storage.file_systems import open_file_store
from reid_ray.storage.regular_files import raise_if_system
from reid_ray.storage.table_files import TableFile

KEYS = ("image_id", "image", "path", "file", "file_name", "filename", "name")
_DELIMITERS = ",;\t|"
_WHOLE, _NUMBER = r"^-?(0|[1-9]\d{0,17})$", r"^-?\d+(\.\d*)?([eE][-+]?\d+)?$"
_BOOLEAN = r"^(true|True|TRUE|false|False|FALSE)$"
_MOMENT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[-+]\d\d:?\d\d)?$"


class _BrokenRow(NamedTuple):
    """A row of a CSV file with another number of columns than its header: nothing of it is taken but whose it is.

    Attributes:
        number: of the row, the header being 1; blank lines do not count.
        cells: its texts, by the header's names as far as these go.
        said: what is wrong with it.
    """

    number: int
    cells: dict[str, str]
    said: str


class TableBeside:
    """What a table says of images.

    Attributes:
        rows: its columns but the key, typed, with the column REFUSED.

    Args:
        config: with `table`.
        root: where the folder of images lies; paths that begin with it are below it.

    Raises:
        DataError: the table cannot be read, or has no column that names the images; names it and the remedy.
    """

    def __init__(self, config: FolderColumnsConfig, root: str) -> None:
        self.origin = str(config.table)
        found, broken = _read(self.origin, config.table_encoding or "utf-8")
        key = _key_column(found.column_names, config.table_key, self.origin)
        found = _with_broken(found, broken, key)
        self._first_key = str(found[key][0]) if found.num_rows else "none"
        hash_R = _hashes([None if each is None else slashes(str(each)).removeprefix(f"{root}/") for each in found[key].to_pylist()])
        self.rows = _typed(found.drop_columns([key]), config, self.origin)
        self._broken = len(broken)
        self._order_R = np.argsort(hash_R, kind="stable")
        self._hash_R = hash_R[self._order_R]
        self._images_R = np.zeros(len(hash_R), np.int32)  # how many images each row is of
        self.images = self.without_row = 0
        self._refuse_rows(self._repeated(), "bad_annotation: the table has several rows for it, which differ")
        for row, each in enumerate(broken, found.num_rows - len(broken)):
            self._refuse_rows(np.array([row]), f"bad_annotation: row {each.number} of the table {each.said}")

    def look(self, names: Sequence[str]) -> None:
        """Take note of some of the folder's images; of all, before the first `labels`."""
        row_N = self._rows_of(names)
        self.images += len(names)
        self.without_row += int(np.count_nonzero(row_N < 0))
        np.add.at(self._images_R, row_N[row_N >= 0], 1)

    def settle(self, first_image: str | None) -> None:
        """All images were looked at.

        Raises:
            DataError: not one has a row.
        """
        if self.images and self.without_row == self.images:
            raise DataError(
                f"{self.origin}: its rows are of other images ({self._first_key}, ...) than the folder's ({first_image}, ...); name each "
                f"image by its path below the folder or by its file's name, and that column by {called('table_key')}"
            )
        self._refuse_rows(
            np.flatnonzero(self._images_R > 1), "bad_annotation: the table names it by a file name that several images have; give the path"
        )

    def facts(self) -> dict[str, int]:
        """How many images have no row, and how many rows no image; and how many rows have too few or too many columns, if any."""
        facts = {"images_without_row": self.without_row, "rows_without_image": int(np.count_nonzero(self._images_R == 0))}
        return facts | ({"rows_not_whole": self._broken} if self._broken else {})

    def labels(self, names: Sequence[str]) -> pa.Table:
        """The rows of some images; nulls for one without a row."""
        row_N = self._rows_of(names)
        return self.rows.take(pa.array(row_N, mask=row_N < 0))

    def _rows_of(self, names: Sequence[str]) -> np.ndarray:
        """Row of each name: by its path, else by its file's name; -1 where there is none."""
        row_N = self._find(_hashes(names))
        lacking = np.flatnonzero(row_N < 0)
        row_N[lacking] = self._find(_hashes([names[at].rpartition("/")[2] for at in lacking]))
        return row_N

    def _find(self, hash_N: np.ndarray) -> np.ndarray:
        if not len(self._hash_R):
            return np.full(len(hash_N), -1, np.int64)
        place_N = np.minimum(np.searchsorted(self._hash_R, hash_N), len(self._hash_R) - 1)
        found: np.ndarray = np.where((self._hash_R[place_N] == hash_N) & (hash_N != 0), self._order_R[place_N], -1)
        return found

    def _repeated(self) -> np.ndarray:
        """The first row of each image that has several which differ."""
        again = np.flatnonzero((self._hash_R[1:] == self._hash_R[:-1]) & (self._hash_R[1:] != 0))
        first = np.searchsorted(self._hash_R, self._hash_R[again])  # of each, where its like begin
        wrong = [
            row for row, other in zip(self._order_R[first].tolist(), self._order_R[again + 1].tolist(), strict=True)
            if self.rows.slice(row, 1) != self.rows.slice(other, 1)
        ]  # fmt: skip
        self._images_R[self._order_R[again + 1]] = 1  # the same once more is no row without an image
        return np.unique(np.array(wrong, np.int64))

    def _refuse_rows(self, row_M: np.ndarray, why: str) -> None:
        if len(row_M):
            said = np.array(self.rows[REFUSED.name].to_pylist(), object)
            said[row_M] = why
            self.rows = self.rows.set_column(self.rows.column_names.index(REFUSED.name), REFUSED, pa.array(said.tolist(), REFUSED.type))


def _hashes(names: Sequence[str | None]) -> np.ndarray:
    """64 bits of digest a name; 0: there is none. Two of four million names are alike by chance once in a million tables."""
    digests = (b"\0" * 8 if not name else blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), np.uint64)


def _key_column(names: Sequence[str], asked: str | None, origin: str) -> str:
    key = asked if asked is not None else next((name for name in KEYS if name in names), None)
    if key is None or key not in names:
        wanted = (
            f"no column {asked}, which {called('table_key')} names"
            if asked is not None
            else f"no column {', '.join(KEYS[:-1])} or {KEYS[-1]}"
        )
        raise DataError(
            f"{origin}: has {wanted}; its columns are {', '.join(names)}; set {called('table_key')} to the one that names the images"
        )
    return key


def _read(location: str, encoding: str) -> tuple[pa.Table, list[_BrokenRow]]:
    """The rows that can be read, and those that cannot."""
    store, name = open_file_store(location)
    if not store.is_file(name):
        raise DataError(f"{location}: is no file; set {called('table')} to a CSV, TSV or Parquet file")
    if name.endswith(".parquet"):
        with TableFile(store, name).open() as parquet:
            return _without_repeated_names(parquet.read(), location), []
    broken: list[_BrokenRow] = []
    try:
        data = store.read_bytes(name)
        header = io.StringIO(data[: 1 << 16].decode(encoding, "ignore").removeprefix("\ufeff"), newline="")
        line = header.readline()
        delimiter = max(_DELIMITERS, key=lambda each: len(next(csv.reader([line], delimiter=each), [])))
        names = next(csv.reader([line], delimiter=delimiter), [])
        if twice := sorted({each for each in names if names.count(each) > 1}):
            raise DataError(f"{location}: has the column {', '.join(twice)} more than once; keep one of each")
        table = pacsv.read_csv(
            io.BytesIO(data),
            read_options=pacsv.ReadOptions(encoding=encoding, use_threads=False),  # several do not know a row's number
            parse_options=pacsv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=_keep_broken(broken, names, delimiter)
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except (pa.ArrowInvalid, UnicodeError, OSError, csv.Error) as error:
        raise_if_system(error)
        said = " ".join(str(error).split())
        remedy = f"set {called('table_encoding')}, such as latin-1 or utf-16" if "UTF" in said.upper() or "codec" in said else "mend it"
        raise DataError(f"{location}: cannot be read as a CSV file in {encoding} ({said}); {remedy}") from None
    if broken and not table.num_rows:
        said = f"row {broken[0].number} {broken[0].said}, and no row is as the header says"
        raise DataError(f"{location}: cannot be read as a CSV file with {delimiter!r} between its columns: {said}; mend it")
    # the first column without a name is the row numbers that pandas keeps
    return (table.drop_columns([""]) if table.column_names[0] == "" else table), broken


def _keep_broken(broken: list[_BrokenRow], names: Sequence[str], delimiter: str) -> Callable[[Any], str]:
    """What pyarrow calls for a row that is not as wide as its header."""

    def keep(row: Any) -> str:
        cells = dict(zip(names, next(csv.reader(io.StringIO(row.text, newline=""), delimiter=delimiter), []), strict=False))
        broken.append(_BrokenRow(row.number, cells, f"has {row.actual_columns} columns, but its header has {row.expected_columns}"))
        return "skip"

    return keep


def _with_broken(table: pa.Table, broken: Sequence[_BrokenRow], key: str) -> pa.Table:
    """The table with broken rows at its end: their images' names, and nulls."""
    if not broken:
        return table
    names = pa.array([each.cells.get(key) or None for each in broken], table.schema.field(key).type)
    columns = [names if field.name == key else pa.nulls(len(broken), field.type) for field in table.schema]
    return pa.concat_tables([table, pa.table(columns, schema=table.schema)])


def _without_repeated_names(table: pa.Table, origin: str) -> pa.Table:
    if twice := sorted({each for each in table.column_names if table.column_names.count(each) > 1}):
        raise DataError(f"{origin}: has the column {', '.join(twice)} more than once; keep one of each")
    return table


def _typed(table: pa.Table, config: FolderColumnsConfig, origin: str) -> pa.Table:
    """Columns in their types, and REFUSED."""
    if config.own is not None:
        table = table.select([name for name in table.column_names if name in config.own or name in IDENTITY])
    if meant := sorted(set(table.column_names) & ({*IMAGES.names, REFUSED.name} - set(IDENTITY))):
        raise DataError(
            f"{origin}: column {', '.join(meant)} means something else in the tables; rename it, or list in {called('own')} "
            "which are carried"
        )
    times = TimeReader(config.time_format, config.time_zone)
    refused: dict[int, str] = {}
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if type_of_name(name) is None:
            columns[name] = _inferred(column, config) if pa.types.is_string(column.type) else column
            continue
        if pa.types.is_timestamp(column.type):
            columns[name] = in_utc(column, config.time_zone, f"{origin}: column {name}")
            continue
        values, wrong = read_values(name, column.to_pylist(), times, origin=origin, reason="bad_annotation")
        columns[name] = pa.array(values, type_of_name(name))
        refused |= wrong
    columns[REFUSED.name] = pa.array([refused.get(row) for row in range(table.num_rows)], REFUSED.type)
    return pa.table(columns)


def _inferred(column: pa.Array, config: FolderColumnsConfig) -> pa.Array:
    """A column of texts as whole numbers, numbers, truth values or moments where every one of its values is one; "007" is a text."""
    known = column.drop_null()
    if not len(known):
        return column
    if _all_match(known, _WHOLE):
        return column.cast(pa.int64())
    if _all_match(known, _NUMBER) and not _any_match(known, r"^-?0\d"):
        return column.cast(pa.float64())
    if _all_match(known, _BOOLEAN):
        return pc.equal(pc.utf8_lower(column), "true")
    says_zone = config.time_zone is not None or _all_match(known, r"(Z|[-+]\d\d:?\d\d)$")
    return _moments(column, config) if says_zone and _all_match(known, _MOMENT) else column


def _moments(column: pa.Array, config: FolderColumnsConfig) -> pa.Array:
    reader = TimeReader(None, config.time_zone)
    try:
        return pa.array([None if value is None else reader.read(value) for value in column.to_pylist()], TIME)
    except ValueError:
        return column  # the 31st of June: a text


def _all_match(column: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())


def _any_match(column: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())
