"""The table of a rehearsal: a row for each job that ran, on the terminal as it ends and as JSON. Knows results; runs nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reid_ray.storage import environment, write_json
from reid_ray.terminal.counted import counted

OK, FAILED, NOT_REACHED = "ok", "failed", "not reached"
_HEAD = f"{'configuration':<38} {'job':<10} {'read':>6} {'written':>7} {'left out':>8} {'failed':>6} {'seconds':>7}  verdict"


@dataclass(frozen=True)
class Verdict:
    """What became of one job.

    Args:
        configuration: its file.
        overrides: what was typed beside it.
        job: its name.
        verdict: ok, failed or not reached.
        said: the number at the end, or what went wrong.
        read: rows.
        written: rows.
        left_out: rows that what was asked for does not take, each with a reason in the output.
        failed: rows, each with a reason in the output.
        seconds: wall clock, data sets and models that had to be made included.
        changes: what was not as written.
        stand_ins: in the place of published models and data sets.
    """

    configuration: str
    overrides: tuple[str, ...]
    job: str
    verdict: str
    said: str
    read: int = 0
    written: int = 0
    left_out: int = 0
    failed: int = 0
    seconds: float = 0.0
    changes: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()

    def line(self) -> str:
        """One line of the table."""
        counts = f"{self.read:>6} {self.written:>7} {self.left_out:>8} {self.failed:>6} {self.seconds:>7.1f}"
        return f"{self.configuration:<38} {self.job:<10} {counts}  {self.verdict}: {self.said}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class KeptVerdicts:
    """The table as a JSON file in the form of the benchmarks' results, written again after each job, for a rehearsal may be cut off.

    Args:
        file: where it goes, made absolute now; None keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = None if file is None else file.absolute()
        self._clock = time.perf_counter()
        self._facts = {**environment(), "load_average_before": os.getloadavg()}

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._clock

    def write(self, verdicts: Sequence[Verdict], *, left: int) -> None:
        """Write what is known; `left` jobs are still to come."""
        if self._file is None:
            return
        failed = sum(each.verdict != OK for each in verdicts)
        facts = {**self._facts, "seconds": round(self.seconds, 1), "load_average_after": os.getloadavg()}
        claims = [
            {"name": "jobs that failed or were not reached", "value": failed + left, "goal": "<= 0", "holds": failed + left == 0},
            {"name": "minutes", "value": round(self.seconds / 60, 1), "goal": "<= 30", "holds": self.seconds <= 30 * 60},
        ]
        write_json(self._file, {"environment": facts, "rows": [each.as_dict() for each in verdicts], "claims": claims})


def head() -> str:
    """The table's first line."""
    return _HEAD


def smaller_in_words(verdicts: Sequence[Verdict]) -> str:
    """What was not as written, configuration by configuration."""
    lines = ["", "not as written:"]
    for each in verdicts:
        said = [*each.overrides, *each.changes, *each.stand_ins]
        lines += [f"  {each.configuration} ({each.job})", *(f"      {word}" for word in said)] if said else []
    return "\n".join(lines)


def number_of(job: str, manifest: Mapping[str, Any]) -> str:
    """The number at the end of a job, from its manifest."""
    return NUMBERS.get(job, _rows)(manifest)


def _rows(manifest: Mapping[str, Any]) -> str:
    return counted(manifest["counts"]["written"], "row")


def _captions(manifest: Mapping[str, Any]) -> str:
    facts = manifest["facts"]
    return f"{sum(facts['captions']['ok'].values())} captions, {facts['rewrites']['accepted']} rewrites"


def _rewrites(manifest: Mapping[str, Any]) -> str:
    rewrites = manifest["facts"]["rewrites"]
    return f"{rewrites['accepted']} of {rewrites['asked']} rewrites accepted"


def _training(manifest: Mapping[str, Any]) -> str:
    facts = manifest["facts"]
    marks = _marks(facts["validation_exposure"])
    chosen = [f"{name} {facts['selected'][name]:.3f}{marks}" for name in ("r1", "map") if isinstance(facts["selected"].get(name), float)]
    others = [f"{each['dataset']} {each['split']} R@1 {each['r1']:.3f}{_marks(each['exposure'])}" for each in facts.get("transfer", [])]
    return ", ".join([f"{facts['steps']} steps, loss {facts['last_loss']:.3f}", *chosen, *others])


def _scores(manifest: Mapping[str, Any]) -> str:
    facts = manifest["facts"]
    marks = _marks(facts["exposure"])
    return f"R@1 {facts['r1']:.3f}, mAP {facts['map']:.3f}{marks}, {facts['queries']} queries, {facts['gallery']} images"


def _marks(exposed: Mapping[str, Any] | None) -> str:
    marks = ["UNKNOWN"] if exposed is None else exposed["marks"]
    return f" ({', '.join(marks)})" if marks else ""


def _difference(manifest: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {row['difference']:+.3f}" for name, row in manifest["facts"].items())


def _hours(manifest: Mapping[str, Any]) -> str:
    rates = [stage for stages in manifest["facts"]["passes"].values() for stage in stages]
    return f"{len(manifest['facts']['plans'])} plans from the rates of {len(rates)} stages"


def _thresholds(manifest: Mapping[str, Any]) -> str:
    both = manifest["facts"]["filters"]["both"]["held_out"]["all"]
    return ", ".join(f"{name} {value:.3f}" for name, value in both.items() if isinstance(value, float))


def _accuracy(manifest: Mapping[str, Any]) -> str:
    return ", ".join(f"{kind} {score['share']:.3f} of attribute words right" for kind, score in manifest["facts"]["accuracy"].items())


def _readings(manifest: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {each['right']:.2f}" for name, each in manifest["facts"]["error"].items()) + " read rightly"


def _hits(manifest: Mapping[str, Any]) -> str:
    facts = manifest["facts"]
    return f"{facts['text_hits']} hits in words, {facts['image_hits']} by picture, of {facts['gallery']} images"


def _findings(manifest: Mapping[str, Any]) -> str:
    return f"{len(manifest['facts']['findings'])} findings"


NUMBERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "lint": _findings,
    "caption": _captions,
    "rewrite": _rewrites,
    "calibrate": _thresholds,
    "plan": _hours,
    "captioner": _accuracy,
    "train_verifier": _readings,
    "train": _training,
    "tune": _training,
    "evaluate": _scores,
    "demo": _scores,
    "compare": _difference,
    "serve": _hits,
}
