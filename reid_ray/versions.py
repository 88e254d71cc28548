"""Format versioning: the number of every format that one run writes and a later one reads, and whether a found number can be read.

Whoever writes something of a kind puts today's number into it (`stamp`, `number_of`), whoever reads it asks `check` first: a number above
ours is refused in a sentence, one below is read as it is as long as that is right, and needs a migration (the migrate job) after that.
What has no number is of format 0: it was written before numbers were, or by other people's programs. Knows numbers and words; no files.

To change a layout: add a line to its Format here, a step to reid_ray.migrate, and the layout to tests/shared/layouts.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reid_ray.errors import DataError

FIELD = "format"  # of JSON files
TABLE_FIELD = b"reid_ray.format"  # of a Parquet file's schema: "images 1"


@dataclass(frozen=True)
class Format:
    """A kind of thing on disk.

    `what` is how messages call it. `changes[n]` says in a line what number n + 1 is or changed. Numbers from `oldest` on are read as they
    are, 0 being what has no number.
    """

    what: str
    changes: tuple[str, ...]
    oldest: int = 0

    @property
    def current(self) -> int:
        """The number that is written today."""
        return len(self.changes)


_FIRST = "its first number; otherwise as 0"
_SYNTHETIC = "also whether an editor made the picture; otherwise as 1"

TABLES = {
    "images": Format("a table of images", (_FIRST, _SYNTHETIC)),
    "captions": Format("a table of captions", (_FIRST, _SYNTHETIC)),
    "segments": Format("a table of segments", ("masks of a person's things, and the captions' nouns for them",)),
    "references": Format("a table of references", ("things cut out of images",)),
    "edits": Format("a table of edits", ("what was changed on each edited picture",)),
    "embeddings": Format("a table of embeddings", (_FIRST, _SYNTHETIC)),
    "hits": Format("a table of hits", (_FIRST,)),
    "failures": Format("a table of failures", (_FIRST,)),
    "noise": Format("a table of noise levels", (_FIRST,)),
    "queries": Format("a table of scored queries", (_FIRST,)),
    "seen": Format(
        "a table of what weights have seen",
        (
            "says which images trained and which chose the weights",
            "also perceptual hashes, texts and the weights before; otherwise as 1",
            "also from which data set an image was taken, and in the schema's metadata which weights it is of; otherwise as 2",
        ),
    ),
}
FORMATS = {
    **TABLES,
    "mark": Format("the mark of an output", ("says which files of the folder are the job's",)),
    "decisions": Format("a file of decisions about pictures", ("a line of JSON for each decision",)),
    "pointer": Format(
        "the pointer of an output at an object store", ("names the folder of the run whose result it is, and who writes now",)
    ),
    "output": Format("a job's output", (_FIRST, "counts tell what was left out from what failed; otherwise as 1")),
    "encoder": Format("a dual encoder", (_FIRST,)),
    "editor": Format("an editor of pictures", ("names mode, size, window and sampling",)),
    "mllm": Format("a tuned multimodal model", ("the adapter's folder has a manifest, too; otherwise as 0",)),
    "verifier": Format("a verifier of edits", ("weights and a manifest with vocabulary and error",)),
    "checkpoint": Format("a training checkpoint", (_FIRST,)),
    "noise_levels": Format("a store of noise levels", ("a file noise.json with this number; the arrays as in 0",)),
    "run": Format("the record of a training run", ("says what the run was started with",)),
    "prepared": Format(
        "prepared training data",
        (
            "a file ids.arrow, for messages; otherwise as 0",
            "a file seen.parquet beside the others; otherwise as 1",
            "pictures.arrow is a folder of files, each picture with its row and perceptual hash; otherwise as 2",
            "samples also say whether an editor made the picture; otherwise as 3",
            "counts tell what was left out from what failed; otherwise as 4",
        ),
    ),
    "ledger": Format(
        "a caption ledger",
        (
            "a file format.json with this number; rows as in 0",
            "no folder attempts; rows as in 0",
            "rows also say whether an editor made the picture; otherwise as 2",
        ),
    ),
    "gallery": Format(
        "a gallery's generation",
        (
            "names segments, dead rows, the log and what is to be erased",
            "segments also tell which vectors are equal, and may have an index; otherwise as 1",
            "segments without an index also have 8-bit codes of their vectors; otherwise as 2",
        ),
    ),
    "receipt": Format("the receipt of an erasure", ("says when it was asked for and carried out, and keyed digests of the ids",)),
    "service_answer": Format("an answer that a service remembers", ("says what a change was answered with",)),
    "service_job": Format(
        "an add job of a service", ("says how far it is", "also names the erasures that waited when it was asked for; otherwise as 1")
    ),
    "evaluation": Format(
        "the result of an evaluation",
        (
            _FIRST,
            "says what the weights have seen of the gallery; otherwise as 1",
            "exposure says it of near duplicates, queries and texts, too, and what is not known; a digest of the gallery; otherwise as 2",
            "failed tells failures alone, and left_out what was not asked for; otherwise as 3",
        ),
    ),
    "calibration": Format("the result of a calibration", (_FIRST,)),
    "templates": Format("a file of caption templates", (_FIRST,)),
    "audit": Format("an audit log", ("a chain of records, each with the hash of the one before it",)),
    "tokens": Format("a service's tokens file", ("names, roles, salted digests and expiry of tokens",)),
    "service": Format(
        "a search service's interface",
        (
            "/info states this number; otherwise as 0",
            "hits also say whether an editor made the picture; otherwise as 1",
            "hits also say generation and item_id; otherwise as 2",
            "an answer also says which shares of the gallery it lacks; otherwise as 3",
            "routes lie under /v1; a question has clues, filters and pages, and a hit all columns of its item",
            "/info also says whether the encoder knows drawn people only; otherwise as 5",
            "browsing, counts and /info also say which shares of the gallery they lack; otherwise as 6",
        ),
    ),
}


# What a manifest.json says its `kind` is; that of a job's output says none.
_MANIFESTS = {
    None: "output",
    "dual-encoder": "encoder",
    "mllm": "mllm",
    "adapter": "mllm",
    "editor": "editor",
    "training-checkpoint": "checkpoint",
    "verifier": "verifier",
}


def number_of(kind: str) -> int:
    """The number that is written today for a kind of FORMATS."""
    return FORMATS[kind].current


def numbered(kind: str) -> dict[str, int]:
    """The first field of a JSON file of this kind."""
    return {FIELD: number_of(kind)}


def stamp(kind: str) -> dict[bytes, bytes]:
    """The metadata of the Arrow schema of a kind of TABLES, which Parquet files inherit."""
    return {TABLE_FIELD: f"{kind} {number_of(kind)}".encode()}


def check(kind: str, found: Any, *, origin: Any) -> int:
    """The number of what lies at `origin`, which this package can read.

    Args:
        kind: one of FORMATS.
        found: what its field says; None: it has none.
        origin: the file, for messages.

    Raises:
        DataError: it is of a newer format, of one that must be migrated first, or no whole number.
    """
    known, found = FORMATS[kind], refuse_newer(kind, found, origin=origin)
    if found < known.oldest:
        raise DataError(
            f"{origin}: is {known.what} of format {found}, which this reid_ray reads only after a migration; run reid-ray migrate "
            "path=FOLDER on the folder that holds it"
        )
    return found


def refuse_newer(kind: str, found: Any, *, origin: Any) -> int:
    """As `check`, but what must be migrated first passes."""
    known = FORMATS[kind]
    if found is None:
        found = 0
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise DataError(f"{origin}: {FIELD} is {found!r}, not a whole number, so the file is damaged; make it again")
    if found > known.current:
        raise DataError(
            f"{origin}: is {known.what} of format {found}, but this reid_ray reads formats up to {known.current}; upgrade reid_ray, or "
            "make it again with this one"
        )
    return found


def check_json(kind: str, value: Mapping[str, Any], *, origin: Any) -> int:
    """As `check`, of a JSON object."""
    return check(kind, value.get(FIELD), origin=origin)


def check_manifest(manifest: Mapping[str, Any], *, origin: Any) -> int:
    """As `check`, of a manifest.json, which says itself what it is of. One of other people's passes as 0: its reader refuses it."""
    kind = manifest_kind(manifest)
    return check_json(kind, manifest, origin=origin) if kind is not None else 0


