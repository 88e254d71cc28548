"""Metrics log: metrics.jsonl, one JSON object a line, and the same numbers for experiment trackers such as TensorBoard.

Knows files and numbers; not what they mean. Only rank 0 writes. A resumed run cuts off the lines of the steps it does again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from reid_ray.retrieval.evaluate.exposure import MARKS
from reid_ray.train.config import LogConfig
from reid_ray.train.finite import finite_or_none
from reid_ray.train.log.boards import Board, open_boards

METRICS = "metrics.jsonl"
NOT_FINITE = "not_finite"  # the event of a number that is NaN or infinite


class RunLog:
    """The log of one worker group; does nothing on other ranks.

    Args:
        folder: where the files lie.
        config: which boards.
        start: the step that the run starts or resumes from; older lines stay.
        writes: whether this worker writes.
        settings: the job's configuration as JSON values, for the boards.
        exposure: what of a score is known to be seen, as marks (retrieval/evaluate/exposure.py), by the name of its line: validation, or
            transfer/DATA SET/SPLIT. A score without an entry is UNKNOWN.
    """

    def __init__(
        self,
        folder: Path,
        config: LogConfig,
        *,
        start: int,
        writes: bool,
        settings: dict[str, Any],
        exposure: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._exposure = {} if exposure is None else exposure
        self._file: TextIO | None = None
        self._boards: list[Board] = []
        if not writes:
            return
        path = folder / METRICS
        kept = [line for line in read_metrics(folder) if "event" in line or line["step"] <= start]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._boards = open_boards(config, folder, start=start, settings=settings)

    def event(self, event: str, *, step: int, **facts: Any) -> None:
        """A line that is no measurement: the start of a worker group, a checkpoint."""
        self._line({"event": event, "step": step, "time": round(time.time(), 3), **facts})

    def numbers(self, kind: str, *, step: int, numbers: Mapping[str, float | None], **facts: Any) -> None:
        """A line of measurements after `step` steps; None is unknown, and written for what is NaN or infinite.

        `kind` is train, validation or transfer; facts go to the file. Beside scores stand their marks: in the file a list `exposure`, on
        boards a number each, 1 where it is borne.
        """
        numbers = {name: finite_or_none(value) for name, value in numbers.items()}
        prefix = "/".join([kind, *map(str, facts.values())])
        known = {f"{prefix}/{name}": value for name, value in numbers.items() if value is not None}
        if kind != "train":
            facts["exposure"] = marks = self.marks(prefix)
            known |= {f"{prefix}/exposure/{mark}": float(mark in marks) for mark in MARKS}
        self._line({"step": step, "kind": kind, **facts, **numbers})
        for board in self._boards:
            board.numbers(known, step=step)

    def marks(self, name: str) -> list[str]:
        """Those of the scores of this name."""
        return list(self._exposure.get(name, ["UNKNOWN"]))

    def close(self) -> None:
        """Flush and close file and boards."""
        if self._file is not None:
            self._file.close()
        for board in self._boards:
            board.close()

    def _line(self, values: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(values, allow_nan=False) + "\n")
            self._file.flush()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl so far; a line that is still being written is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]
