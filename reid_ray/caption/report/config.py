"""Configuration of the report on a captioning run."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, OutputConfig
from reid_ray.config.paths import PathOrAddress


class ReportJob(Section):
    """The output folder of a caption job in, one HTML file out."""

    run: PathOrAddress = Field(description="output folder, or address, of a caption or refilter job: captions/*.parquet and manifest.json")
    images: ImagesConfig | None = Field(None, description="where the run's images are; null takes what the run's manifest says")
    sample_images: int = Field(24, ge=0, description="images shown with their captions and rewrites")
    sample_captions: int = Field(
        1000, ge=2, description="captions per kind for distinct-n and self-BLEU, which can be compared at the same number only"
    )
    seed: int = Field(0, ge=0, description="of both samples")
    output: OutputConfig
