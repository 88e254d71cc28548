"""The columns beside those of IMAGES of a Parquet table of any origin, renamed, in their types, row by row.

Knows schemas and batches; not images or captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.labels.label_columns import in_utc, read_values
from reid_ray.data.labels.own_of_files import cameras_of_files, own_of_files
from reid_ray.data.labels.time_reader import TimeReader
from reid_ray.errors import DataError
from reid_ray.own_columns import MADE, TIME
from reid_ray.records import IMAGES
from reid_ray.storage.table_files import TableFile


class CarriedColumns:
    """What a table's rows have beside the columns of IMAGES.

    Attributes:
        own: their schema.

    Args:
        files: of the table.
        source: renames, zone of times, which are wanted.

    Raises:
        DataError: `columns` names what is not there, or a column cannot be carried.
    """

    def __init__(self, files: Sequence[TableFile], source: SourceConfig) -> None:
        known = [*IMAGES.names, *MADE.names]
        if unknown := sorted(set(source.columns) - set(known)):
            raise DataError(f"source.columns names {', '.join(unknown)}, which are no columns of the images table: {known}")
        self._renames, self._zone = source.columns, source.time_zone
        self._times = TimeReader(None, source.time_zone)
        schemas = []
        for file in files:
            with file.open() as parquet:
                self._refuse_lacking(parquet.schema_arrow, str(file))
                schemas.append(self._meant(parquet.schema_arrow))
        self.own = own_of_files(files, schemas, source.own)
        self._cameras: dict[str, int] | None = None
        if "camera" in self.own.names:
            with ThreadPoolExecutor(1) as pool:
                self._cameras = cameras_of_files(files, schemas, pool, column=self._renames.get("camera", "camera"))

    def columns_of(self, schema: pa.Schema) -> list[str]:
        """The columns of a file that are read for it, as the file calls them."""
        return [source for name in self.own.names if (source := self._renames.get(name, name)) in schema.names]

    def of(self, batch: pa.RecordBatch, origin: str) -> list[dict[str, Any]]:
        """For each row {own: {column: value}, wrong: what cannot be read of it or None}, and camera_id where names are numbered.

        Raises:
            DataError: times do not say their zone, nor does the configuration.
        """
        columns: dict[str, list[Any]] = {}
        wrong: dict[int, str] = {}
        for field in self.own:
            source = self._renames.get(field.name, field.name)
            if source not in batch.schema.names:
                columns[field.name] = [None] * batch.num_rows
                continue
            column = batch.column(source)
            if pa.types.is_timestamp(column.type):
                columns[field.name] = in_utc(column, self._zone, f"{origin}: column {source}").to_pylist()
            elif field.name in MADE.names:
                columns[field.name], faults = read_values(
                    field.name, column.to_pylist(), self._times, origin=origin, reason="bad_annotation"
                )
                wrong |= faults
            else:
                columns[field.name] = column.cast(field.type).to_pylist()
        rows = []
        for row in range(batch.num_rows):
            own = {name: values[row] for name, values in columns.items()}
            number = {} if self._cameras is None else {"camera_id": self._cameras.get(own["camera"])}
            rows.append({"own": own, "wrong": wrong.get(row), **number})
        return rows

    def _meant(self, schema: pa.Schema) -> pa.Schema:
        """The columns of a file by the names and in the types that they are to have."""
        taken = {source: name for name, source in self._renames.items()}
        fields = []
        for field in schema:
            name = taken.get(field.name, field.name)
            if name == field.name and name in self._renames:
                continue  # another column takes this name
            readable = name in MADE.names and not pa.types.is_nested(field.type) and not pa.types.is_timestamp(field.type)
            kind = MADE.field(name).type if readable and not pa.types.is_null(field.type) else field.type
            if pa.types.is_timestamp(field.type) and self._zone is not None:
                kind = TIME
            fields.append(pa.field(name, kind))
        return pa.schema(fields)

    def _refuse_lacking(self, schema: pa.Schema, origin: str) -> None:
        if lacking := [source for source in self._renames.values() if source not in schema.names]:
            said = f"has no column {', '.join(lacking)}, which source.columns names; it has {sorted(set(schema.names))}"
            raise DataError(f"{origin}: {said}")
