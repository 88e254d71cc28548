"""Configuration of the evaluate job: an encoder, or embeddings made before, scored by one of three protocols."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import EmbedPoolConfig, OptionalRayConfig, OutputConfig
from reid_ray.config.paths import PathOrAddress, PathOrName

_NOT_LEFT_OUT = ("captions", "query_embeddings", "query_split")


class RerankConfig(Section):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017); its defaults are the paper's."""

    k1: int = Field(20, ge=1, description="neighbours looked at for reciprocity")
    k2: int = Field(6, ge=1, description="neighbours averaged in local query expansion; 1 is off")
    lambda_value: float = Field(0.3, ge=0, le=1, description="weight of the original distance; 1 - this is the Jaccard distance's")


class EvaluateJob(Section):
    """Score an encoder, or embeddings, on held-out identities: CMC, mAP, mINP.

    Queries and gallery are embedded by Ray Data actors, or read from EMBEDDINGS tables that any number of nodes wrote.
    """

    gives_way: ClassVar = {
        "captions": ("query_embeddings",),
        "query_embeddings": ("captions",),
        "protocol=text_to_image": ("rerank",),
        "protocol=image_to_image": ("captions", "msd"),
        "protocol=leave_one_out": ("captions", "query_embeddings", "query_split", "msd", "rerank"),
    }

    protocol: Literal["text_to_image", "image_to_image", "leave_one_out"] = Field(
        "text_to_image",
        description="text_to_image: captions are queries, all images of the split the gallery, nothing is removed; image_to_image, across "
        "cameras as published: gallery images of the query's person from the query's camera are removed; leave_one_out, for one camera: "
        "every image queries all others of its split, those of its own track set apart where the table has a column track. Scores of "
        "different protocols are not comparable",
    )
    encoder: PathOrName | None = Field(
        None,
        description="folder or hub name of an encoder, as the index job takes it (captions search by a tuned multimodal LLM's latent "
        "feature); with embeddings optional: its folder tells what the weights were selected on and have seen",
    )
    images: PathOrAddress | None = Field(
        None,
        description="IMAGES table: gallery, and image queries; with gallery_embeddings optional: shown on the picture, and compared with "
        "what the weights have seen",
    )
    captions: PathOrAddress | None = Field(None, description="CAPTIONS table: the text queries")
    caption_kinds: list[Literal["human", "static", "dynamic", "rewrite"]] = Field(
        ["human"], min_length=1, description="kinds of captions that are queries; a benchmark's own are human"
    )
    query_embeddings: PathOrAddress | None = Field(
        None, description="EMBEDDINGS table of the queries, in place of captions or query images"
    )
    gallery_embeddings: PathOrAddress | None = Field(None, description="EMBEDDINGS table of the gallery, in place of images")
    split: str | None = Field("test", description="gallery: images of this split; null takes all")
    query_split: str | None = Field(
        None, description="queries of this split; null: the same as split. Image benchmarks use split gallery and query_split query"
    )
    query_limit: int | None = Field(
        None,
        ge=1,
        description="leave_one_out only: so many images query, drawn by their ids, the same each time; the gallery stays whole. null: all, "
        "which of a million takes hours",
    )
    include_synthetic: bool = Field(
        False,
        description="also score people that an editor made (column synthetic), as queries and in the gallery; false leaves them out, "
        "counted as synthetic",
    )
    max_pixels: int = Field(50_000_000, ge=1, description="an image whose header claims more pixels is a failed row, never decoded")
    embed: EmbedPoolConfig = Field(EmbedPoolConfig(batch_size=64), description="actors that hold the encoder")
    rerank: RerankConfig | None = Field(None, description="re-rank before scoring; image_to_image only; null is off")
    msd: bool = Field(
        False,
        description="also mSD, UFineBench's mean similarity distribution, all of it in sorted order (the published script mixes two "
        "orders, so its numbers are others); text_to_image only",
    )
    device: str = Field(
        "cpu",
        description="torch device that ranks: cpu, or cuda:0 where this process has a GPU; both give the same ranks for the same scores",
    )
    top_k: int = Field(10, ge=1, le=1000, description="hits kept per query in hits/")
    sheet_queries: int = Field(8, ge=0, le=100, description="queries on sheet.png, spread evenly; 0 draws none. Needs images")
    output: OutputConfig
    ray: OptionalRayConfig = OptionalRayConfig()

    @model_validator(mode="after")
    def _one_source_each(self) -> Self:
        if self.gallery_embeddings is None and self.images is None:
            raise ValueError("neither images nor gallery_embeddings is given, so there is no gallery; give one of them")
        if self.protocol == "text_to_image" and (self.captions is None) == (self.query_embeddings is None):
            raise ValueError("the queries of text_to_image are captions or query_embeddings; give exactly one of them")
        if self.protocol == "image_to_image":
            if self.captions is not None:
                raise ValueError("captions is given, but the queries of image_to_image are images; drop captions or change protocol")
            if (self.query_embeddings is None) != (self.gallery_embeddings is None):
                raise ValueError(
                    "image_to_image takes queries and gallery from one source: give both query_ and gallery_embeddings, or neither"
                )
        if self.protocol == "leave_one_out" and (given := [name for name in _NOT_LEFT_OUT if getattr(self, name) is not None]):
            raise ValueError(
                f"{given[0]} is given, but in leave_one_out the gallery's own images query; drop {given[0]} or change protocol"
            )
        if self.protocol != "leave_one_out" and self.query_limit is not None:
            raise ValueError(f"query_limit draws queries of leave_one_out, but protocol is {self.protocol}; drop it or change protocol")
        if self.embeds and self.encoder is None:
            raise ValueError("encoder is required to embed images or captions; give it, or both query_embeddings and gallery_embeddings")
        if self.rerank is not None and self.protocol != "image_to_image":
            raise ValueError("rerank compares queries with the gallery as neighbours of one kind, so protocol must be image_to_image")
        if self.msd and self.protocol != "text_to_image":
            raise ValueError("msd is defined for text_to_image, where nothing is removed from the gallery; drop it or change protocol")
        return self

    @property
    def embeds(self) -> bool:
        """Whether anything is left to embed."""
        if self.protocol == "leave_one_out":
            return self.gallery_embeddings is None
        return self.query_embeddings is None or self.gallery_embeddings is None
