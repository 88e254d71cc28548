"""Configuration of the job ingest: any supported data set -> the project's Parquet tables."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.data.config import LoadConfig
from reid_ray.data.formats.config import WITHOUT_FILES, SourceConfig


class IdentitySplit(Section):
    """Splits by identity, for a source without splits: identities that it names go to train, val or test whole."""

    train: int | float | None = Field(
        None, ge=0, description="identities to learn from: a share below 1, or a number; others stay unsplit. null: all that are left"
    )
    val: int | float = Field(0.1, ge=0, description="identities that choose the weights: a share below 1, or a number; 0 is none")
    test: int | float = Field(0.25, ge=0, description="identities to score on: a share below 1, or a number; 0 is none")
    least_images: int = Field(
        2,
        ge=1,
        description="only identities of so many images validate and test, for with one there is nobody to find; the others are learnt from",
    )
    seed: int = Field(0, ge=0, description="which identities are drawn")

    @model_validator(mode="after")
    def _shares_and_whole_numbers(self) -> Self:
        for name in ("train", "val", "test"):
            value = getattr(self, name)
            if value is not None and value >= 1 and value != int(value):
                raise ValueError(f"{name} is {value}, neither a share below 1 nor a whole number of identities")
        if sum(value for value in (self.train or 0, self.val, self.test) if value < 1) > 1:
            raise ValueError("the shares of train, val and test are more than 1 together; lower one")
        return self


class IngestJob(Section):
    """Job ingest."""

    source: SourceConfig
    split_by_identity: IdentitySplit | None = Field(
        None, description="draw splits by identity, for a source that has none; images of nobody stay unsplit. null: the source's own"
    )
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
