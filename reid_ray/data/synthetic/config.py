"""Configuration of jobs/synthesize.py: synthetic people written to disk."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig, SyntheticConfig


class SynthesizeJob(Section):
    """The synthesize job: people, and where their tables go."""

    people: SyntheticConfig = SyntheticConfig()
    output: OutputConfig
    captions: bool = Field(True, description="also write the two human-like captions of each image")
    segments: bool = Field(False, description="also write where each image shows hair, garments, shoes, bag and hat; for editing")
    rows_per_part: int = Field(5000, ge=1, description="images per Parquet part; memory is a few times one part, about 4 kB an image")
