"""Hash chain of records: each line of JSON holds the hash of the line before it, and its own.

The hash of a line is the SHA-256 of its bytes without the hash itself, so that nothing has to be put in an order again to verify it.
Who can write the file can also make a new chain, and cutting the end off leaves a whole one: both are found only by a hash that was noted
elsewhere. Knows bytes; not files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

START = "0" * 64  # what the first record follows
MENDED, SHORTENED = "audit.mended", "audit.shortened"  # verbs of records that the log writes about itself
_END = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_END_BYTES = len(b',"hash":""}') + 64


@dataclass(frozen=True)
class Link:
    """Where a chain stands: the number and hash of its last record."""

    number: int
    hash: str


BEGINNING = Link(0, START)


def line_after(link: Link, fields: Mapping[str, Any]) -> tuple[bytes, Link]:
    """The line, with its end of line, of the record that follows `link`, and where the chain stands with it."""
    body = json.dumps({"n": link.number + 1, **fields, "previous": link.hash}, separators=(",", ":"), allow_nan=False).encode()
    digest = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode()), Link(link.number + 1, digest)


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its end of line; None if it is none, or was changed after it was written."""
    end = line[-_END_BYTES:]
    found = _END.fullmatch(end)
    if found is None or hashlib.sha256(line[:-_END_BYTES] + b"}").hexdigest() != found[1].decode():
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(record, dict) and type(record.get("n")) is int and isinstance(record.get("previous"), str)
    return record if sound else None


def link_of(record: Mapping[str, Any]) -> Link:
    """Where a chain stands with a record at its end."""
    return Link(record["n"], record["hash"])


def mending(fragment: bytes) -> dict[str, Any]:
    """What the record says that follows a line which a crash cut off."""
    return {"verb": MENDED, "what": {"bytes": len(fragment), "sha256": hashlib.sha256(fragment).hexdigest()}}


def is_mending(record: Mapping[str, Any], fragment: bytes) -> bool:
    """Whether a record is the one that says that just this line was cut off."""
    return record.get("verb") == MENDED and record.get("what") == mending(fragment)["what"]
