"""Configuration of jobs/memory.py: how much memory a training job needs per device, and which setting fits, before anything starts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import LocalPath


class MemoryJob(Section):
    """Predict a training job's memory without running it: the model is built and run without values, the rest is arithmetic."""

    job: Literal["train", "tune", "train_editor"] = Field("train", description="which job is planned")
    config: LocalPath = Field(
        description="YAML file of that job, or the name of a shipped one; images and captions that it names need not exist"
    )
    overrides: list[str] = Field([], description="section.key=value items that replace values of that file")
    persons: int = Field(10_000, ge=1, description="training identities: the width of classifiers, where the objective has any")
    crop_height: int = Field(256, ge=8, le=4096, description="tune: height of the largest crop in pixels, which decides on image tokens")
    crop_width: int = Field(128, ge=8, le=4096, description="tune: width of the largest crop in pixels")
    devices: int | None = Field(None, ge=1, description="devices that share the training state; null takes workers.count of the job")
    batches: list[int] = Field([], description="samples per device to try beside the job's own share")
    device_gib: float = Field(80.0, gt=0, description="memory of a device, GiB (80: H100, A100)")
    reserve_gib: float = Field(
        3.0, ge=0, description="GiB of it left to the CUDA context, NCCL and fragmentation; an allowance, to be replaced by what you see"
    )
    host_gib: float | None = Field(None, gt=0, description="memory of the host per device, GiB, for what is offloaded; null does not ask")
    output: OutputConfig
