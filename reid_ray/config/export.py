"""Configuration of the job export: the project's tables -> a data set in a published layout."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig

ExportFormat = Literal["cuhk_pedes", "icfg_pedes", "rstpreid", "market1501", "luperson", "luperson_mllm", "webdataset"]


class ExportJob(Section):
    """Job export."""

    tables: str = Field(description="folder with images/ and captions/, as the jobs ingest and synthesize write it")
    captions: str | None = Field(None, description="captions table that lies elsewhere, as the job caption writes it; null takes captions/")
    format: ExportFormat = Field(description="published layout to write")
    kinds: tuple[Literal["human", "static", "dynamic", "rewrite"], ...] = Field(
        ("human", "static", "dynamic", "rewrite"), min_length=1, description="kinds of captions to write"
    )
    samples_per_shard: int = Field(10_000, ge=1, description="webdataset only: samples per tar shard")
    processes: int | None = Field(None, ge=0, le=256, description="processes that read images kept by path; null: one per core")
    output: OutputConfig
