"""Configuration of the plan_edits job."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import PathOrAddress


class PlanEditsJob(Section):
    """A finished edit run in, a table of hours out."""

    run: PathOrAddress = Field(description="output folder of an edit job, on the hardware that is planned for; its rates are taken")
    wanted: tuple[int, ...] = Field(
        (10_000, 100_000, 1_000_000), min_length=1, description="numbers of edited pictures that are to stand, each a row of the table"
    )
    replicas: tuple[int, ...] = Field((1, 2, 8, 32), min_length=1, description="numbers of actors, of the editor and then of the rewriter")
    efficiency: float = Field(
        0.9, gt=0, le=1, description="share of the measured rate that a long run keeps: stragglers, restarts, reading and writing"
    )
    output: OutputConfig
