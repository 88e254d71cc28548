"""The plan_edits job: rates of a finished edit run -> a table of hours. The arithmetic is yield_model.py's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from reid_ray.edit.capacity.config import PlanEditsJob
from reid_ray.edit.capacity.yield_model import as_markdown, hours_of, rates_of_run
from reid_ray.storage import JobOutput, read_manifest, write_bytes, write_json
from reid_ray.storage.object_store.pointer import reading_place
from reid_ray.terminal.own_lines import say


def run_plan_edits(config: PlanEditsJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds plan.md and plan.json.

    Raises:
        ReidRayError: the run is no finished edit run, or has no rates.
    """
    output = JobOutput("plan_edits", config.output.path, config, if_exists=config.output.if_exists, inputs={"run": config.run})
    if (earlier := output.kept()) is not None:
        return earlier
    with output:
        measured = read_manifest(reading_place(config.run))
        rates = rates_of_run(measured)
        rows = [
            hours_of(rates, wanted=wanted, replicas=replicas, efficiency=config.efficiency)
            for wanted in config.wanted
            for replicas in config.replicas
        ]
        table = as_markdown(rates, rows)
        numbers = {"rates": asdict(rates), "plans": [asdict(row) for row in rows], "environment": measured["environment"]}
        write_bytes(output.folder / "plan.md", table.encode())
        write_json(output.folder / "plan.json", numbers)
        output.counts.read = output.counts.written = len(rows)
        output.facts.update(numbers)
        manifest = output.manifest()
    say(table)
    say(f"plan_edits: {len(rows)} plans -> {config.output.path}")
    return manifest
