"""Migration steps: for each kind and format number the function to the next number.

Pure functions: of a JSON file the object, of a table a piece of it, its old columns in, its new ones out. The number itself is written by
whoever calls. Knows layouts, old and new; no files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from reid_ray.reasons import both_told_apart, told_apart
from reid_ray.versions import FORMATS, TABLES

JsonStep = Callable[[dict[str, Any]], dict[str, Any]]
TableStep = Callable[[pa.Table], pa.Table]


def _same_object(value: dict[str, Any]) -> dict[str, Any]:
    return value


def _same_table(table: pa.Table) -> pa.Table:
    return table


def _told_apart(value: dict[str, Any]) -> dict[str, Any]:
    """With counts in which what was left out is no longer among what failed; those of an ingest's captions, too."""
    failed, left_out = told_apart(value["counts"]["failed"])
    value = {**value, "counts": {**value["counts"], "failed": failed, "left_out": left_out}}
    captions = value.get("facts", {}).get("captions", {}) if value.get("job") == "ingest" else {}
    if not captions:
        return value
    failed, left_out = told_apart(captions["failed"])
    return {**value, "facts": {**value["facts"], "captions": {**captions, "failed": failed, "left_out": left_out}}}


def _sides_told_apart(value: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's result whose queries and gallery tell what was left out from what failed."""
    return {**value, **both_told_apart(value["failed"])}


REGENERATED = ("mark", "pointer", "service")  # never read to be changed
# (kind, number before) -> step. Number 1 differs from 0 by saying so.
JSON_STEPS: dict[tuple[str, int], JsonStep] = {
    **{(kind, 0): _same_object for kind in FORMATS if kind not in TABLES and kind not in REGENERATED},
    ("prepared", 1): _same_object,  # what images were seen cannot be told afterwards; readers do without
    ("prepared", 2): _same_object,  # one file of pictures is read as a folder of them is
    ("prepared", 3): _same_object,  # no older run asks for a share of edited pictures
    ("prepared", 4): _told_apart,
    ("output", 1): _told_apart,
    ("ledger", 1): _same_object,  # opening it removes the folder
    ("ledger", 2): _same_object,  # rows that lack a column have null there
    ("gallery", 1): _same_object,  # a segment that does not tell which vectors are equal is searched without
    ("gallery", 2): _same_object,  # one without codes is searched by its vectors
    ("service_job", 1): _same_object,  # an erasure that waited then counts as a later one
    ("evaluation", 1): _same_object,
    ("evaluation", 2): _same_object,  # readers fill in what an older result does not tell
    ("evaluation", 3): _sides_told_apart,
}
TABLE_STEPS: dict[tuple[str, int], TableStep] = {
    **{(kind, 0): _same_table for kind in TABLES},
    **{(kind, 1): _same_table for kind in ("images", "captions", "embeddings")},  # so was no picture's origin told
    ("seen", 1): _same_table,  # columns that an older table lacks are read as null: not recorded
    ("seen", 2): _same_table,  # which weights an older table is of cannot be told afterwards, so what else they saw is not known
}


def migrated_json(kind: str, value: dict[str, Any], found: int) -> dict[str, Any]:
    """A JSON object of format `found` as today's, its number aside."""
    for number in range(found, FORMATS[kind].current):
        value = JSON_STEPS[kind, number](value)
    return value


def migrated_table(kind: str, table: pa.Table, found: int) -> pa.Table:
    """A piece of a table of format `found` as today's, its number aside."""
    for number in range(found, FORMATS[kind].current):
        table = TABLE_STEPS[kind, number](table)
    return table
