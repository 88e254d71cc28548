"""Verification and reading of the audit log: is every record as it was written, and none missing?

What cannot be seen from inside is a chain whose end was cut off, or one that was made anew from the start: note the head elsewhere (paper,
another machine) and compare. Knows files and lines.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_ray.errors import ConfigError, DataError
from reid_ray.serve.access.audit.chain_files import chain_files, locked, number_in
from reid_ray.serve.access.audit.hash_chain import BEGINNING, SHORTENED, Link, is_mending, link_of, record_of
from reid_ray.versions import check

_BLOCK = 1 << 20


@dataclass(frozen=True)
class SoundChain:
    """What a verified chain holds.

    `mended`: lines that a crash cut off, each followed by a record that says so. `torn`: bytes of such a line at the very end, which no
    record follows yet.
    """

    first: int
    head: Link
    mended: int
    torn: int


def verified(folder: Path, *, expect: str | None = None, first_file: int | None = 1) -> SoundChain:
    """Read the whole chain.

    Args:
        folder: of the log.
        expect: NUMBER:HASH of a record that was noted earlier: it must be in the chain.
        first_file: the number of the oldest file, where older ones were archived; None: whichever is there.

    Raises:
        ConfigError: `expect` is no head of a chain.
        DataError: names the first line that is not as it was written, or what is missing.
    """
    wanted = _expected(expect)
    files = _complete(folder, _files(folder), first_file)
    link, mended, torn, first = (BEGINNING if number_in(files[0][0]) == 1 else None), 0, b"", 0
    bad: tuple[Path, int, bytes] | None = None
    for path, line_number, line, whole in _lines(files):
        if not whole and path == files[-1][0]:
            torn = line
            break
        record = record_of(line)
        if bad is not None and not (record is not None and is_mending(record, bad[2])):
            raise DataError(f"{bad[0]}, line {bad[1]}: is not as it was written; keep the file as it is, and compare it with a copy")
        if record is None:
            bad = (path, line_number, line)
            continue
        mended, bad = mended + (bad is not None), None
        if link is not None:
            _check_follows(link, record, f"{path}, line {line_number}")
        if record.get("verb") == "audit.begun":
            check("audit", record.get("what", {}).get("format"), origin=path)
        first, link = first or record["n"], link_of(record)
        if wanted is not None and link.number == wanted.number and link != wanted:
            raise DataError(f"{path}, line {line_number}: record {link.number} is another than the one whose hash was noted")
    if bad is not None:
        raise DataError(f"{bad[0]}, line {bad[1]}: is not as it was written; keep the file as it is, and compare it with a copy")
    head = link or BEGINNING
    if wanted is not None and not first <= wanted.number <= head.number:
        raise DataError(f"{folder}: the record {wanted.number} that was noted is not there; the chain ends with {head.number}")
    return SoundChain(first, head, mended, len(torn))


def records_of(folder: Path) -> Iterator[dict[str, Any]]:
    """The sound records, oldest first. Whether any is missing is `verified`'s question.

    Raises:
        DataError: there is no log.
    """
    for _, _, line, whole in _lines(_files(folder)):
        record = record_of(line) if whole else None
        if record is not None:
            yield record


def records_before(folder: Path, before: int | None, limit: int) -> list[dict[str, Any]]:
    """The newest `limit` records, or the newest of those with numbers below `before`; newest first. Reads from the end.

    Raises:
        DataError: there is no log.
    """
    found: list[dict[str, Any]] = []
    for path, size in reversed(_files(folder)):
        for line in _lines_backwards(path, size):
            record = record_of(line)
            if record is not None and (before is None or record["n"] < before):
                found.append(record)
                if len(found) == limit:
                    return found
    return found


def _check_follows(link: Link, record: dict[str, Any], where: str) -> None:
    if record.get("verb") == SHORTENED:
        known = record.get("what", {}).get("known")
        raise DataError(f"{where}: the log was cut after record {link.number} while a service wrote it; {known} was its last one then")
    if record["n"] > link.number + 1:
        raise DataError(f"{where}: the records {link.number + 1} to {record['n'] - 1} before it are missing")
    if record["n"] != link.number + 1 or record["previous"] != link.hash:
        raise DataError(f"{where}: does not follow the line before it: one of the two was replaced")


def _expected(expect: str | None) -> Link | None:
    if expect is None:
        return None
    number, _, digest = expect.partition(":")
    if not number.isdecimal() or len(digest) != 64:
        raise ConfigError(f"--expect {expect}: is no head of a chain; give it as audit verify said it, NUMBER:HASH")
    return Link(int(number), digest)


def _files(folder: Path) -> list[tuple[Path, int]]:
    """The chain's files, each with the bytes that are whole now: what is appended meanwhile is not waited for."""
    try:
        with locked(folder) if os.access(folder, os.W_OK) else contextlib.nullcontext():
            found = [(path, path.stat().st_size) for path in chain_files(folder)]
    except OSError as error:
        raise DataError(f"{folder}: holds no audit log that can be read ({error.strerror}); name the folder of one") from None
    if not found:
        raise DataError(f"{folder}: holds no audit log; name the folder that has audit-000001.jsonl")
    return found


def _complete(folder: Path, found: list[tuple[Path, int]], first_file: int | None) -> list[tuple[Path, int]]:
    numbers = [number_in(path) for path, _ in found]
    first = numbers[0] if first_file is None else first_file
    missing = sorted(set(range(first, numbers[-1] + 1)) - set(numbers))
    if missing:
        raise DataError(f"{folder}: the file audit-{missing[0]:06d}.jsonl of the audit log is missing; put it back")
    return found[numbers.index(first) :]


def _lines(files: Sequence[tuple[Path, int]]) -> Iterator[tuple[Path, int, bytes, bool]]:
    """(file, number of the line, the line without its end, whether it has one)."""
    for path, size in files:
        with path.open("rb") as file:
            number, left = 0, size
            while left > 0 and (line := file.readline(left)):
                left, number = left - len(line), number + 1
                yield path, number, line.removesuffix(b"\n"), line.endswith(b"\n")


def _lines_backwards(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        rest = b""
        while size > 0:
            step = min(_BLOCK, size)
            size -= step
            file.seek(size)
            rest, *whole = (file.read(step) + rest).split(b"\n")
            yield from reversed(whole)
        yield rest
