"""The demo job: every job in its order in one Ray session, then a few questions to the service, a report and a picture.

Knows order and places; what is asked and printed is in showcase.py. A stage that has finished before with the same configuration is
kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reid_ray.caption.job import run_caption
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.demo.config import DemoJob
from reid_ray.demo.showcase import answered, evaluation_of, print_report, sample_query, sheet_queries
from reid_ray.errors import DataError
from reid_ray.measure import PeakMemory
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.retrieval.evaluate.sheet import draw_sheet
from reid_ray.retrieval.index.job import run_index
from reid_ray.runtime import ray_session
from reid_ray.serve.client import SearchClient
from reid_ray.serve.job import Service, run_until_stopped, start_service
from reid_ray.storage import Counts, environment, run_of, write_json
from reid_ray.terminal.own_lines import say
from reid_ray.train.dual.job import run_train

REPORT, SHEET = "report.json", "sheet.png"


def run_demo(config: DemoJob) -> dict[str, Any]:
    """Run every stage in one Ray session; returns what report.json holds."""
    folder = Path(config.folder)
    refuse_foreign_report(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(total=6)
    started = time.perf_counter()
    with PeakMemory() as peak, ray_session(config.ray):
        stages.run("synthesize", run_synthesize, config.synthesize)
        stages.run("caption", run_caption, config.caption)
        stages.run("train", run_train, config.train)
        stages.run("evaluate", run_evaluate, config.evaluate)
        stages.run("index", run_index, config.index)
        with stages.service(config) as service, SearchClient(service.url) as search:
            queries = sheet_queries(config)
            report = {
                "stages": stages.rows,
                "evaluation": evaluation_of(config),
                "service": sample_query(config, search, queries[0].text),
                "total_seconds": round(time.perf_counter() - started, 1),
                "peak_rss_bytes": peak.bytes,
                "environment": environment(),
            }
            draw_sheet([answered(query, search, config.sheet_hits) for query in queries], folder / SHEET)
            write_json(folder / REPORT, report)
            print_report(report)
            say(f"report   {folder / REPORT}\npicture  {folder / SHEET}")
            if config.keep_serving:
                run_until_stopped(service)
    return report


def refuse_foreign_report(folder: Path) -> None:
    """The demo replaces its own report and picture, and nobody else's files of these names.

    Raises:
        DataError: names the file that an earlier demo did not write.
    """
    names = [name for name in (REPORT, SHEET) if (folder / name).exists()]
    if not names:
        return
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = None
    if not isinstance(report, dict) or not {"stages", "evaluation", "service", "environment"} <= report.keys():
        raise DataError(f"{folder / names[0]}: was not written by an earlier demo and is not replaced; move it away, or set folder")


class Stages:
    """Runs the stages one after the other, announces each and keeps its row of the report."""

    def __init__(self, total: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._total = total

    def run(self, name: str, job: Callable[[Any], dict[str, Any]], config: Any) -> None:
        """Run one job and keep its counts and seconds."""
        self._announce(name)
        earlier, clock = run_of(config.output.path), time.perf_counter()
        manifest = job(config)
        counts = Counts.of(manifest["counts"])
        self.rows.append(
            {
                "name": name,
                "seconds": round(time.perf_counter() - clock, 1),
                "read": counts.read,
                "written": counts.written,
                "left_out": sum(counts.left_out.values()),
                "left_out_by_reason": counts.left_out,
                "failed": sum(counts.failed.values()),
                "failed_by_reason": counts.failed,
                "kept_from_earlier_run": manifest["run_id"] == earlier,
            }
        )
        say(f"      {self.rows[-1]['seconds']:.0f} s")

    def service(self, config: DemoJob) -> Service:
        """Start the service as the last stage."""
        self._announce("serve")
        clock = time.perf_counter()
        service = start_service(config.serve)
        seconds = round(time.perf_counter() - clock, 1)
        nothing = {"read": 0, "written": 0, "left_out": 0, "left_out_by_reason": {}, "failed": 0, "failed_by_reason": {}}
        self.rows.append({"name": "serve", "seconds": seconds, **nothing, "kept_from_earlier_run": False})
        say(f"serve: {service.url}\n      {seconds:.0f} s")
        return service

    def _announce(self, name: str) -> None:
        say(f"\n[{len(self.rows) + 1}/{self._total}] {name}")
