"""Configuration of the index job: images, or tables of embedded ones, in; a gallery that can be searched, added to and erased from, out."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import EmbedPoolConfig, ImagesConfig, OptionalRayConfig, OutputConfig
from reid_ray.config.paths import PathOrAddress, PathOrName
from reid_ray.gallery.config import GalleryConfig

_OF_IMAGES = ("embed", "thumbnail_height")


class IndexJob(Section):
    """Make a gallery of images: embed them, or take what the embed job wrote."""

    gives_way: ClassVar = {"images": ("embeddings",), "embeddings": ("images", *_OF_IMAGES)}

    images: ImagesConfig | None = Field(None, description="images to embed; or give embeddings")
    embeddings: list[PathOrAddress] | None = Field(
        None,
        min_length=1,
        description="tables that the embed job wrote (embeddings/ of its output); of two items of one id the later one is taken",
    )
    encoder: PathOrName | None = Field(
        None,
        description="folder of an encoder (model/ of the train or tune job; of a tuned one FOLDER#visual or #latent, the default), or hub "
        "name of a CLIP, SigLIP or open_clip (openai/clip-vit-base-patch16), NAME@REVISION for a tag or commit. "
        "With embeddings it may be left out; given, it must be the one that made them, and a search then knows where it is",
    )
    embed: EmbedPoolConfig = EmbedPoolConfig(batch_size=32)
    gallery: GalleryConfig = GalleryConfig()
    include_synthetic: bool = Field(
        False, description="also index pictures that an editor made (column synthetic); false leaves them out, counted as synthetic"
    )
    thumbnail_height: int = Field(256, ge=16, le=1024, description="height limit of the stored JPEG thumbnails, pixels; larger is shrunk")
    output: OutputConfig
    ray: OptionalRayConfig = OptionalRayConfig()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.images is None) == (self.embeddings is None):
            raise ValueError("images are embedded now, embeddings were embedded before; give exactly one of them")
        if self.images is not None and self.encoder is None:
            raise ValueError("encoder is missing, which images need; give the model/ folder of a train or tune run")
        if self.embeddings is not None and (ignored := sorted(set(_OF_IMAGES) & self.model_fields_set)):
            raise ValueError(f"{ignored[0]} is for images, but embeddings is given; drop it (the embed job has it, too)")
        return self
