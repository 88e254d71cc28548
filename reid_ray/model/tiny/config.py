"""Configuration of the training of the tiny multimodal LLM: length, learning rate, synthetic people."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrName


class TinyMllmTrainingConfig(Section):
    """Length and rate of training, and which synthetic people it learns from."""

    init: PathOrName | None = Field(
        None,
        description="folder of such a model, or builtin:tiny-mllm, to go on from, as when instructions change: its tokenizer is kept; "
        "null begins with random weights and a tokenizer of its own",
    )
    sight_steps: int = Field(
        2600, ge=0, description="optimiser steps of the vision part alone, with a linear classifier per attribute: a third of the cost"
    )
    steps: int = Field(
        1700, ge=1, description="optimiser steps of the whole model after that; with the default about 20 minutes of one core"
    )
    batch_size: int = Field(32, ge=1, description="pictures per step")
    learning_rate: float = Field(2e-3, gt=0, description="peak of a one-cycle schedule of AdamW")
    plain_until: float = Field(
        0.3, ge=0, le=1, description="share of steps that use short instructions only: what to say is learnt first, at half the cost"
    )
    people_per_set: int = Field(256, ge=1, description="identities of one synthetic set; each set has new people, streets and cameras")
    first_seed: int = Field(
        1_000_000, ge=1, description="seed of the first synthetic set, each next one is one higher; keep clear of people to be tested on"
    )
    threads: int = Field(1, ge=1, description="torch threads")


class TinySegformerTrainingConfig(Section):
    """Length and rate of the tiny human parser's training, and which synthetic people it learns from."""

    init: PathOrName | None = Field(
        None, description="folder of such a model, or builtin:tiny-parser, to go on from; null begins with random weights"
    )
    steps: int = Field(900, ge=1, description="optimiser steps; with the default about 2 minutes of one core")
    half_size_share: float = Field(
        0.75, ge=0, le=1, description="share of the steps, the first ones, that see pictures of half the size: at a quarter of the cost"
    )
    batch_size: int = Field(16, ge=1, description="pictures per step")
    learning_rate: float = Field(3e-3, gt=0, description="peak of a one-cycle schedule of AdamW")
    people_per_set: int = Field(256, ge=1, description="identities of one synthetic set; each set has new people, streets and cameras")
    first_seed: int = Field(
        2_000_000, ge=1, description="seed of the first synthetic set, each next one is one higher; keep clear of people to be tested on"
    )
    threads: int = Field(1, ge=1, description="torch threads")
