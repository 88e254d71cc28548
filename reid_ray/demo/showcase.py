"""What the demo shows of its result: questions to the service with their answers, the rows of the picture, the report in words."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from reid_ray.demo.config import DemoJob
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS
from reid_ray.retrieval.evaluate.exposure import exposure_of, exposure_sentence
from reid_ray.retrieval.evaluate.job import read_result
from reid_ray.retrieval.evaluate.sheet import SheetHit, SheetQuery
from reid_ray.serve.client import SearchClient
from reid_ray.storage import read_table
from reid_ray.terminal.own_lines import say


def evaluation_of(config: DemoJob) -> dict[str, Any]:
    """The score on the test identities, as the evaluate stage wrote it, rates in 0..1, and what the weights have seen of them."""
    result = read_result(config.evaluate.output.path)
    numbers = {name: result[name] for name in ("queries", "gallery", "r1", "r5", "r10", "map", "minp", "chance_r1")}
    return {**numbers, "exposure": exposure_of(result)}


@dataclass(frozen=True)
class SampleQuery:
    """A caption of the gallery, asked as a question; person_id tells right from wrong where the truth is known."""

    text: str
    person_id: int | None


def sheet_queries(config: DemoJob) -> list[SampleQuery]:
    """config.query if given, then human captions evenly spread over the gallery's."""
    path = Path(config.synthesize.output.path) / "captions"
    captions = read_table(path, CAPTIONS, columns=["text", "kind", "status", "split", "person_id"])
    wanted = pc.and_(pc.equal(captions["kind"], "human"), pc.equal(captions["status"], "ok"))
    assert config.index.images is not None  # as the configuration saw to
    if config.index.images.split is not None:
        wanted = pc.and_(wanted, pc.equal(captions["split"], config.index.images.split))
    rows = captions.filter(wanted).to_pylist()
    own = [SampleQuery(config.query, None)] if config.query else []
    count = min(config.sheet_queries - len(own), len(rows))
    chosen = [rows[len(rows) * number // count] for number in range(count)]
    queries = own + [SampleQuery(row["text"], row["person_id"]) for row in chosen]
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


def answered(query: SampleQuery, search: SearchClient, hits: int) -> SheetQuery:
    """A row of the picture: the query and its hits, marked right or wrong where the truth is known."""
    return SheetQuery(
        text=query.text,
        hits=[
            SheetHit(
                picture=search.thumbnail(hit),
                correct=None if None in (query.person_id, hit["item"].get("person_id")) else hit["item"]["person_id"] == query.person_id,
                camera_id=hit["item"].get("camera_id"),
                score=hit["score"],
            )
            for hit in search.text(query.text, k=hits)["hits"]
        ],
    )


def print_report(report: dict[str, Any]) -> None:
    """What the demo found, in words. Every number is in report.json."""
    score, service = report["evaluation"], report["service"]
    say("\nstage                  seconds    read  written  left out  failed")
    for row in report["stages"]:
        kept = "  kept from an earlier run" if row["kept_from_earlier_run"] else ""
        say(f"{row['name']:<20} {row['seconds']:>9.1f} {row['read']:>7} {row['written']:>8} {row['left_out']:>9} {row['failed']:>7}{kept}")
    say(
        f"\nheld-out synthetic people, {score['queries']} queries against {score['gallery']} images:\n"
        f"  R@1 {score['r1']:.1%}  R@5 {score['r5']:.1%}  R@10 {score['r10']:.1%}  mAP {score['map']:.1%}  mINP {score['minp']:.1%}"
        f"  (R@1 of a random ranking: {score['chance_r1']:.2%})\n  {exposure_sentence(score['exposure'])}"
    )
    say(f"\nasked the service, answered in {service['latency_ms']:.0f} ms: {service['query']!r}")
    for hit in service["hits"][:5]:
        item = hit["item"]
        say(f"  {hit['rank']}. score {hit['score']:.3f}  person {item['person_id']}  camera {item['camera_id']}  {hit['item_id']}")
    say(f"\n{report['total_seconds']:.0f} s in all, at most {report['peak_rss_bytes'] / 1e9:.1f} GB")
