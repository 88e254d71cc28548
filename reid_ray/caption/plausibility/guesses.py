"""Captions that are guesses: those of pictures that are not drawn, by a model that has only ever seen drawn people.

A picture is drawn if its row says that it comes from the data set of synthetic people. Knows rows; which models those are, model/tiny does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from reid_ray.data.synthetic.people import DATASET
from reid_ray.model.tiny.drawn_people import knows_drawn_people_only

GUESSES = "guesses"  # among the facts of a manifest: captioner -> captions
COLUMNS = ("kind", "status", "captioner", "model", "revision", "dataset")


class GuessCount:
    """Counts guesses as tables of captions stream by; rewrites of guesses, which follow them, are guesses."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._known: dict[tuple[str | None, str | None], bool] = {}

    def add(self, table: pa.Table) -> None:
        """See a table with COLUMNS."""
        kinds = table.select(COLUMNS).group_by(list(COLUMNS)).aggregate([([], "count_all")]).to_pylist()
        for row in sorted(kinds, key=lambda row: row["kind"] == "rewrite"):
            if row["status"] != "ok" or row["dataset"] == DATASET:
                continue
            name = row["captioner"] or row["kind"]
            if name in self._count if row["kind"] == "rewrite" else self._guesses(row["model"], row["revision"]):
                self._count[name] += row["count_all"]

    def facts(self) -> dict[str, int]:
        """Guesses by captioner; none where there is none."""
        return dict(sorted(self._count.items()))

    def _guesses(self, model: str | None, revision: str | None) -> bool:
        if (model, revision) not in self._known:
            self._known[model, revision] = knows_drawn_people_only(model, revision)
        return self._known[model, revision]


def guesses_in_words(guesses: Mapping[str, int]) -> str:
    """A sentence for terminal and page."""
    return (
        f"{sum(guesses.values()):,} captions are guesses: {', '.join(guesses)} has only seen drawn people, and these pictures are not; "
        "name another model for them, or search by picture"
    )
