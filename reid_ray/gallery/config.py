"""Configuration of a gallery: how vectors are stored, when what was written becomes a segment, and how long erased items may last."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.config.base import Section


class GalleryConfig(Section):
    """What is fixed when a gallery is made."""

    dtype: Literal["float32", "float16"] = Field(
        "float32", description="of stored vectors; float16 halves memory and moves a cosine by at most 0.001"
    )
    segment_rows: int = Field(65_536, ge=1, description="items held in memory and the log before they become an immutable segment")
    merge_rows: int = Field(
        1_048_576, ge=1, description="neighbouring segments are merged while they have at most this many items together"
    )
    erase_within_hours: float = Field(
        24.0,
        ge=0,
        description="deadline by which erased items are gone from every file, if a writer or a service has the gallery; 0: at once",
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        description="items older than this are erased, looked for every hour by whoever writes; null keeps them until they are erased",
    )
