"""The compare job: paired bootstrap intervals of the differences in R@1 and mAP between two runs over the same queries.

Knows per-query results; not models. Both runs are resampled together, query by query or person by person, so what makes a query
hard cancels out. Queries of one person are not independent: drawing whole persons (cluster bootstrap) gives the wider interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.retrieval.compare.config import CompareJob
from reid_ray.retrieval.evaluate.exposure import exposure_of, exposure_sentence, marks_in_words
from reid_ray.retrieval.evaluate.job import evaluated_queries, read_result
from reid_ray.retrieval.evaluate.text_space import texts_untrained
from reid_ray.storage import JobOutput, environment, read_manifest, write_bytes, write_json
from reid_ray.terminal.own_lines import say

_CELLS = 4_000_000  # draws held at once


@dataclass(frozen=True)
class Difference:
    """Mean of candidate - baseline with its bootstrap interval, and how many of the bootstrap means lie at or below zero."""

    value: float
    low: float
    high: float
    share_not_better: float


def paired_bootstrap(
    difference_N: np.ndarray, *, group_N: np.ndarray | None = None, resamples: int, confidence: float, seed: int
) -> Difference:
    """Percentile interval of the mean of paired differences.

    Args:
        difference_N: candidate - baseline per query.
        group_N: queries with equal numbers are drawn together; null draws single queries.
        resamples: bootstrap samples.
        confidence: share of the distribution inside the interval.
        seed: of the drawing.
    """
    if group_N is None:
        sum_G, count_G = difference_N.astype(np.float64), np.ones(len(difference_N))
    else:
        _, group_of_N = np.unique(group_N, return_inverse=True)
        sum_G, count_G = np.bincount(group_of_N, weights=difference_N), np.bincount(group_of_N).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _CELLS // len(sum_G))
    for start in range(0, resamples, rows):
        drawn_RG = rng.integers(0, len(sum_G), (min(rows, resamples - start), len(sum_G)))
        means[start : start + rows] = sum_G[drawn_RG].sum(axis=1) / count_G[drawn_RG].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(float(difference_N.mean()), float(low), float(high), float((means <= 0).mean()))


def compare_queries(baseline: pa.Table, candidate: pa.Table, *, names: tuple[str, str], config: CompareJob) -> dict[str, Difference]:
    """{"r1": ..., "map": ...} of two per-query tables (query_table of the evaluate job); rows may be in any order.

    Raises:
        DataError: the queries differ, or the same query has other matches or another gallery in the two runs; says which.
    """
    first, second = (table.sort_by("query_id") for table in (baseline, candidate))
    _refuse_other_queries(first, second, names)
    counted = pc.greater(first["relevant"], 0)
    first, second = first.filter(counted), second.filter(counted)
    group_N = first["person_id"].to_numpy() if config.by == "person" else None
    per_query = {
        "r1": [(table["first_rank"].to_numpy() == 1).astype(np.float64) for table in (first, second)],
        "map": [table["ap"].to_numpy() for table in (first, second)],
    }
    return {
        name: paired_bootstrap(new - old, group_N=group_N, resamples=config.resamples, confidence=config.confidence, seed=config.seed)
        for name, (old, new) in per_query.items()
    }


def run_compare(config: CompareJob) -> dict[str, Any]:
    """Run the job; returns the manifest. The folder holds comparison.json and comparison.md.

    Raises:
        DataError: a folder is no evaluation, or the two have not scored the same queries on the same gallery by the same protocol.
    """
    inputs = {"baseline": config.baseline, "candidate": config.candidate}
    output = JobOutput("compare", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    results = {name: read_result(folder) for name, folder in inputs.items()}
    _refuse_other_test(config, results)
    tables = [evaluated_queries(folder) for folder in inputs.values()]
    with output:
        differences = compare_queries(tables[0], tables[1], names=(config.baseline, config.candidate), config=config)
        output.counts.read = tables[0].num_rows
        output.counts.written = int(pc.sum(pc.greater(tables[0]["relevant"], 0)).as_py() or 0)
        if output.counts.read > output.counts.written:
            output.counts.unused["no_match"] = output.counts.read - output.counts.written
        comparison = {
            name: {
                "baseline": results["baseline"][name],
                "candidate": results["candidate"][name],
                "difference": found.value,
                "low": found.low,
                "high": found.high,
                "share_not_better": found.share_not_better,
            }
            for name, found in differences.items()
        }
        output.facts.update(comparison)
        seen = {name: exposure_of(result) for name, result in results.items()}
        differs = differing(results)
        written = {"unit": "shares in 0..1", **comparison, "exposure": seen, "differs": differs, "environment": environment()}
        write_json(output.folder / "comparison.json", written)
        write_bytes(output.folder / "comparison.md", comparison_text(config, comparison, seen, differs).encode())
    said = ", ".join(f"{name} {row['difference']:+.2%} [{row['low']:+.2%}, {row['high']:+.2%}]" for name, row in comparison.items())
    marks = "".join(f"; {name} {', '.join(found['marks'])}" for name, found in seen.items() if found["marks"])
    say(f"compare: {output.counts} -> {config.output.path} ({said}{marks})")
    return read_manifest(config.output.path)


def differing(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What else than the weights differs between two runs of one test, in sentences; the difference of their scores is due to that, too."""
    first, second = results["baseline"], results["candidate"]
    said = [
        f"{name}: baseline {first[name] or 'none'}, candidate {second[name] or 'none'}"
        for name in ("rerank", "failed", "left_out")
        if name in first and name in second and first[name] != second[name]
    ]
    if texts_untrained(first) != texts_untrained(second):
        without = "baseline" if texts_untrained(first) else "candidate"
        said.append(f"captions: {without} was tuned without objective.sdm, the other with it")
    if "gallery_digest" not in first or "gallery_digest" not in second:
        said.append("galleries: compared by their numbers of images and matches alone, for an older evaluation does not tell more")
    return said


