"""Throughput model of a captioning run of N images, from measured rates: hours, GPU-hours, and the bottleneck stage.

Pure arithmetic over what a run's manifest says; measures nothing. Captioners take their turns, each in a pass of its own; the stages
of a pass run at the same time, so the slowest sets the pace, and the actors of the others wait, but hold their GPUs.
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


Passes = Mapping[str, Sequence[StageRate]]  # captioner -> the stages of its pass


@dataclass(frozen=True)
class RunEstimate:
    """One row of the planner's table."""

    images: int
    replicas: dict[str, dict[str, int]]  # captioner -> stage -> actors
    hours: float
    gpu_hours: float
    cpu_hours: float
    bottleneck: str  # the stage that takes longest, with its captioner
    images_per_second: float  # through all captioners, at full pace, start-up apart


def rates_of(manifest: Mapping[str, Any]) -> dict[str, list[StageRate]]:
    """The passes of a caption job and the stages of each that ran, from its manifest.

    Raises:
        DataError: the manifest is no caption job's, or nothing was captioned.
    """
    if manifest["job"] != "caption" or not manifest["counts"]["read"]:
        raise DataError(f"rates come from a caption job that read images, but this manifest is of {manifest['job']}")
    config = manifest["config"]
    passes = {}
    for name, facts in manifest["facts"]["passes"].items():
        stages = [_stage("captioner", facts["captioner"], "images_per_second", 1.0, config["captioners"][name]["pool"])]
        if facts["rewriter"] is not None:
            per_image = facts["rewrites_asked"] / facts["images"]
            stages.append(_stage("rewriter", facts["rewriter"], "rewrites_per_second", per_image, config["rewriter"]["pool"]))
        idle = [stage.name for stage in stages if stage.items_per_second <= 0]
        if idle:
            raise DataError(f"the sample gives no rate for {', '.join(idle)} of {name}: nothing came out of it; see the run's failures")
        passes[name] = stages
    return passes


def _stage(name: str, speed: Mapping[str, Any], rate: str, per_image: float, pool: Mapping[str, Any]) -> StageRate:
    return StageRate(name, speed[rate], per_image, speed["startup_seconds"], pool["num_gpus"], pool["num_cpus"])


def plan(passes: Passes, *, images: int, replicas: Mapping[str, Mapping[str, int]], efficiency: float) -> RunEstimate:
    """Hours for `images` through every captioner in turn.

    Args:
        passes: measured rates.
        images: how many.
        replicas: captioner -> stage -> actors.
        efficiency: share of the measured rate that a long run keeps, in (0, 1]: stragglers, restarts, reading and writing.
    """
    seconds, busy, gpu_seconds, cpu_seconds = 0.0, 0.0, 0.0, 0.0
    slowest = ("", 0.0)
    for name, stages in passes.items():
        given = replicas[name]
        stage = min(stages, key=lambda stage: _pace(stage, given))
        working = images / (efficiency * _pace(stage, given))
        held = max(s.startup_seconds for s in stages) + working
        seconds, busy = seconds + held, busy + working
        gpu_seconds += held * sum(given[s.name] * s.gpus_per_actor for s in stages)
        cpu_seconds += held * sum(given[s.name] * s.cpus_per_actor for s in stages)
        if working > slowest[1]:
            slowest = (f"{stage.name} of {name}" if len(passes) > 1 else stage.name, working)
    return RunEstimate(
        images=images,
        replicas={name: {stage.name: replicas[name][stage.name] for stage in stages} for name, stages in passes.items()},
        hours=seconds / 3600,
        gpu_hours=gpu_seconds / 3600,
        cpu_hours=cpu_seconds / 3600,
        bottleneck=slowest[0],
        images_per_second=images / busy,
    )


def _pace(stage: StageRate, given: Mapping[str, int]) -> float:
    """Images a second of a stage with `given` actors."""
    return given[stage.name] * stage.items_per_second / stage.items_per_image


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
        slowest = min(stages, key=lambda stage: _pace(stage, given))
        given[slowest.name] += 1
    return given


def render_table(plans: Sequence[RunEstimate], *, sampled: int) -> str:
    """The plans as a Markdown table for the terminal and for plan.md."""
    lines = [
        f"Measured on {sampled} images. Captioners take turns; the stages of one run at the same time and hold their resources to its end.",
        "",
        "| images | actors | images/s | hours | GPU-hours | CPU-hours | slowest stage |",
        "| ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in plans:
        actors = "; ".join(
            (f"{name}: " if len(row.replicas) > 1 else "") + " + ".join(f"{count} {stage}" for stage, count in given.items())
            for name, given in row.replicas.items()
        )
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
