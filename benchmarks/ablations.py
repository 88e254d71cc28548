"""Does noise-aware masking find wrong words, and what do masking, captions and rewrites bring?

    python benchmarks/ablations.py --out benchmarks/results/ablations-DATE.json [--quick] [--only noise|captions|none]
        [--seeds 5] [--work DIR]

Synthetic people. Part noise: captions by rule, of whose attributes none or 25 % are exchanged for another value, so that the wrong
words are known; no masking, equal and noise-aware masking. Part captions: captions of the tiny captioner and rewrites of SmolLM2, made
once by the caption job: static, dynamic, both; with no rewrites, all, and those that the filter keeps. Every cell is trained by the
train job (one worker, float32) from the same weights (benchmarks/ablation/start.py says why and which) in one fixed setting
(benchmarks/ablation/cells.py), and scored on other people with clean human captions by the exact evaluation.

Each finished cell and seed is a line of DIR/results.jsonl, so a run that is cut off goes on where it was; --only none makes the table
of what there is. Intervals are Student's t, 95 %, over seeds; differences are paired by seed. --quick: one seed of a far smaller
setting, minutes; it shows that the command works and makes no claim.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ablation.cells import CAPTION_CELLS, NOISE_CELLS, QUICK, Cell, Laboratory, Setting
from benchmarks.harness import Report, run_benchmark
from reid_ray.config.common import RayConfig
from reid_ray.runtime import ray_session

PARTS = {"noise": NOISE_CELLS, "captions": CAPTION_CELLS}
EQUAL, NAM = NOISE_CELLS[0], NOISE_CELLS[1]


class Results:
    """The lines of a file, one per finished cell and seed of one setting."""

    def __init__(self, file: Path, mark: str) -> None:
        self._file, self._mark = file, mark
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
        self._found = {_key(line): line for line in lines if line["setting"] == mark}

    def get(self, cell: Cell, seed: int) -> dict[str, Any] | None:
        """The line of a cell and seed, if it is finished."""
        return self._found.get(_key({**cell.columns, "seed": seed}))

    def add(self, cell: Cell, seed: int, numbers: dict[str, Any]) -> None:
        """Append a line."""
        line = {"setting": self._mark, **cell.columns, "seed": seed, **numbers}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._found[_key(line)] = line

    def of(self, cell: Cell, name: str, seeds: Sequence[int]) -> dict[int, float]:
        """Seed -> a number of a cell's finished runs."""
        lines = {seed: self.get(cell, seed) for seed in seeds}
        return {seed: line[name] for seed, line in lines.items() if line is not None and name in line}


def run(report: Report, quick: bool, *, only: str | None, seeds: Sequence[int], work: Path) -> None:
    laboratory = Laboratory(work, QUICK if quick else Setting())
    results = Results(work / "results.jsonl", laboratory.mark)
    seeds = seeds[:1] if quick else seeds
    wanted = [(cell, seed) for cell, seed in dict.fromkeys(order(only, seeds)) if results.get(cell, seed) is None]
    with ray_session(RayConfig(local_cpus=4)) if wanted else nullcontext():
        for cell, seed in wanted:
            results.add(cell, seed, laboratory.run(cell, seed))
            print(json.dumps(results.get(cell, seed)), flush=True)
    report.row(part="start", masking="untrained", seeds=1, **{name: round(value, 4) for name, value in laboratory.untrained().items()})
    for cells in PARTS.values():
        for cell in cells:
            if row := row_of(results, cell, baseline=cells[0], seeds=seeds):
                report.row(**row)
    if not quick:
        claim(report, results, seeds)


def order(only: str | None, seeds: Sequence[int]) -> Iterator[tuple[Cell, int]]:
    """What runs in which order: first the two cells that claims compare, seed by seed; then the rest, whole seeds at a time."""
    if only in (None, "noise"):
        yield from ((cell, seed) for seed in seeds for cell in (EQUAL, NAM))
    for part, cells in PARTS.items():
        if only in (None, part):
            yield from ((cell, seed) for seed in seeds for cell in cells)


def row_of(results: Results, cell: Cell, *, baseline: Cell, seeds: Sequence[int]) -> dict[str, Any] | None:
    """A row of the table, its differences paired by seed against `baseline`; of part noise against equal masking of the same captions."""
    if cell.part == "noise":
        baseline = Cell("noise", "equal", cell.wrong)
    r1, against = results.of(cell, "r1", seeds), results.of(baseline, "r1", seeds)
    if not r1:
        return None
    row = {**cell.columns, "seeds": len(r1)}
    for name in ("r1", "map", "auc_all_words", "auc_attribute_words"):
        if values := list(results.of(cell, name, seeds).values()):
            row[name], row[f"{name}_95"] = round(float(np.mean(values)), 4), half_width(values)
    both = [seed for seed in r1 if seed in against]
    if cell != baseline and both:
        difference = [r1[seed] - against[seed] for seed in both]
        row |= {"r1_gain": round(float(np.mean(difference)), 4), "r1_gain_95": half_width(difference)}
        row["wins"] = f"{sum(value > 0 for value in difference)} of {len(both)}"
    return row


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of a mean, Student's t; None of a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    return round(float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5), 4)


def claim(report: Report, results: Results, seeds: Sequence[int]) -> None:
    """What the method promises, as far as its cells are finished."""
    equal, nam = results.of(EQUAL, "r1", seeds), results.of(NAM, "r1", seeds)
    if both := [seed for seed in nam if seed in equal]:
        wins = sum(nam[seed] > equal[seed] for seed in both) / len(both)
        report.claim(f"25 % wrong: share of {len(both)} seeds in which NAM beats equal masking in R@1", wins, ">=", 0.8)
    for which in ("all", "attribute"):
        if areas := results.of(NAM, f"auc_{which}_words", seeds):
            report.claim(f"ROC-AUC of noise levels at wrong words, {which} words", float(np.mean(list(areas.values()))), ">=", 0.85)


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("part", "wrong", "masking", "captions", "rewrites", "seed"))


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", choices=[*PARTS, "none"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("build/ablations"))
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", functools.partial(run, only=own.only, seeds=range(own.seeds), work=own.work), rest)


if __name__ == "__main__":
    sys.exit(main())
