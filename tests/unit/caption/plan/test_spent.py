"""GPU-hours of a run beside those of a plan."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from refusals import refused

from reid_ray.caption.plan.hours import StageRate
from reid_ray.caption.plan.spent import planned_hours, planned_passes, resources, resources_in_words
from reid_ray.caption.streaming.pass_account import PassFacts
from reid_ray.config.common import PoolConfig
from reid_ray.errors import ConfigError

RATES = [StageRate("captioner", 10.0, 1.0, 60.0, 1.0, 4.0), StageRate("rewriter", 5.0, 0.1, 30.0, 1.0, 2.0)]


def manifest(**passes):
    return {
        "job": "plan",
        "facts": {"passes": {name: [asdict(stage) for stage in stages] for name, stages in passes.items()}, "efficiency": 0.8},
    }


def test_a_plan_says_what_its_arithmetic_says_of_the_images_and_actors_of_this_run():
    passes, efficiency = planned_passes(manifest(main=RATES, other=RATES), ["main"], stages=["captioner", "rewriter"], origin="p")
    replicas = {"main": {"captioner": 4, "rewriter": 1}}
    planned = planned_hours(passes, efficiency, {"main": 96_000}, replicas)
    seconds = 60 + 96_000 / (0.8 * 40)  # the slower stage: four captioners of ten images a second each
    assert planned == pytest.approx({"gpu_hours": 5 * seconds / 3600, "cpu_hours": (4 * 4 + 2) * seconds / 3600})
    assert planned_hours(passes, efficiency, {"main": 0}, replicas) == {"gpu_hours": 0, "cpu_hours": 0}
    alone, _ = planned_passes(manifest(main=RATES), ["main"], stages=["captioner"], origin="p")
    assert [stage.name for stage in alone["main"]] == ["captioner"]


def test_a_plan_of_other_captioners_or_none_at_all_is_refused_by_its_key():
    with refused(ConfigError, "plan: runs/plan", "captioner of captioner main"):
        planned_passes(manifest(other=RATES), ["main"], stages=["captioner"], origin="runs/plan")
    with refused(ConfigError, "plan: runs/out", "an output of caption"):
        planned_passes({"job": "caption"}, ["main"], stages=["captioner"], origin="runs/out")


def test_what_actors_held_counts_by_their_gpus_or_by_their_cpus_where_there_are_none():
    captioner = PassFacts(7200.0, {"engine": 6480.0, "decode": 360.0}, 6480.0 * 50)
    rewriter = PassFacts(3600.0, {"engine": 360.0, "source": 3240.0})
    passes = {
        "main": {"captioner": (captioner, PoolConfig(num_gpus=2, num_cpus=4)), "rewriter": (rewriter, PoolConfig(num_gpus=0, num_cpus=2))}
    }
    found = resources(passes, {"gpu_hours": 3.5, "cpu_hours": 9.0})
    assert (found["gpu_hours"], found["cpu_hours"]) == (4.0, 10.0)
    assert found["stages"]["main"]["captioner"]["shares"]["start"] == 0.05
    assert found["stages"]["main"]["captioner"]["requests_a_step"] == 50
    assert resources_in_words(found, passes) == "GPU-hours 4, planned 3.5; engine 90%, decode 5%, start 5%"
    passes = {"main": {"rewriter": (rewriter, PoolConfig(num_gpus=0, num_cpus=2))}}
    assert resources_in_words(resources(passes, None), passes) == "CPU-hours 2; engine 10%, source 90%"
