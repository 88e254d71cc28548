"""What a run's actors held: GPU-hours and CPU-hours, what their time went on, and what a plan says of as many images.

Knows accounts of passes, pools and a plan job's manifest; measures nothing. An actor holds its GPUs and CPUs from its first start to the
pass's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reid_ray.caption.plan.hours import Passes, StageRate, plan
from reid_ray.caption.streaming.pass_account import PassFacts, shares_in_words
from reid_ray.caption.streaming.stage_clock import ENGINE
from reid_ray.config.common import PoolConfig
from reid_ray.errors import ConfigError

Stages = Mapping[str, tuple[PassFacts, PoolConfig]]  # stage -> what its actors did, and what each held


def planned_passes(manifest: Mapping[str, Any], captioners: Iterable[str], *, stages: Iterable[str], origin: str) -> tuple[Passes, float]:
    """Rates and efficiency of a plan for some captioners.

    Args:
        manifest: of a plan job's output.
        captioners: by name.
        stages: of each of their passes.
        origin: where the manifest is, for messages.

    Raises:
        ConfigError: it is no plan, or has no rates of one of them.
    """
    if manifest["job"] != "plan":
        raise ConfigError(f"plan: {origin} is an output of {manifest['job']}; give that of a plan job")
    rates = {name: [StageRate(**stage) for stage in given] for name, given in manifest["facts"]["passes"].items()}
    wanted, passes = set(stages), {}
    for name in captioners:
        passes[name] = [stage for stage in rates.get(name, ()) if stage.name in wanted]
        if lacking := sorted(wanted - {stage.name for stage in passes[name]}):
            raise ConfigError(f"plan: {origin} has no rates of the {lacking[0]} of captioner {name}; plan with this job's sections")
    return passes, manifest["facts"]["efficiency"]


def planned_hours(
    passes: Passes, efficiency: float, images: Mapping[str, int], replicas: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """GPU-hours and CPU-hours that a plan says of so many images by captioner, with so many actors by captioner and stage."""
    plans = [
        plan({name: stages}, images=images[name], replicas={name: replicas[name]}, efficiency=efficiency)
        for name, stages in passes.items()
        if images[name]
    ]
    return {"gpu_hours": sum(each.gpu_hours for each in plans), "cpu_hours": sum(each.cpu_hours for each in plans)}


def resources(passes: Mapping[str, Stages], planned: Mapping[str, float] | None) -> dict[str, Any]:
    """The manifest's facts of what a run held.

    Args:
        passes: captioner -> its stages; only those that ran.
        planned: see planned_hours; None where there is no plan.
    """
    held = [each for stages in passes.values() for each in stages.values()]
    return {
        "gpu_hours": sum(facts.actor_seconds * pool.num_gpus for facts, pool in held) / 3600,
        "cpu_hours": sum(facts.actor_seconds * pool.num_cpus for facts, pool in held) / 3600,
        "planned": None if planned is None else dict(planned),
        "stages": {name: {stage: _stage(facts) for stage, (facts, _) in stages.items()} for name, stages in passes.items()},
    }


def _stage(facts: PassFacts) -> dict[str, Any]:
    stepping = facts.seconds.get(ENGINE, 0.0)
    return {
        "actor_hours": facts.actor_seconds / 3600,
        "shares": {cause: round(share, 4) for cause, share in facts.shares().items()},
        "requests_a_step": facts.request_seconds / stepping if stepping else None,  # on average, by time
        "prompt_tokens": facts.prompt_tokens,
        "cached_tokens": facts.cached_tokens,
        "tokens": facts.tokens,
    }


def resources_in_words(found: Mapping[str, Any], passes: Mapping[str, Stages]) -> str:
    """The same in a line: what GPUs went on, or CPUs where there was no GPU."""
    unit, name = ("gpu_hours", "GPU-hours") if found["gpu_hours"] else ("cpu_hours", "CPU-hours")
    planned = "" if found["planned"] is None else f", planned {_hours(found['planned'][unit])}"
    total = PassFacts()
    for stages in passes.values():
        for facts, pool in stages.values():
            if pool.num_gpus or unit == "cpu_hours":
                total += facts
    return f"{name} {_hours(found[unit])}{planned}; {shares_in_words(total)}"


def _hours(value: float) -> str:
    """Three significant digits at least."""
    return f"{value:,.1f}" if value >= 100 else f"{value:.3g}"
