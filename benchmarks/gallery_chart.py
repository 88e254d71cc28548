"""Draws how a gallery grows, from a result of gallery.py or gallery_growth.py: seconds and memory by the number of items.

python benchmarks/gallery_chart.py benchmarks/results/gallery-DATE.json OUT.svg

The child processes of the benchmark measured what is drawn; nothing is measured here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_LINES = {
    "one query, ms": ("query_s", 1e3),
    "64 queries, ms": ("queries_64_s", 1e3),
    "opening, ms of CPU": ("open_cpu_s", 1e3),
    "own memory, MB": ("own_mb", 1),
}


def draw(result: dict[str, Any], out: Path) -> None:
    """Write a chart of the rows that tell of opening and searching; the format is that of the ending."""
    from matplotlib.figure import Figure

    rows = [row for row in result["rows"] if row.get("what") == "open and search"]
    if not rows:
        raise SystemExit("the result tells nothing of growth")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, (column, factor) in _LINES.items():
        axes.plot([row["items"] / 1e6 for row in rows], [row[column] * factor for row in rows], marker="o", label=name)
    axes.set(xlabel="million items", yscale="log")
    axes.legend()
    figure.savefig(out)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
