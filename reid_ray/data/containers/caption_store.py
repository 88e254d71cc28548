"""On-disk join of captions to images (SQLite): a temporary table, so that joining millions of captions costs no memory.

Knows keys and JSON rows; not what a caption says. Used where captions and images come in different orders or files. The file has no
name (scratch.py), so that a job that is killed leaves no caption behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from reid_ray.data.image_records import Caption
from reid_ray.scratch import scratch_table

_BATCH = 5_000


class CaptionStore:
    """Captions by image key. Fill with add_all, then take each image's captions once; what is never taken is an orphan."""

    def __enter__(self) -> Self:
        self._sql = scratch_table()
        self._sql.execute("CREATE TABLE caption (key BLOB, row TEXT)")
        self._sql.execute("CREATE TABLE taken (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._indexed = False
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sql.close()

    def add_all(self, captions: Iterable[tuple[str, Caption]]) -> None:
        """Add (image key, caption) pairs."""
        batch: list[tuple[bytes, str]] = []
        for key, caption in captions:
            batch.append((_bytes(key), json.dumps(dict(caption))))
            if len(batch) == _BATCH:
                self._sql.executemany("INSERT INTO caption VALUES (?, ?)", batch)
                batch.clear()
        self._sql.executemany("INSERT INTO caption VALUES (?, ?)", batch)

    def take(self, key: str) -> tuple[Caption, ...]:
        """The captions of one image in the order in which they were added; they count as taken."""
        self._index()
        rows = self._sql.execute("SELECT row FROM caption WHERE key = ? ORDER BY rowid", (_bytes(key),)).fetchall()
        if rows:
            self._sql.execute("INSERT OR IGNORE INTO taken VALUES (?)", (_bytes(key),))
        return tuple(json.loads(row) for (row,) in rows)

    def images(self) -> Iterator[str]:
        """Every image key, sorted, each once."""
        self._index()
        yield from (_text(key) for (key,) in self._sql.execute("SELECT DISTINCT key FROM caption ORDER BY key"))

    def orphans(self) -> Iterator[tuple[str, tuple[Caption, ...]]]:
        """(key, captions) of every key that was never taken, sorted."""
        query = "SELECT DISTINCT key FROM caption WHERE key NOT IN (SELECT key FROM taken) ORDER BY key"
        for (key,) in self._sql.execute(query).fetchall():
            yield _text(key), self.take(_text(key))

    def _index(self) -> None:
        """Once, when filling is over: before that an index would slow every insert."""
        if not self._indexed:
            self._sql.execute("CREATE INDEX by_key ON caption (key)")
            self._indexed = True


def _bytes(key: str) -> bytes:
    """SQLite takes neither NUL nor half of a surrogate pair in a text, but a name in a JSON file may hold both."""
    return key.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
