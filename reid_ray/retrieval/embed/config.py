"""Configuration of the embed job: images or captions in, a table of unit vectors out."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import EmbedPoolConfig, ImagesConfig, OptionalRayConfig, OutputConfig
from reid_ray.config.paths import PathOrAddress, PathOrName


class EmbedJob(Section):
    """Embed images or captions once, for evaluations and comparisons that read the vectors."""

    gives_way: ClassVar = {"images": ("captions", "caption_kinds", "split"), "captions": ("images", "thumbnail_height")}

    encoder: PathOrName = Field(
        description="folder of a trained encoder (the model/ folder that the train job writes), which every node must see; or a hub name, "
        "as the index job takes it"
    )
    images: ImagesConfig | None = Field(None, description="images to embed; or give captions")
    captions: PathOrAddress | None = Field(None, description="CAPTIONS table to embed; or give images")
    caption_kinds: list[Literal["human", "static", "dynamic", "rewrite"]] = Field(
        ["human"], min_length=1, description="kinds of captions to embed; a benchmark's own are human"
    )
    split: str | None = Field(None, description="captions of this split; null takes all. Images have images.split")
    embed: EmbedPoolConfig = Field(
        EmbedPoolConfig(batch_size=64), description="actors that hold the encoder, on as many nodes as the cluster has"
    )
    thumbnail_height: int | None = Field(
        None, ge=16, le=1024, description="of images: also keep a JPEG of at most so many pixels, for a gallery to show; null keeps none"
    )
    rows_per_file: int = Field(50_000, ge=1, description="at least this many rows in each Parquet file but the last; bounds their number")
    output: OutputConfig
    ray: OptionalRayConfig = OptionalRayConfig()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.images is None) == (self.captions is None):
            raise ValueError("images and captions are two tables; give exactly one of them")
        if self.images is not None and {"caption_kinds", "split"} & self.model_fields_set:
            raise ValueError("caption_kinds and split choose captions, but images is given; drop them (images have images.split)")
        if self.images is None and self.thumbnail_height is not None:
            raise ValueError("thumbnail_height is for images, but captions is given; drop it")
        return self
