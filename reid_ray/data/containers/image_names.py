"""image_names.jsonl: which image_id stands behind a file that an export could not, or may not, give its id as a name.

One line of JSON {"name", "image_id"} per such image, in the root of an exported data set, and "person_id" where the layout counts persons
in its own way. The published layouts have no place for it, and their own readers pass it by. `NameList` writes it, `restored` gives the
ids back, whatever the layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from reid_ray.data.image_records import Records
from reid_ray.errors import DataError
from reid_ray.scratch import scratch_table
from reid_ray.storage.file_systems import Store

FILE = "image_names.jsonl"


class NameList:
    """Writes the file; there is none if every image has its id as its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None

    def add(self, name: str, image_id: str, person_id: int | None = None) -> None:
        """Note one image.

        Args:
            name: its image_id as the layout's reader would give it.
            image_id: what the reader is to give.
            person_id: what the reader is to give, if it would give another.
        """
        if name == image_id and person_id is None:
            return
        if self._file is None:
            self._file = (self._folder / FILE).open("wb")
        # in ASCII: an id may hold what UTF-8 does not
        person = {} if person_id is None else {"person_id": person_id}
        self._file.write(json.dumps({"name": name, "image_id": image_id, **person}).encode() + b"\n")

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()


def restored(records: Records, store: Store) -> Records:
    """The records under the ids that the file says; as they are where there is no such file. A table on disk, bounded memory.

    Raises:
        DataError: the file is not what NameList writes.
    """
    if not store.is_file(FILE):
        yield from records
        return
    with closing(scratch_table()) as sql:
        sql.execute("CREATE TABLE id (name TEXT PRIMARY KEY, changes TEXT) WITHOUT ROWID")
        sql.executemany("INSERT OR REPLACE INTO id VALUES (?, ?)", _pairs(store))
        for record in records:
            found = sql.execute("SELECT changes FROM id WHERE name = ?", (json.dumps(record.image_id),)).fetchone()
            yield record if found is None else replace(record, **json.loads(found[0]))


def _pairs(store: Store) -> Iterator[tuple[str, str]]:
    """(name, what else its record says), both as JSON: SQLite takes neither NUL nor half of a surrogate pair in a text."""
    with store.open(FILE) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                entry = json.loads(line)
                name, changes = entry["name"], {key: entry[key] for key in ("image_id", "person_id") if key in entry}
                fits = isinstance(name, str) and isinstance(changes["image_id"], str) and type(changes.get("person_id", 0)) is int
            except (ValueError, KeyError, TypeError):
                fits = False
            if not fits:
                raise DataError(
                    f"{store}/{FILE}: line {number} is not {{name, image_id}}; export again, or delete the file to keep the names"
                )
            yield json.dumps(name), json.dumps(changes)
