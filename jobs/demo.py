"""The whole road in one command: people go in as pictures and come out as ranked search results.

    python jobs/demo.py                                     synthetic people, about ten minutes on two cores
    python jobs/demo.py --images /path/to/crops             caption, index and search your own crops
    python jobs/demo.py --images /path/to/crops --keep-serving

Writes report.json (every number it prints) and sheet.png (queries with their ranked results) into demo/. A stage that has finished
before with the same configuration is kept. Nothing it started stays behind, unless --keep-serving asks for it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.job import run_caption
from reid_ray.config import load_config
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.demo.config import DemoJob
from reid_ray.errors import DataError
from reid_ray.exit_codes import ended
from reid_ray.measure import PeakMemory
from reid_ray.records import CAPTIONS
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.retrieval.evaluate.sheet import SheetHit, SheetQuery, draw_sheet
from reid_ray.retrieval.index.job import run_index
from reid_ray.runtime import ray_session
from reid_ray.serve.client import SearchClient
from reid_ray.serve.job import Service, run_until_stopped, start_service
from reid_ray.storage import environment, read_table, run_of, write_json
from reid_ray.terminal.own_lines import say
from reid_ray.terminal.quiet import quiet_terminal
from reid_ray.train.dual.job import run_train

CONFIGS = Path(__file__).resolve().parent / "configs"
REPORT, SHEET = "report.json", "sheet.png"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="DIR", help="search your own crops: any folder of pictures")
    parser.add_argument("--keep-serving", action="store_true", help="leave the service up until Ctrl-C")
    parser.add_argument("--config", metavar="FILE", default=CONFIGS / "demo.yaml", help="default: jobs/configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="replaces a value of the file")
    arguments = parser.parse_args()
    overrides = list(arguments.overrides)
    if arguments.keep_serving:
        overrides.append("keep_serving=true")
    if arguments.images:
        overrides += search_own_crops(arguments.images)
    with quiet_terminal("demo"):
        return ended(lambda: run_demo(load_config(DemoJob, arguments.config, overrides)))


def search_own_crops(folder: str) -> list[str]:
    """Overrides that caption, index and serve `folder` in place of the synthetic test set."""
    images = {"source": "folder", "path": folder}
    changes: dict[str, Any] = {
        "own_caption": {"images": images, "output": {"path": "demo/own_captions", "if_exists": "replace"}},
        "index.images": images,
        "index.output": {"path": "demo/own_index", "if_exists": "replace"},
        "serve.index": "demo/own_index",
    }
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def run_demo(config: DemoJob) -> dict[str, Any]:
    """Run every stage in one Ray session; returns what report.json holds."""
    folder = Path(config.folder)
    refuse_foreign_report(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(total=6 + (config.own_caption is not None))
    started = time.perf_counter()
    with PeakMemory() as peak, ray_session(config.ray):
        stages.run("synthesize", run_synthesize, config.synthesize)
        stages.run("caption", run_caption, config.caption)
        stages.run("train", run_train, config.train)
        stages.run("evaluate", run_evaluate, config.evaluate)
        if config.own_caption is not None:
            stages.run("caption own crops", run_caption, config.own_caption)
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
            print_report(report, folder)
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
        counts = manifest["counts"]
        self.rows.append(
            {
                "name": name,
                "seconds": round(time.perf_counter() - clock, 1),
                "read": counts["read"],
                "written": counts["written"],
                "failed": sum(counts["failed"].values()),
                "failed_by_reason": counts["failed"],
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
        self.rows.append({"name": "serve", "seconds": seconds, "read": 0, "written": 0, "failed": 0, "kept_from_earlier_run": False})
        say(f"serve: {service.url}\n      {seconds:.0f} s")
        return service

    def _announce(self, name: str) -> None:
        say(f"\n[{len(self.rows) + 1}/{self._total}] {name}")


def evaluation_of(config: DemoJob) -> dict[str, Any]:
    """The score on the test identities, as the evaluate stage wrote it; rates in 0..1."""
    result = json.loads((Path(config.evaluate.output.path) / "result.json").read_text(encoding="utf-8"))
    return {name: result[name] for name in ("queries", "gallery", "r1", "r5", "r10", "map", "minp", "chance_r1")}


@dataclass(frozen=True)
class Query:
    """A caption of the gallery, asked as a question; person_id tells right from wrong where the truth is known."""

    text: str
    person_id: int | None


def sheet_queries(config: DemoJob) -> list[Query]:
    """config.query if given, then captions evenly spread over the gallery's: human ones, or the machine's of the user's own crops."""
    if config.own_caption is not None:
        path, kinds = Path(config.own_caption.output.path) / "captions", ["static", "dynamic"]
    else:
        path, kinds = Path(config.synthesize.output.path) / "captions", ["human"]
    captions = read_table(path, CAPTIONS, columns=["text", "kind", "status", "split", "person_id"])
    wanted = pc.and_(pc.is_in(captions["kind"], pa.array(kinds)), pc.equal(captions["status"], "ok"))
    if config.index.images.split is not None:
        wanted = pc.and_(wanted, pc.equal(captions["split"], config.index.images.split))
    rows = captions.filter(wanted).to_pylist()
    own = [Query(config.query, None)] if config.query else []
    count = min(config.sheet_queries - len(own), len(rows))
    chosen = [rows[len(rows) * number // count] for number in range(count)]
    queries = own + [Query(row["text"], row["person_id"]) for row in chosen]
    if not queries:
        raise DataError(f"{path}: no image got a caption, so there is nothing to ask; its manifest.json says why, or give query=TEXT")
    return queries


def sample_query(config: DemoJob, search: SearchClient, text: str) -> dict[str, Any]:
    """One query over HTTP, timed as a client sees it, after one unmeasured query that warms the service up."""
    hits = config.sheet_hits
    search.text(text, k=hits)
    clock = time.perf_counter()
    answer = search.text(text, k=hits)
    return {"query": text, "hits": answer["hits"], "latency_ms": round(1000 * (time.perf_counter() - clock), 1)}


def answered(query: Query, search: SearchClient, hits: int) -> SheetQuery:
    """A row of the picture: the query and its hits, marked right or wrong where the truth is known."""
    return SheetQuery(
        text=query.text,
        hits=[
            SheetHit(
                picture=search.thumbnail(hit),
                correct=None if query.person_id is None or hit["person_id"] is None else hit["person_id"] == query.person_id,
                camera_id=hit["camera_id"],
                score=hit["score"],
            )
            for hit in search.text(query.text, k=hits)["hits"]
        ],
    )


def print_report(report: dict[str, Any], folder: Path) -> None:
    """What the demo found, in words. Every number is in report.json."""
    score, service = report["evaluation"], report["service"]
    say("\nstage                  seconds    read  written  failed")
    for row in report["stages"]:
        kept = "  kept from an earlier run" if row["kept_from_earlier_run"] else ""
        say(f"{row['name']:<20} {row['seconds']:>9.1f} {row['read']:>7} {row['written']:>8} {row['failed']:>7}{kept}")
    say(
        f"\nheld-out synthetic people, {score['queries']} queries against {score['gallery']} images:\n"
        f"  R@1 {score['r1']:.1%}  R@5 {score['r5']:.1%}  R@10 {score['r10']:.1%}  mAP {score['map']:.1%}  mINP {score['minp']:.1%}"
        f"  (R@1 of a random ranking: {score['chance_r1']:.2%})"
    )
    say(f"\nasked the service, answered in {service['latency_ms']:.0f} ms: {service['query']!r}")
    for hit in service["hits"][:5]:
        say(f"  {hit['rank']}. score {hit['score']:.3f}  person {hit['person_id']}  camera {hit['camera_id']}  {hit['image_id']}")
    say(f"\n{report['total_seconds']:.0f} s in all, at most {report['peak_rss_bytes'] / 1e9:.1f} GB")
    say(f"report   {folder / REPORT}\npicture  {folder / SHEET}")


if __name__ == "__main__":
    sys.exit(main())
