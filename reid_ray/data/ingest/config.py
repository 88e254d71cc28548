"""Configuration of the job ingest: any supported data set -> the project's Parquet tables."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.data.config import LoadConfig
from reid_ray.data.formats.config import WITHOUT_FILES, SourceConfig


class IngestJob(Section):
    """Job ingest."""

    source: SourceConfig
    images: Literal["bytes", "path"] = Field(
        "bytes", description="bytes: the table holds the encoded files; path: it holds where they lie, and they must stay there"
    )
    load: LoadConfig = LoadConfig()
    part_mb: int = Field(64, ge=1, le=1024, description="image bytes per Parquet part, MiB: bounds memory here and in every later reader")
    limit: int | None = Field(None, ge=1, description="at most this many images, in the source's order; null takes all")
    output: OutputConfig

    @model_validator(mode="after")
    def _paths_need_files(self) -> Self:
        if self.images == "path" and self.source.format in WITHOUT_FILES:
            raise ValueError(f"images is path, but images of a {self.source.format} are no files of their own; set images to bytes")
        return self
