"""What is known of each image of a folder: from its path by a pattern, from a table beside the folder, and a number for its camera's name.

Every image of the folder is looked at once before the first is described, in the one process that lists it, for a camera's number
depends on the names of all others, and so does whether a file's name is its own. Knows names; reads no image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from reid_ray.config.called import called
from reid_ray.config.folder_columns import FolderColumnsConfig
from reid_ray.data.labels.label_columns import LABELS, REFUSED, read_values, type_of_name
from reid_ray.data.labels.table_beside import TableBeside
from reid_ray.data.labels.time_reader import TimeReader
from reid_ray.errors import DataError
from reid_ray.own_columns import camera_numbers, own_schema, with_own
from reid_ray.records import conform
from reid_ray.storage.regular_files import printable

_CAMERA, _CAMERA_ID = "camera", "camera_id"
_AT_ONCE = 4_096


def labeller_of(config: FolderColumnsConfig, root: str, names: Iterable[str]) -> Labeller | None:
    """Who describes the images of a folder; None where nothing says anything of them.

    Args:
        config: the options.
        root: where the folder lies.
        names: of every image in it, relative to it; not looked at where they are not needed.

    Raises:
        DataError: pattern and table name the same column, a column cannot be carried, or the table cannot be read or used.
    """
    if config.pattern is None and config.table is None:
        if config.own is not None and config.own:
            raise DataError(
                f"{called('own')} names {', '.join(config.own)}, but neither {called('pattern')} nor {called('table')} says "
                "anything of the images; give one"
            )
        return None
    labeller = Labeller(config, root)
    if labels_need_all(config):
        labeller.look(names)
    return labeller


def labels_need_all(config: FolderColumnsConfig) -> bool:
    """Whether what is said of one image depends on the others of the folder."""
    groups = re.compile(config.pattern or "").groupindex
    return config.table is not None or (_CAMERA in groups and _CAMERA_ID not in groups)


class Labeller:
    """Describes the images of a folder: see labeller_of.

    Attributes:
        own: the schema of the columns beside those of IMAGES.
    """

    def __init__(self, config: FolderColumnsConfig, root: str) -> None:
        self._pattern = None if config.pattern is None else re.compile(config.pattern)
        self._groups = [] if self._pattern is None else list(self._pattern.groupindex)
        self._table = None if config.table is None else TableBeside(config, root)
        self._times, self._root = TimeReader(config.time_format, config.time_zone), root
        told = [] if self._table is None else [name for name in self._table.rows.column_names if name != REFUSED.name]
        if both := sorted(set(told) & set(self._groups)):
            raise DataError(f"{config.table}: has the column {', '.join(both)}, and {called('pattern')} names that group; drop one of them")
        self._names = {*told, *self._groups}
        fields = [pa.field(name, type_of_name(name) or pa.string()) for name in self._groups]
        fields += [] if self._table is None else [self._table.rows.schema.field(name) for name in told]
        self.own = own_schema(pa.schema(fields), origin=str(config.table or "pattern"), only=config.own)
        self._numbers: dict[str, int] = {}
        self._counts_cameras = _CAMERA in self._names and _CAMERA_ID not in self._names

    def look(self, names: Iterable[str]) -> None:
        """Take note of every image of the folder."""
        cameras: set[str] = set()
        first: str | None = None
        in_path = self._counts_cameras and _CAMERA in self._groups
        left = iter(names)
        while some := list(islice(left, _AT_ONCE)):
            first = first or some[0]
            if self._table is not None:
                self._table.look(some)
            if in_path and self._pattern is not None:
                cameras |= {printable(found[_CAMERA]) for name in some if (found := self._pattern.search(name)) and found[_CAMERA]}
        if self._table is not None:
            self._table.settle(first)
            if self._counts_cameras and not in_path:
                cameras = set(self._table.rows[_CAMERA].drop_null().to_pylist())
        self._numbers = camera_numbers(cameras)

    def facts(self) -> dict[str, int]:
        """How far the table and the folder are of the same images; empty without a table."""
        return {} if self._table is None else self._table.facts()

    def labels(self, names: Sequence[str]) -> pa.Table:
        """What is known of some images: LABELS and the own columns, a row each.

        Raises:
            DataError: a time does not say its zone, and nothing else does.
        """
        columns: dict[str, Any] = {}
        refused: list[str | None] = [None] * len(names)
        if self._table is not None:
            told = self._table.labels(names)
            refused = told[REFUSED.name].to_pylist()
            columns |= {name: told[name] for name in told.column_names}
        if self._pattern is not None:
            columns |= self._of_paths(names, refused)
        if self._counts_cameras:
            cameras = pa.chunked_array([columns[_CAMERA]]) if isinstance(columns[_CAMERA], pa.Array) else columns[_CAMERA]
            columns[_CAMERA_ID] = pa.array([self._numbers.get(name) for name in cameras.to_pylist()], pa.int32())
        columns[REFUSED.name] = pa.array(refused, REFUSED.type)
        return conform(pa.table(columns), with_own(LABELS, self.own), origin=self._root)

    def _of_paths(self, names: Sequence[str], refused: list[str | None]) -> dict[str, pa.Array]:
        assert self._pattern is not None
        found = [self._pattern.search(name) for name in names]
        for row, match in enumerate(found):
            if match is None:
                refused[row] = refused[row] or f"pattern_does_not_match: pattern is {self._pattern.pattern}"
        columns = {}
        for name in self._groups:
            texts = [None if match is None else match[name] for match in found]
            values, wrong = read_values(name, texts, self._times, origin=self._root, reason="pattern_does_not_match")
            columns[name] = pa.array(values, type_of_name(name) or pa.string())
            for row, said in wrong.items():
                refused[row] = refused[row] or said
        return columns
