"""File inventory of an output (its mark): a hidden file with the run that wrote the folder, and every file of it with size and digest.

What the mark does not list, we did not write. Knows names, sizes and digests; not what is in the files. First line: JSON of the run; then
a line for each file: its size, for a text file also its digest (who mends a digit keeps the size), a tab and its name as JSON, in the order
of `files_below`, so that a mark of millions of files is compared and cleared file by file, never held whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.storage.files import NO_FILE, replacing, sha256_of_file
from reid_ray.storage.regular_files import open_regular
from reid_ray.versions import check_json, numbered

MARK = ".reid_ray"
_TEXTS = frozenset({".json", ".jsonl", ".md", ".html", ".txt", ".yaml", ".yml", ".csv", ".tsv", ".jinja"})
_LONGEST_FIRST_LINE = 1 << 20
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # file managers leave these in every folder that somebody looks at


def write_mark(folder: Path, facts: dict[str, Any], *, listed: bool) -> None:
    """Mark `folder` as written by us, in today's format: without a list of files while it is written, with one when it is whole."""
    with replacing(folder / MARK, hidden=folder / f"{MARK}.new") as hidden, hidden.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"made_by": "reid_ray", **numbered("mark"), **facts, "whole": listed}) + "\n")
        for name, size in files_below(folder) if listed else ():
            file.write(f"{size}{_digest_of_text(folder / name)}\t{json.dumps(name)}\n")


def read_mark(folder: Path) -> dict[str, Any] | None:
    """What the first line of a folder's mark says, or None if it has none of ours.

    Raises:
        DataError: a newer version of this package made it.
    """
    try:
        with open_regular(folder / MARK) as file:
            facts = json.loads(file.readline(_LONGEST_FIRST_LINE))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(facts, dict) or facts.get("made_by") != "reid_ray":
        return None
    check_json("mark", facts, origin=folder / MARK)
    return facts if isinstance(facts.get("job"), str) and isinstance(facts.get("whole"), bool) else None


def names_in(folder: Path) -> list[str]:
    """The names right in a folder, in order."""
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found)


def files_below(folder: Path) -> Iterator[tuple[str, int]]:
    """(name relative to `folder`, size in bytes) of every file below it but marks and file managers' litter; no link is followed."""
    yield from _walk(os.fspath(folder), "")


def differences(folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, name) of every file that is not as the mark says: kind is foreign (not listed), changed (another size, or text) or missing."""
    there, listed = files_below(folder), _listed(folder)
    one, other = next(there, None), next(listed, None)
    while one is not None or other is not None:
        if other is None or (one is not None and _place(one[0]) < _place(other[0])):
            assert one is not None
            yield "foreign", one[0]
            one = next(there, None)
        elif one is None or _place(other[0]) < _place(one[0]):
            yield "missing", other[0]
            other = next(listed, None)
        else:
            if not _is_as_listed(folder / one[0], one[1], other):
                yield "changed", one[0]
            one, other = next(there, None), next(listed, None)


def foreign(folder: Path, *, at_most: int = 3) -> list[str]:
    """Names of files in `folder` that its mark does not list, or lists with another size; the first few."""
    return list(islice((name for kind, name in differences(folder) if kind != "missing"), at_most))


def remove_listed(folder: Path) -> bool:
    """Remove the files that the mark lists, the mark, and every folder that is empty then; whether nothing is left."""
    for listed in _listed(folder):
        if not listed[0].startswith("/") and ".." not in listed[0].split("/"):
            _remove_if_as_listed(folder / listed[0], listed)
    for parent, _, names in os.walk(folder, topdown=False):
        for name in _LITTER.intersection(names):
            (Path(parent) / name).unlink(missing_ok=True)
        if Path(parent) != folder:
            _remove_if_empty(Path(parent))
    if set(names_in(folder)) <= {MARK}:
        (folder / MARK).unlink(missing_ok=True)
        return _remove_if_empty(folder)
    return False


def _remove_if_as_listed(file: Path, listed: tuple[str, int, str]) -> None:
    try:
        if _is_as_listed(file, file.lstat().st_size, listed):
            file.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return


def _is_as_listed(file: Path, size: int, listed: tuple[str, int, str]) -> bool:
    return size == listed[1] and (not listed[2] or listed[2] == _digest_of_text(file))


def _digest_of_text(file: Path) -> str:
    """A blank and 16 hex digits of what a text file holds; nothing for other files, which no hand edits."""
    if file.suffix not in _TEXTS:
        return ""
    try:
        return f" {sha256_of_file(file)[:16]}"
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return " none"


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _walk(folder: str, below: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    folders = []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        elif not (below == "" and entry.name in (MARK, f"{MARK}.new")) and entry.name not in _LITTER:
            yield below + entry.name, entry.stat(follow_symlinks=False).st_size
    for name in folders:
        yield from _walk(os.path.join(folder, name), f"{below}{name}/")


def sizes_listed(mark: bytes, *, origin: str) -> dict[str, int]:
    """Name -> size of each file that the content of a mark lists.

    Raises:
        DataError: it is damaged.
    """
    return {name: size for name, size, _ in _parsed(mark.decode("utf-8", "replace").splitlines(keepends=True), origin)}


def _listed(folder: Path) -> Iterator[tuple[str, int, str]]:
    """(name, size, what _digest_of_text gave) of each file in the mark."""
    with (folder / MARK).open(encoding="utf-8") as file:
        yield from _parsed(file, folder / MARK)


def _parsed(lines: Iterable[str], origin: object) -> Iterator[tuple[str, int, str]]:
    for number, line in enumerate(lines, 1):
        if number == 1:
            continue  # of the run
        told, _, name = line.partition("\t")
        size, blank, digest = told.partition(" ")
        try:
            yield str(json.loads(name)), int(size), blank + digest
        except ValueError:
            raise DataError(
                f"{origin}: line {number} is damaged, so it is not known what the job wrote; move the folder that holds it away"
            ) from None


def _place(name: str) -> tuple[tuple[bool, str], ...]:
    """Where a name comes in the order of files_below: a folder's files by name, then its folders by name."""
    *folders, file = name.split("/")
    return (*((True, each) for each in folders), (False, file))
