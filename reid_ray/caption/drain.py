"""Draining a caption pipeline: its rows to a reader, the ledger compacted on the way, actors' errors for the user raised as themselves.

Knows LEDGER rows and how Ray wraps errors; not how rows are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray import errors
from reid_ray.caption.ledger.write_ahead_log import Ledger
from reid_ray.errors import ReidRayError

if TYPE_CHECKING:
    import ray.data

_COMPACT_EVERY = 512  # blocks
_COMPACT_AFTER_S = 1800.0  # an actor that died looks for its blocks by name
_TOLD = re.compile(r"^reid_ray\.errors\.(\w+): (.+)$", re.MULTILINE)  # the last line of a traceback


def drained(rows: ray.data.Dataset, ledger: Ledger, see: Callable[[pa.Table], None]) -> int:
    """Run a pipeline of LEDGER rows to its end, showing each table to `see`; returns the rows that this run made.

    The ledger is compacted on the way.
    """
    files, made, since = frozenset(ledger.row_files()), 0, 0
    for table in _unwrapped_errors(rows.iter_batches(batch_size=None, batch_format="pyarrow")):
        see(table)
        made += pc.sum(pc.equal(table["run"], ledger.run)).as_py() or 0
        since += 1
        if since >= _COMPACT_EVERY:
            ledger.compact(keep=files, older_than_s=_COMPACT_AFTER_S)
            since = 0
    return made


def _unwrapped_errors(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables; an actor's error for the user is raised as itself, without Ray's wrappings."""
    try:
        yield from tables
    except Exception as error:
        inner: BaseException | None = error
        said = None
        while inner is not None:
            said = inner if isinstance(inner, ReidRayError) else said  # the innermost: Ray's wrappings pass for what they wrap
            inner = getattr(inner, "cause", None) or inner.__cause__
        if said is None:
            _raise_told(str(error))
            raise
        raise type(said)(str(said).partition("\n")[0]) from None  # one sentence; Ray Data appends advice of its own


def _raise_told(message: str) -> None:
    """Raise the error for the user that a message quotes, if any: of an actor that dies in its __init__, Ray keeps the words alone."""
    for kind, sentence in reversed(_TOLD.findall(message)):
        found = getattr(errors, kind, None)
        if isinstance(found, type) and issubclass(found, ReidRayError):
            raise found(sentence) from None
