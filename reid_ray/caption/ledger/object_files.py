"""The files of a ledger at an object store: blocks as objects, written whole by one put, with a fencing token read before each.

Lies below the output's address (.ledger/), and is held by the output's own lease. An actor on any node writes with the credentials of
its environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.caption.ledger.ledger_files import FoundFile
from reid_ray.scratch import scratch_folder
from reid_ray.storage.object_store.object_client import ObjectFolder
from reid_ray.versions import check_json, numbered

_OWNER, _FORMAT = "owner", "format.json"


@dataclass(frozen=True)
class ObjectFiles:
    """Files of a ledger below an address."""

    objects: ObjectFolder

    @property
    def location(self) -> str:
        """The address."""
        return str(self.objects)

    def format(self) -> int:
        """The number of the ledger's format.

        Raises:
            DataError: a newer version of this package wrote it.
        """
        found = self.objects.read(_FORMAT)
        return check_json("ledger", {} if found is None else json.loads(found.data), origin=self.objects.locate(_FORMAT))

    def number(self) -> None:
        """Say that the ledger is of today's format."""
        self.objects.put(_FORMAT, json.dumps(numbered("ledger")).encode())

    def owner(self) -> str | None:
        """The fencing token; None if there is none."""
        found = self.objects.read(_OWNER)
        return None if found is None else found.data.decode("ascii", "replace")

    def take(self, token: str) -> None:
        """Put a fencing token."""
        self.objects.put(_OWNER, token.encode())

    def write(self, name: str, table: pa.Table) -> None:
        """One put, again if the answer stays away: the same name holds the same rows."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.objects.put(name, sink.getvalue().to_pybytes())

    def found(self, folder: str) -> list[FoundFile]:
        """Blocks and parts of a folder."""
        return [
            FoundFile(self.objects.locate(each.name), each.size, each.changed)
            for each in self.objects.listed(folder)
            if each.name.endswith(".parquet")
        ]

    def remove(self, locations: Iterable[str]) -> None:
        """Remove files that `found` told of."""
        skip = len(self.objects.place) + 1
        self.objects.remove([location.partition("?")[0][skip:] for location in locations])

    @contextmanager
    def spill(self) -> Iterator[Path]:
        """A private folder in TMPDIR."""
        with scratch_folder() as folder:
            yield folder

    def delete(self) -> None:
        """Remove the whole ledger."""
        self.objects.remove([each.name for each in self.objects.listed()])