def manifest_kind(manifest: Mapping[str, Any]) -> str | None:
    """Which of FORMATS a manifest.json is of; None for other people's."""
    stated = manifest.get("kind")
    kind = _MANIFESTS.get(stated) if stated is None or isinstance(stated, str) else None
    return kind if kind != "output" or {"job", FIELD} & set(manifest) else None


def check_table(metadata: Mapping[bytes, bytes] | None, *, origin: Any) -> int:
    """As `check`, of a Parquet file: the metadata of its Arrow schema. Other people's tables have no number and pass as 0.

    Raises:
        DataError: also for what table_format refuses.
    """
    kind, number = table_format(metadata, origin=origin)
    return check(kind, number, origin=origin) if kind is not None else 0


def table_format(metadata: Mapping[bytes, bytes] | None, *, origin: Any) -> tuple[str | None, int]:
    """(kind, number) that a Parquet file's metadata states; (None, 0) where it states none.

    Raises:
        DataError: the statement is no kind and number, or the kind is one that only a newer version of this package can have written.
    """
    stated = (metadata or {}).get(TABLE_FIELD)
    if stated is None:
        return None, 0
    kind, _, number = stated.decode("utf-8", "replace").partition(" ")
    if not kind or not number.isdecimal():
        raise DataError(f"{origin}: {TABLE_FIELD.decode()} is {stated!r}, not a kind and a number, so the file is damaged; make it again")
    if kind not in TABLES:
        raise DataError(f"{origin}: is a table of {kind}, which this reid_ray does not know; upgrade reid_ray")
    return kind, int(number)
