"""What every format reader yields: one ImageRecord per image with its captions, or a Skipped with the reason why not.

Knows no format and reads no image; a reader only says where an image's bytes are, and the loader fetches them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from reid_ray.storage.file_systems import Store

# What readers set right in a row that can be used: ingest's manifest counts it by these codes, lint says it in these words.
MENDED = {
    "line_break_spelled": "images with captions that spell a line break as /n or \\n: read as a space",
    "label_not_known": "images with labels of -1, which is not known: null in attributes",
    "label_unusable": "images whose list of labels is none: attributes are null",
    "no_split_key": "images without the key split, in a data set of one split",
    "text_for_list": "images with a text where their list of captions should be",
    "object_for_list": "images with an object where their list of captions should be: its values in the order of its keys",
    "records_for_object": "images in a list of records where an object {path: captions} should be",
    "pictures_elsewhere": "images in another folder than the published one, or beside the annotations: read there",
    "camera_unknown": "images whose name does not say the camera, as their data set's names do: camera_id is null",
    "further_fields": "images of a WebDataset whose .json says more than is read of it: left out",
    "path_of_elsewhere": "images whose path begins with folders of another machine: read from Part1, Part2, ... on",
}

# A caption is a partial row of records.CAPTIONS: at least "text"; kind human and status ok where it does not say otherwise.
Caption = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image as its data set describes it: the file `name` of `store`, or bytes at hand in `data`."""

    image_id: str
    dataset: str
    store: Store | None = None
    name: str | None = None
    data: bytes | None = None
    split: str | None = None
    person_id: int | None = None
    camera_id: int | None = None
    synthetic: bool | None = None
    attributes: str | None = None
    captions: tuple[Caption, ...] = field(default=())
    mended: tuple[str, ...] = field(default=())  # codes of MENDED
    own: Mapping[str, Any] = field(default_factory=dict)  # columns beside those of IMAGES

    @property
    def path(self) -> str | None:
        """Where the file lies, as a path or URI that stands alone; None for an image that is no file of its own."""
        return self.store.locate(self.name) if self.store is not None and self.name is not None else None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row of the source that is no usable image: counted by `reason`, kept with `detail`."""

    image_id: str
    dataset: str
    reason: str
    detail: str
    split: str | None = None
    person_id: int | None = None
    camera_id: int | None = None
    path: str | None = None
    captions: tuple[Caption, ...] = field(default=())


Records = Iterator[ImageRecord | Skipped]


class LabelledRecords(Iterator[ImageRecord | Skipped]):
    """Records whose `own` is in a schema that is known before the first of them.

    Args:
        records: what is read.
        own: the schema of their own columns.
        told: how far a table beside the images is of the same ones, in counts; empty without one.
    """

    def __init__(self, records: Records, own: pa.Schema, told: Mapping[str, int]) -> None:
        self._records, self.own, self.told = records, own, told

    def __next__(self) -> ImageRecord | Skipped:
        return next(self._records)


def skipped(record: ImageRecord, reason: str, detail: str) -> Skipped:
    """A record that turned out to be unusable, with all that is known of it but its bytes."""
    return Skipped(
        record.image_id,
        record.dataset,
        reason,
        detail,
        split=record.split,
        person_id=record.person_id,
        camera_id=record.camera_id,
        path=record.path,
        captions=record.captions,
    )


def caption_of(text: Any, **columns: Any) -> Caption:
    """A caption row of whatever the source holds: a text, or null or another type, which becomes a failed row that keeps the value."""
    if isinstance(text, str):
        status = {"status": "ok"} if text.strip() else {"status": "failed", "reason": "empty_caption"}
        return {"kind": "human", "text": text, **status, **columns}
    if text is None:
        return {"kind": "human", "text": None, "status": "failed", "reason": "null_caption", **columns}
    reason = f"caption_not_text: a {type(text).__name__}: {str(text)[:80]}"
    return {"kind": "human", "text": None, "status": "failed", "reason": reason, **columns}


def composed_caption(text: Any, target: str, **columns: Any) -> Caption:
    """The text of a query that is an image and a text together: it describes `target`, not the image that it stands with.

    No job asks with both, and nothing may learn the pair, so it is kept as a failed row.
    """
    caption = caption_of(text, **columns)
    if caption["status"] != "ok":
        return caption
    return {**caption, "status": "failed", "reason": f"composed_query: asks with its image for {target}"}


def is_composed(caption: Caption) -> bool:
    """Whether a row is of composed_caption."""
    return caption["status"] == "failed" and caption["text"] is not None and str(caption["reason"]).startswith("composed_query:")


def asked_for(caption: Caption) -> str:
    """The `target` of a row of composed_caption."""
    return str(caption["reason"]).partition(" asks with its image for ")[2]
