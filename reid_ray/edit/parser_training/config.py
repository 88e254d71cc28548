"""Configuration of the train_parser job: how the tiny human parser is made and measured."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig, SyntheticConfig
from reid_ray.model.tiny.config import TinySegformerTrainingConfig


class TrainParserJob(Section):
    """Train the tiny human parser on label maps of drawn people and measure it on people it has never seen."""

    seed: int = Field(0, ge=0, description="seed of weights and of how pictures are varied")
    training: TinySegformerTrainingConfig = TinySegformerTrainingConfig()
    test_people: SyntheticConfig = Field(SyntheticConfig(), description="held-out people: the default synthetic set")
    test_images: int = Field(300, ge=1, description="held-out pictures to parse, from the first on")
    output: OutputConfig
