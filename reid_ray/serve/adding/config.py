"""Configuration of add jobs: how much may be uploaded, how it is embedded and captioned, how long a job is remembered."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrName


class AddingConfig(Section):
    """Adding to the gallery by jobs of the service."""

    most_mb: int = Field(1024, ge=1, description="largest upload of a job, MiB; refused while it is read")
    most_files: int = Field(10_000, ge=1, description="most pictures of a job; of more, send a table, or several jobs")
    most_unfinished: int = Field(16, ge=1, description="jobs that wait or run, of all replicas; one more is answered by 503")
    batch_size: int = Field(16, ge=1, description="pictures that are embedded together; searches go before them")
    max_pixels: int = Field(16_000_000, ge=1, description="a picture whose header claims more pixels is refused, never decoded")
    thumbnail_height: int = Field(256, ge=16, le=1024, description="height limit of the stored JPEG thumbnails, pixels; larger is shrunk")
    keep_jobs: int = Field(500, ge=1, description="finished jobs that are remembered, the latest ones; their uploads go when they finish")
    keep_days: float = Field(7.0, gt=0, description="how long a finished job is remembered, days")
    captioner: PathOrName | None = Field(
        None,
        description="configuration of the caption job, a file or one that ships (caption/caption.yaml), which captions pictures where a "
        "job asks for that; null: such jobs are refused",
    )
