"""Configuration of the compare job: two evaluations of the same queries."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import LocalPath


class CompareJob(Section):
    """Compare two evaluations of the same queries: difference of R@1 and mAP with a paired bootstrap interval."""

    baseline: LocalPath = Field(description="output folder of an evaluate job")
    candidate: LocalPath = Field(description="output folder of another; the difference is candidate - baseline")
    resamples: int = Field(10_000, ge=100, description="bootstrap samples")
    by: Literal["query", "person"] = Field(
        "person", description="what is drawn: person keeps all queries of one identity together, for they are not independent"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="share of the bootstrap distribution inside the interval")
    seed: int = Field(0, ge=0, description="seed of the resampling")
    output: OutputConfig
