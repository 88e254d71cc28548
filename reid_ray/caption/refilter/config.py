"""Configuration of the refilter job: other thresholds over captions that are made already."""

from __future__ import annotations

from pydantic import Field

from reid_ray.caption.plausibility.config import TextLimits
from reid_ray.config.base import Section
from reid_ray.config.common import StorableOutputConfig
from reid_ray.config.paths import PathOrAddress


class RefilterJob(Section):
    """The output folder of a caption job in, the same captions with new statuses out."""

    run: PathOrAddress = Field(description="output folder, or address, of a caption or refilter job: captions/*.parquet and manifest.json")
    alpha: float = Field(0.6, ge=-1, le=1, description="least cosine of rewrite and original; the calibrate job finds it for an encoder")
    min_agreement: float | None = Field(
        None,
        ge=0,
        le=1,
        description="least attribute agreement of rewrite and original (1: all attributes kept, 0: one contradicted); null asks for none",
    )
    plausibility: TextLimits = TextLimits()
    output: StorableOutputConfig
