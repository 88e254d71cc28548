"""The table failures/ that ingest writes beside images/ and captions/: every row that was read and could not be used, and why."""

from __future__ import annotations

import pyarrow as pa

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
