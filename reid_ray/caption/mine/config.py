"""Configuration of the template mining job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.caption.config import SamplingConfig, VllmConfig
from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig, PoolConfig, RayConfig
from reid_ray.config.paths import PathOrAddress, PathOrName


class PatternWriterConfig(Section):
    """The language model that words patterns afresh."""

    variants: int = Field(1, ge=0, description="wordings asked per pattern; 0 starts no model: the rules alone give usable templates")
    model: PathOrName = Field("builtin:smollm2-135m-instruct", description="builtin:NAME, a folder of weights, or a hub name")
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")
    engine: VllmConfig = VllmConfig()
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.95)
    pool: PoolConfig = PoolConfig(batch_size=32)


class MineJob(Section):
    """Captions in, templates for the dynamic instruction out."""

    captions: PathOrAddress = Field(description="CAPTIONS table: a Parquet file or a folder of them")
    kinds: tuple[Literal["human", "static", "dynamic", "rewrite"], ...] = Field(
        ("human", "static"), min_length=1, description="captions that are mined; the method mines static ones"
    )
    limit: int = Field(20_000, ge=1, description="at most this many captions, in the table's order")
    min_support: int = Field(1, ge=1, description="captions that must share a pattern; raise it with many captions, to leave out oddities")
    max_templates: int = Field(
        100, ge=1, description="templates written: in turn the most frequent patterns, their variants by rule and by the model"
    )
    similarity: float = Field(0.7, gt=0, le=1, description="Jaccard overlap of word pairs from which two templates count as the same")
    writer: PatternWriterConfig = PatternWriterConfig()
    seed: int = Field(0, ge=0, description="of the variants' order and openings")
    no_progress_timeout_s: int = Field(1800, ge=30, description="seconds without any progress after which the job fails")
    output: OutputConfig
    ray: RayConfig = RayConfig()
