"""Configuration of the captioner job: how the built-in tiny captioner is made and measured."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig, SyntheticConfig
from reid_ray.model.tiny.config import TinyMllmTrainingConfig


class CaptionerJob(Section):
    """Train the tiny multimodal model and measure it through vLLM on people it has never seen."""

    seed: int = Field(0, ge=0, description="seed of weights, tokenizer and lessons")
    training: TinyMllmTrainingConfig = TinyMllmTrainingConfig()
    test_people: SyntheticConfig = Field(SyntheticConfig(), description="held-out people: the default synthetic set")
    test_images: int = Field(300, ge=1, description="held-out pictures to caption, with each kind of instruction")
    output: OutputConfig
