"""Throughput model of an edit run: drawings a second, tries and yield of a finished run -> hours for so many pictures that stand.

Pure arithmetic over a run's manifest; measures nothing. Editor and language model take turns, each with all the actors that are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reid_ray.errors import DataError


@dataclass(frozen=True)
class EditRates:
    """What a run tells.

    tries_per_second: drawings of one busy editor. tries_per_kept: drawings for each picture that stands, all counted.
    kept: share of the planned edits that stand. answers_per_second, answers_per_kept: of the language model; None where none was asked.
    """

    tries_per_second: float
    tries_per_kept: float
    kept: float
    startup_seconds: float
    gpus: float
    answers_per_second: float | None = None
    answers_per_kept: float = 0.0
    answer_startup_seconds: float = 0.0
    answer_gpus: float = 0.0


@dataclass(frozen=True)
class EditHours:
    """A row of the table."""

    wanted: int
    replicas: int
    drawings: int
    hours: float
    gpu_hours: float


def rates_of_run(manifest: Mapping[str, Any]) -> EditRates:
    """The rates in the manifest of an edit job.

    Raises:
        DataError: it is no edit job's, or the run made too little to tell.
    """
    if manifest["job"] != "edit":
        raise DataError(f"run: rates come from an edit job, but this is the output of {manifest['job']}; give one of edit")
    edits, made = manifest["facts"]["edits"], manifest["facts"]["throughput"]
    drawn, written = made["edit"], made["caption"]
    if not drawn["tries_per_second"] or not edits["ok"]:
        raise DataError("run: drew nothing itself, for its ledger held all; give the run that drew, or edit a few pictures anew")
    pools = manifest["config"]["editor"]["pool"], manifest["config"]["rewriter"]["pool"]
    rates = EditRates(
        tries_per_second=drawn["tries_per_second"],
        tries_per_kept=edits["tries"] / edits["ok"],
        kept=edits["ok"] / edits["rows"],
        startup_seconds=drawn["startup_seconds"],
        gpus=pools[0]["num_gpus"],
    )
    if not written["tries_per_second"]:
        return rates
    share = written["rows"] / edits["ok"]
    return EditRates(
        **{
            **rates.__dict__,
            "answers_per_second": written["tries_per_second"],
            "answers_per_kept": share * written["tries"] / written["rows"],
            "answer_startup_seconds": written["startup_seconds"],
            "answer_gpus": pools[1]["num_gpus"],
        }
    )


def hours_of(rates: EditRates, *, wanted: int, replicas: int, efficiency: float) -> EditHours:
    """Hours until `wanted` pictures stand and are described, with so many actors of either stage, one stage after the other."""
    drawings = wanted * rates.tries_per_kept
    drawing = rates.startup_seconds + drawings / (efficiency * replicas * rates.tries_per_second)
    writing = 0.0
    if rates.answers_per_second is not None:
        answers = wanted * rates.answers_per_kept
        writing = rates.answer_startup_seconds + answers / (efficiency * replicas * rates.answers_per_second)
    gpu_seconds = replicas * (drawing * rates.gpus + writing * rates.answer_gpus)
    return EditHours(wanted, replicas, round(drawings), (drawing + writing) / 3600, gpu_seconds / 3600)


def as_markdown(rates: EditRates, rows: Sequence[EditHours]) -> str:
    """The table for the terminal and for plan.md."""
    lines = [
        f"One actor draws {rates.tries_per_second:,.2f} pictures a second; {rates.kept:.0%} of the edits stand, after "
        f"{rates.tries_per_kept:.2f} drawings for each that does.",
        "",
        "| pictures that stand | actors | drawings | hours | GPU-hours |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {row.wanted:,} | {row.replicas} | {row.drawings:,} | {row.hours:,.2f} | {row.gpu_hours:,.2f} |" for row in rows]
    return "\n".join(lines) + "\n"