def comparison_text(
    config: CompareJob, comparison: dict[str, dict[str, float]], seen: dict[str, dict[str, Any]], differs: list[str]
) -> str:
    """The comparison in Markdown."""
    lines = [
        f"# {config.candidate} against {config.baseline}",
        "",
        f"| measure | baseline | candidate | difference | {config.confidence:.0%} interval | differs from 0 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    borne = {name: ", ".join(found["marks"]) for name, found in seen.items()}
    for name, row in comparison.items():
        shown = {"r1": "R@1", "map": "mAP"}[name]
        sure = "yes" if row["low"] > 0 or row["high"] < 0 else "no"
        lines.append(
            f"| {shown} | {100 * row['baseline']:.2f} % | {100 * row['candidate']:.2f} % | {100 * row['difference']:+.2f} | "
            f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f} | {sure} |"
        )
    if any(borne.values()):
        lines.append(f"| exposure | {borne['baseline'] or 'none found'} | {borne['candidate'] or 'none found'} | | | |")
    drawn = "whole persons with all their queries" if config.by == "person" else "single queries"
    lines += [
        "",
        f"Paired percentile bootstrap, {config.resamples} samples of {drawn}, seed {config.seed}; differences in percentage points.",
        "",
        *(f"- {name}: {exposure_sentence(found)}" for name, found in seen.items()),
        *(f"- {said}" for said in marks_in_words(seen.values())),
        *(f"- Differs beside the weights: {said}." for said in differs),
    ]
    return "\n".join(lines) + "\n"


def _refuse_other_test(config: CompareJob, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Both must have scored one test by one protocol."""
    first, second = results["baseline"], results["candidate"]
    for name in ("protocol", "split", "datasets", "gallery", "gallery_digest"):
        if name in first and name in second and first[name] != second[name]:
            said = name.replace("_", " ")
            raise DataError(f"{config.baseline} has {said} {first[name]}, {config.candidate} has {second[name]}; compare runs of one test")


def _refuse_other_queries(first: pa.Table, second: pa.Table, names: tuple[str, str]) -> None:
    missing = set(first["query_id"].to_pylist()) ^ set(second["query_id"].to_pylist())
    if missing:
        raise DataError(
            f"{names[0]} and {names[1]} have not scored the same queries: {len(missing)} are in one only, such as {min(missing)!r}; "
            "evaluate both on the same test"
        )
    for column in ("person_id", "relevant", "candidates"):
        differs = pc.not_equal(first[column], second[column])
        if pc.any(differs).as_py():
            query = first["query_id"].filter(differs)[0]
            raise DataError(
                f"{names[0]} and {names[1]} have another {column} for query {query}; evaluate both on the same test and gallery"
            )
