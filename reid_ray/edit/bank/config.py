"""Configuration of the references job: segments of training images and folders of clothes in, a bank of references out."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, OutputConfig
from reid_ray.config.paths import PathOrAddress
from reid_ray.edit.human_parsing.config import Slot


class ReferenceFolderConfig(Section):
    """A folder of pictures of clothes and accessories, in a subfolder for each slot: upper/red_coat.png, shoes/boots/12.jpg."""

    path: PathOrAddress = Field(description="folder with subfolders named as slots")
    masks: PathOrAddress | None = Field(
        None,
        description="folder of the pictures' masks, black where the thing is not, by the same names with the suffix .png; null takes the "
        "pictures' own transparency",
    )
    values: dict[str, dict[str, str]] = Field(
        {}, description="name below path -> {attribute: value} of what is known, as upper/red_coat.png: {upper: coat, upper_color: red}"
    )


class ReferencesJob(Section):
    """Fill a bank of references, each a thing cut out of a picture, none of a picture that scores anything."""

    images: ImagesConfig | None = Field(None, description="images whose segments are cut out, with segments; or give folders alone")
    segments: PathOrAddress | None = Field(None, description="SEGMENTS table of these images")
    captions: PathOrAddress | None = Field(
        None, description="CAPTIONS table that tells a reference's values by its noun, where an image's attributes are not known"
    )
    folders: dict[str, ReferenceFolderConfig] = Field({}, description="name -> folder of clothes and accessories from outside the data set")
    unsplit: bool = Field(False, description="also take images without a split; those of val, test, query and gallery are always refused")
    slots: list[Slot] = Field(["hair", "upper", "lower", "full", "shoes", "bag", "hat"], min_length=1, description="slots to keep")
    most_per_slot: int | None = Field(
        10_000, ge=1, description="references of one slot that are cut out of images, drawn by image and slot; null takes all"
    )
    min_side: int = Field(6, ge=1, description="width and height in pixels that a reference has at least")
    max_side: int = Field(512, ge=16, description="a larger one is made smaller: longer side in pixels")
    max_pixels: int = Field(50_000_000, ge=1, description="a picture of a folder whose header claims more is a failed row")
    rows_per_part: int = Field(20_000, ge=1, description="rows per Parquet part")
    output: OutputConfig

    @model_validator(mode="after")
    def _a_source(self) -> Self:
        if (self.images is None) != (self.segments is None):
            raise ValueError("images and segments belong together; give both, or folders alone")
        if self.images is None and not self.folders:
            raise ValueError("nothing to cut out of; give images with segments, or folders")
        if self.captions is not None and self.images is None:
            raise ValueError("captions tell of images, but none are given; drop captions")
        return self
