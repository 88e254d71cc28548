"""Statistics of a captioning run (outcomes, lengths, diversity, scores), in one pass over its CAPTIONS table.

Knows the table's columns; not pictures, HTML or how captions were made. Streams: memory does not grow with the run but for eight bytes a
caption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.caption.filters.diversity import Diversity, DiversityMeter
from reid_ray.records import CAPTIONS
from reid_ray.storage import iter_table

SCORE_EDGES = np.round(np.linspace(-1, 1, 81), 3)  # bins of 0.025: the histogram of faithfulness
_COLUMNS = ["caption_id", "kind", "text", "status", "reason", "faithfulness", "tries", "captioner", "model", "instruction_id"]


@dataclass
class RunStatistics:
    """Counts of one run; `outcomes` are rows by (kind, status)."""

    rows: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, code) of rows that are not ok
    examples: dict[tuple[str, str], str] = field(default_factory=dict)  # a reason in full for each of them
    models: Counter[str] = field(default_factory=Counter)
    tries: Counter[int] = field(default_factory=Counter)  # of rewrites
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # status of rewrites -> int64 [bins of SCORE_EDGES]
    diversity: dict[str, Diversity] = field(
        default_factory=dict
    )  # kind, or "captioner: kind" where there are several captioners -> of its captions with status ok

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows,
            "outcomes": _nested(self.outcomes),
            "reasons": _nested(self.reasons),
            "models": dict(self.models),
            "tries": {str(tries): count for tries, count in sorted(self.tries.items())},
            "faithfulness": {
                "edges": SCORE_EDGES.tolist(),
                **{status: counts.tolist() for status, counts in sorted(self.scores.items())},
            },
            "diversity": {kind: diversity.as_dict() for kind, diversity in self.diversity.items()},
        }


def collect_statistics(captions: str | Path, *, sample: int, seed: int, templates: Collection[str] = ()) -> RunStatistics:
    """Read a CAPTIONS table once.

    Args:
        captions: a Parquet file or a folder of them.
        sample: captions per kind for distinct-n and self-BLEU.
        seed: of the sample.
        templates: ids of the templates that the run could draw; empty leaves coverage out.
    """
    result = RunStatistics()
    meters: dict[tuple[str, str], DiversityMeter] = {}
    for table in iter_table(captions, CAPTIONS, columns=_COLUMNS):
        result.rows += table.num_rows
        rows = table.to_pylist()
        result.outcomes.update((row["kind"], row["status"]) for row in rows)
        result.models.update(row["model"] or "(human)" for row in rows)
        for row in rows:
            if row["status"] != "ok":
                key = (row["kind"], str(row["reason"]).partition(":")[0])
                result.reasons[key] += 1
                result.examples.setdefault(key, str(row["reason"]))
        _add_rewrites(table, result)
        for captioner, kind in {_set_of(row) for row in rows}:
            fine = [row for row in rows if _set_of(row) == (captioner, kind) and row["status"] == "ok"]
            known = [f"dynamic/{template}" for template in templates] if kind == "dynamic" else []
            meter = meters.setdefault((captioner, kind), DiversityMeter(sample=sample, seed=seed, templates=known))
            meter.add([row["caption_id"] for row in fine], [row["text"] for row in fine], [row["instruction_id"] for row in fine])
    several = len({captioner for captioner, _ in meters}) > 1
    result.diversity = {
        f"{captioner}: {kind}" if several and captioner else kind: meter.result() for (captioner, kind), meter in sorted(meters.items())
    }
    return result


def _set_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["captioner"] or "", row["kind"]


def _add_rewrites(table: pa.Table, result: RunStatistics) -> None:
    rewrites = table.filter(pa.array([kind == "rewrite" for kind in table["kind"].to_pylist()]))
    result.tries.update(tries for tries in rewrites["tries"].to_pylist() if tries is not None)
    statuses = np.array(rewrites["status"].to_pylist(), dtype=object)
    scores = np.array([np.nan if score is None else score for score in rewrites["faithfulness"].to_pylist()], dtype=np.float64)
    for status in set(statuses.tolist()):
        known = scores[(statuses == status) & ~np.isnan(scores)]
        counts = np.histogram(np.clip(known, -1, 1), SCORE_EDGES)[0]
        result.scores[status] = result.scores.get(status, np.zeros(len(SCORE_EDGES) - 1, np.int64)) + counts


def _nested(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (kind, name), count in sorted(counts.items()):
        nested.setdefault(kind, {})[name] = count
    return nested
