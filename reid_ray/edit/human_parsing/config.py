"""Configuration of the segment job: images or segments in, segments with the captions' nouns out."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, OutputConfig, PoolConfig, RayConfig
from reid_ray.config.paths import PathOrAddress, PathOrName

Slot = Literal["hair", "upper", "lower", "full", "shoes", "bag", "hat"]


class HumanParserConfig(Section):
    """A model that gives each pixel of a picture a class, and which slot each class is."""

    model: PathOrName = Field(
        "builtin:tiny-parser",
        description="builtin:tiny-parser (drawn people only), a folder or a hub name of a model for semantic segmentation in transformers' "
        "format, such as mattmdjaga/segformer_b2_clothes",
    )
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")
    slots: dict[str, Slot | None] | None = Field(
        None,
        description="the model's class -> slot, for classes that mean one; null knows ATR's, LIP's and the slots' names",
    )


class MaskRefinerConfig(Section):
    """A promptable model (SAM and its kin) that redraws the parser's masks, each from its box."""

    model: PathOrName = Field(
        description="folder or hub name of a model for mask generation in transformers' format: facebook/sam-vit-base"
    )
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")


class NounsConfig(Section):
    """Captions whose nouns are linked to the segments."""

    path: PathOrAddress = Field(description="CAPTIONS table of the images")
    kinds: list[Literal["human", "static", "dynamic", "rewrite"]] = Field(
        ["human", "static", "dynamic"], min_length=1, description="kinds of captions to link"
    )
    most_slots: int = Field(
        3,
        ge=1,
        description="slots of a caption that are linked; if it names more that the image shows, some are drawn by its id",
    )


class SegmentJob(Section):
    """Find hair, garments, shoes, bags and hats on images, and the nouns that name them."""

    gives_way: ClassVar = {"images": ("segments",), "segments": ("images", "parser", "refiner", "pool")}

    images: ImagesConfig | None = Field(None, description="images to parse; or give segments")
    segments: PathOrAddress | None = Field(
        None, description="SEGMENTS table to link captions to, such as synthesize's truth or an earlier run's; or give images"
    )
    captions: NounsConfig | None = Field(None, description="captions of the images; null leaves one row for each image and slot, unlinked")
    slots: list[Slot] = Field(["hair", "upper", "lower", "full", "shoes", "bag", "hat"], min_length=1, description="slots to look for")
    min_area: float = Field(0.003, ge=0, lt=1, description="share of an image's pixels below which a slot counts as absent")
    parser: HumanParserConfig = HumanParserConfig()
    refiner: MaskRefinerConfig | None = Field(None, description="redraw the parser's masks from their boxes; null keeps them")
    pool: PoolConfig = Field(PoolConfig(batch_size=32), description="actors that hold the models, on as many nodes as the cluster has")
    rows_per_part: int = Field(100_000, ge=1, description="rows per Parquet part")
    output: OutputConfig
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.images is None) == (self.segments is None):
            raise ValueError("images are parsed, segments are there already; give exactly one of them")
        if self.segments is not None and {"parser", "refiner", "pool"} & self.model_fields_set:
            raise ValueError("parser, refiner and pool are for images, but segments is given; drop them")
        if len(set(self.slots)) < len(self.slots):
            raise ValueError("slots names one twice; name each once")
        return self
