"""How long a captioning run of N images takes, from measured rates: hours, GPU-hours, and which stage is the bottleneck.

Pure arithmetic over what a run's manifest says; measures nothing. The stages run at the same time, so the slowest sets the pace; the
actors of the others wait, but hold their GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reid_ray.errors import DataError


@dataclass(frozen=True)
class StageRate:
    """What one actor of a stage does, and how much of it an image needs."""

    name: str  # captioner | rewriter
    items_per_second: float  # of one busy actor
    items_per_image: float
    startup_seconds: float
    gpus_per_actor: float
    cpus_per_actor: float


@dataclass(frozen=True)
class Plan:
    """One row of the planner's table."""

    images: int
    replicas: dict[str, int]
    hours: float
    gpu_hours: float
    cpu_hours: float
    bottleneck: str
    images_per_second: float  # at full pace, start-up apart


def rates_of(manifest: Mapping[str, Any]) -> list[StageRate]:
    """The stages of a caption job that ran, from its manifest.

    Raises:
        DataError: the manifest is no caption job's, or nothing was captioned.
    """
    if manifest["job"] != "caption" or not manifest["counts"]["read"]:
        raise DataError(f"rates come from a caption job that read images, but this manifest is of {manifest['job']}")
    images = manifest["counts"]["read"]
    speeds, config = manifest["facts"]["speed_per_actor"], manifest["config"]
    amounts = {
        "captioner": (speeds["captioner"]["images_per_second"], 1.0),
        "rewriter": (speeds["rewriter"]["rewrites_per_second"], manifest["facts"]["rewrites"]["asked"] / images),
    }
    stages = [
        StageRate(
            name,
            rate,
            per_image,
            speeds[name]["startup_seconds"],
            config[name]["pool"]["num_gpus"],
            config[name]["pool"]["num_cpus"],
        )
        for name, (rate, per_image) in amounts.items()
        if per_image
    ]
    idle = [stage.name for stage in stages if stage.items_per_second <= 0]
    if idle:
        raise DataError(f"the sample gives no rate for {', '.join(idle)}: nothing came out of it; see the run's failures")
    return stages


def plan(stages: Sequence[StageRate], *, images: int, replicas: Mapping[str, int], efficiency: float) -> Plan:
    """Hours for `images` with `replicas` actors per stage.

    Args:
        stages: measured rates.
        images: how many.
        replicas: actors of each stage by name.
        efficiency: share of the measured rate that a long run keeps, in (0, 1]: stragglers, restarts, reading and writing.
    """
    pace = {stage.name: efficiency * replicas[stage.name] * stage.items_per_second / stage.items_per_image for stage in stages}
    bottleneck = min(pace, key=lambda name: pace[name])
    seconds = max(stage.startup_seconds for stage in stages) + images / pace[bottleneck]
    held = {kind: sum(replicas[s.name] * getattr(s, f"{kind}_per_actor") for s in stages) for kind in ("gpus", "cpus")}
    return Plan(
        images=images,
        replicas={stage.name: replicas[stage.name] for stage in stages},
        hours=seconds / 3600,
        gpu_hours=held["gpus"] * seconds / 3600,
        cpu_hours=held["cpus"] * seconds / 3600,
        bottleneck=bottleneck,
        images_per_second=pace[bottleneck],
    )


def balanced_replicas(stages: Sequence[StageRate], total: int) -> dict[str, int]:
    """`total` actors over the stages so that the slowest is as fast as can be; every stage gets one.

    Raises:
        DataError: there are fewer actors than stages.
    """
    if total < len(stages):
        raise DataError(f"{len(stages)} stages ({', '.join(s.name for s in stages)}) need an actor each, but replicas says {total}")
    given = {stage.name: 1 for stage in stages}
    # The next actor always goes to the slowest stage: for a minimum over stages, greedy is optimal.
    for _ in range(total - len(stages)):
        slowest = min(stages, key=lambda stage: given[stage.name] * stage.items_per_second / stage.items_per_image)
        given[slowest.name] += 1
    return given


def render_table(plans: Sequence[Plan], *, sampled: int) -> str:
    """The plans as a Markdown table for the terminal and for plan.md."""
    lines = [
        f"Measured on {sampled} images; stages run at the same time and hold their resources to the end.",
        "",
        "| images | actors | images/s | hours | GPU-hours | CPU-hours | slowest stage |",
        "| ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in plans:
        actors = " + ".join(f"{count} {name}" for name, count in row.replicas.items())
        lines.append(
            f"| {row.images:,} | {actors} | {row.images_per_second:,.2f} | {_hours(row.hours)} | {_hours(row.gpu_hours)} | "
            f"{_hours(row.cpu_hours)} | {row.bottleneck} |"
        )
    return "\n".join(lines) + "\n"


def _hours(value: float) -> str:
    """Two significant digits below ten, whole hours above: a plan is no more exact."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 10 else f"{value:.{max(1, 1 - math.floor(math.log10(value)))}f}"
