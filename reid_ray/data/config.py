"""Configuration of reading images: how many at a time, and how far each is checked; shared by ingest, lint, export and every source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.config.base import Section


class LoadConfig(Section):
    """How images are read and checked, within bounded memory."""

    processes: int | None = Field(
        None, ge=0, le=256, description="processes for images on a local disk; null takes one per core, 0 works in the job's own process"
    )
    threads: int = Field(16, ge=1, le=256, description="threads for images in an object store, where waiting is most of the work")
    check: Literal["decode", "header"] = Field(
        "decode", description="decode finds truncated files too; header only reads the size, about 4 times cheaper on small crops"
    )
