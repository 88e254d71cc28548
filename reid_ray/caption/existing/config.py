"""Configuration of the rewrite job: a table of captions -> the same table with rewrites beside them, the faithful ones marked."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.caption.config import RewriterConfig, RewritingJob
from reid_ray.caption.plausibility.config import TextLimits
from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrAddress


class ExistingCaptions(Section):
    """Captions that are there already, and which of them are rewritten."""

    path: PathOrAddress = Field(
        description="Parquet file or folder in the CAPTIONS schema: captions/ of an ingest (people's captions) or of an earlier caption job"
    )
    splits: list[str | None] = Field(
        ["train"],
        min_length=1,
        description="captions of these splits are rewritten. Rewrites are training data, so val and test stay as people wrote them unless "
        "they are named; null in the list stands for captions without a split, as LUPerson's",
    )
    kinds: list[Literal["human", "static", "dynamic"]] = Field(
        ["human", "static", "dynamic"], min_length=1, description="kinds of captions that are rewritten"
    )
    readers: int = Field(2, ge=1, description="Ray tasks that read the table at the same time, 1 CPU each")


class RewriteJob(RewritingJob):
    """A CAPTIONS table in, the same rows and their rewrites out; no image is read and no captioner runs."""

    captions: ExistingCaptions
    rewriter: RewriterConfig = RewriterConfig(share=1.0)
    plausibility: TextLimits = TextLimits()

    @model_validator(mode="after")
    def _something_to_rewrite(self) -> Self:
        if not self.rewriter.share:
            raise ValueError("rewriter.share is 0, so there is nothing to rewrite; set it above 0, 1 for every caption")
        return self
