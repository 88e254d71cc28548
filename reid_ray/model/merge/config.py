"""Configuration of jobs/merge.py: a tuned multimodal LLM becomes a plain checkpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import PathOrName


class MergeJob(Section):
    """Multiply adapters into their base and write a plain transformers checkpoint, which the caption job loads into vLLM."""

    model: PathOrName = Field(description="model folder that the tune job wrote (its output has it as model/)")
    base: PathOrName | None = Field(
        None, description="where the base's weights lie now; null takes the place named in the model's manifest"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="numbers that are written; auto takes the base's. They are added up in float32"
    )
    output: OutputConfig
