"""Reject table: failed rows and their reason codes, as ingest writes them to failures/, and what to say when no row is left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from reid_ray.data.image_records import Skipped

from reid_ray.versions import stamp

FAILURES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # the short code that the manifest counts by
        pa.field("detail", pa.string()),
        pa.field("path", pa.string()),  # where the image lies or should lie
        pa.field("captions", pa.list_(pa.string())),  # texts that lost their image
        pa.field("dataset", pa.string()),
        pa.field("split", pa.string()),
        pa.field("person_id", pa.int64()),
        pa.field("camera_id", pa.int32()),
    ],
    metadata=stamp("failures"),
)


class Failures:
    """How many rows failed for each reason, with the first of each as an example."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, Skipped] = {}

    def add(self, row: Skipped) -> None:
        """Count one row."""
        self.counts[row.reason] += 1
        self._first.setdefault(row.reason, row)

    def commonest(self) -> str:
        """The commonest reason with its first case: what it concerns, the value at fault, and where the file was looked for."""
        if not self.counts:
            return "it holds no image at all"
        reason, count = self.counts.most_common(1)[0]
        row = self._first[reason]
        place = f", looked for at {row.path}" if row.path else ""
        return f"{reason} {count} times, first {row.image_id}: {row.detail}{place}"
