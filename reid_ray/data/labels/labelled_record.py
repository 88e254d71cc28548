"""A file of a folder with what is known of it, as a record; or as a skipped row, where that cannot be used. Reads no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reid_ray.data.image_records import ImageRecord, Skipped
from reid_ray.data.labels.label_columns import LABELS, REFUSED
from reid_ray.storage.file_systems import Store
from reid_ray.storage.regular_files import printable


def labelled(store: Store, name: str, dataset: str, known: Mapping[str, Any] | None) -> ImageRecord | Skipped:
    """The record of a file.

    Args:
        store: the folder.
        name: of the file, relative to the folder.
        dataset: its name.
        known: its row of Labeller.labels; None: nothing is known.
    """
    if known is None:
        return ImageRecord(printable(name), dataset, store, name)
    who = {key: known[key] for key in ("split", "person_id", "camera_id")}
    if known[REFUSED.name] is not None:
        reason, _, detail = known[REFUSED.name].partition(": ")
        return Skipped(printable(name), dataset, reason, detail, **who, path=store.locate(name))
    own = {key: value for key, value in known.items() if key not in LABELS.names}
    return ImageRecord(printable(name), dataset, store, name, **who, own=own)
