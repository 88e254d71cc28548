"""The plan job: rates of a finished run, or of a sample captioned now -> a table of hours. The arithmetic is hours.py's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.job import run_caption
from reid_ray.caption.ledger.config import LedgerConfig
from reid_ray.caption.plan.config import PlanJob
from reid_ray.caption.plan.hours import balanced_replicas, plan, rates_of, render_table
from reid_ray.caption.sampling import sample_images
from reid_ray.config.common import ImagesConfig, OutputConfig
from reid_ray.records import IMAGES
from reid_ray.storage import JobOutput, TableWriter, read_manifest, write_bytes, write_json
from reid_ray.terminal.own_lines import say

TABLE, NUMBERS = "plan.md", "plan.json"


def run_plan(config: PlanJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds plan.md and plan.json, and the sample where one was taken.

    Raises:
        ReidRayError: the sample cannot be captioned, or the run has no rates.
    """
    output = JobOutput("plan", config.output.path, config, if_exists=config.output.if_exists, inputs={"run": config.run})
    if (earlier := output.kept()) is not None:
        return earlier
    with output:
        measured = read_manifest(config.run) if config.run is not None else _caption_sample(config, output)
        passes = rates_of(measured)
        plans = [
            plan(passes, images=images, replicas={n: balanced_replicas(s, total) for n, s in passes.items()}, efficiency=config.efficiency)
            for images in config.planned_images
            for total in config.replicas
        ]
        sampled = measured["counts"]["read"] // len(passes)
        output.counts.read = output.counts.written = sampled
        table = render_table(plans, sampled=sampled)
        numbers = {
            "passes": {name: [asdict(stage) for stage in stages] for name, stages in passes.items()},
            "efficiency": config.efficiency,
            "plans": [asdict(p) for p in plans],
            "environment": measured["environment"],
        }
        write_bytes(output.folder / TABLE, table.encode())
        write_json(output.folder / NUMBERS, numbers)
        output.facts.update(numbers)
        manifest = output.manifest()
    say(table)
    say(f"plan: rates of {sampled} images -> {config.output.path}")
    return manifest


def _caption_sample(config: PlanJob, output: JobOutput) -> dict[str, Any]:
    """Caption a random sample with the planned models; its manifest."""
    folder = output.folder / "sample_images"
    with TableWriter(folder, IMAGES) as writer:
        writer.append(sample_images(config.images, config.sample, seed=config.seed))
    job = CaptionJob(
        images=ImagesConfig(source="parquet", path=str(folder), max_pixels=config.images.max_pixels),
        captioners=config.captioners,
        rewriter=config.rewriter,
        faithfulness=config.faithfulness,
        ledger=LedgerConfig(keep=False),
        no_progress_timeout_s=config.no_progress_timeout_s,
        output=OutputConfig(path=str(output.folder / "sample")),
        ray=config.ray,
    )
    return run_caption(job)
