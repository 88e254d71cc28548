"""Counts of an edit run: for Ray's metrics in each actor, and for the manifest in the driver.

Knows rows of edit_rows.EDIT_ROWS; not how they were made.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.rows import reason_code
from reid_ray.edit.edit_rows import CAPTION, EDIT


class EditMetrics:
    """Counters of one actor for Ray's dashboard and endpoints; outside Ray nothing is recorded.

    Args:
        stage: editor or rewriter; a tag of every number.
    """

    def __init__(self, stage: str) -> None:
        from ray.util import metrics

        self._tags = {"stage": stage}
        self._rows = metrics.Counter(
            "reid_ray_edit_rows", "Edits and their captions by status and reason code.", ("stage", "status", "reason")
        )
        self._tries = metrics.Counter("reid_ray_edit_tries", "Pictures drawn, or answers asked for.", ("stage",))
        self._rate = metrics.Gauge("reid_ray_edit_rows_per_second", "Rows that this actor makes a second, last batch.", ("stage",))

    def count(self, rows: pa.Table, seconds: float) -> None:
        """Count the rows that one batch made in so many seconds."""
        if not rows.num_rows:
            return
        for (status, code), number in _outcomes(rows).items():
            self._rows.inc(number, self._tags | {"status": status, "reason": code})
        if tries := pc.sum(rows["tries"]).as_py():
            self._tries.inc(tries, self._tags)
        self._rate.set(rows.num_rows / seconds, self._tags)


class EditTally:
    """Sums over the rows of a run, kind by kind, for its manifest."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[tuple[str, str]]] = {EDIT: Counter(), CAPTION: Counter()}  # (status, reason code)
        self._sums: Counter[str] = Counter()
        self._startup = {EDIT: 0.0, CAPTION: 0.0}

    def add(self, rows: pa.Table) -> int:
        """Count rows; returns their number."""
        for kind in (EDIT, CAPTION):
            some = rows.filter(pc.equal(rows["kind"], kind))
            self.outcomes[kind] += _outcomes(some)
            for name in ("tries", "seconds", "tokens"):
                self._sums[f"{kind} {name}"] += pc.sum(some[name]).as_py() or 0
            self._startup[kind] = max(self._startup[kind], pc.max(some["startup_seconds"]).as_py() or 0.0)
        return rows.num_rows

    def with_status(self, kind: str, status: str) -> int:
        """Rows of a kind with a status."""
        return sum(count for (found, _), count in self.outcomes[kind].items() if found == status)

    def facts(self, kind: str) -> dict[str, Any]:
        """Of one kind, for the manifest: rows by status, reasons, tries, and what one busy actor did a second."""
        outcomes = self.outcomes[kind]
        rows, seconds = outcomes.total(), self._sums[f"{kind} seconds"]
        reasons: Counter[str] = Counter()
        for (status, code), count in outcomes.items():
            if status != "ok":
                reasons[f"{status}: {code}"] += count
        return {
            "rows": rows,
            "ok": self.with_status(kind, "ok"),
            "not_ok": dict(sorted(reasons.items())),
            "tries": self._sums[f"{kind} tries"],
            "rows_per_second": round(rows / seconds, 4) if seconds else None,  # of one actor whose engine is busy
            "tries_per_second": round(self._sums[f"{kind} tries"] / seconds, 4) if seconds else None,
            "startup_seconds": round(self._startup[kind], 3),
        }


def _outcomes(rows: pa.Table) -> Counter[tuple[str, str]]:
    pairs = zip(rows["status"].to_pylist(), rows["reason"].to_pylist(), strict=True)
    return Counter((status, reason_code(reason)) for status, reason in pairs)
