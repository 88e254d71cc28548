"""Configuration of the plan job: hours and GPU-hours of a captioning run."""

from __future__ import annotations

from pydantic import Field

from reid_ray.caption.config import CAPTIONERS_ARE, CaptionerConfig, Captioners, FaithfulnessConfig, RewriterConfig
from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, OutputConfig, RayConfig
from reid_ray.config.paths import PathOrAddress


class PlanJob(Section):
    """Rates measured on a few images in, a table of hours out."""

    run: PathOrAddress | None = Field(
        None, description="output folder of a caption job whose rates are taken; null captions a sample with the sections below"
    )
    images: ImagesConfig = ImagesConfig()
    captioners: Captioners = Field({"main": CaptionerConfig()}, min_length=1, description=CAPTIONERS_ARE)
    rewriter: RewriterConfig = RewriterConfig()
    faithfulness: FaithfulnessConfig = FaithfulnessConfig()
    sample: int = Field(100, ge=1, description="images drawn at random from the source and captioned")
    seed: int = Field(0, ge=0, description="of the sample")
    planned_images: tuple[int, ...] = Field((100_000, 1_000_000, 4_180_243), min_length=1, description="numbers of images to plan for")
    replicas: tuple[int, ...] = Field(
        (2, 8, 32),
        min_length=1,
        description="numbers of actors to plan for, divided over the stages so that none waits longer than it must",
    )
    efficiency: float = Field(
        0.9, gt=0, le=1, description="share of the measured rate that a long run keeps: stragglers, restarts, reading and writing"
    )
    no_progress_timeout_s: int = Field(1800, ge=30, description="seconds without any progress after which the sample's job fails")
    output: OutputConfig
    ray: RayConfig = RayConfig()
