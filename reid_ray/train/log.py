"""What a run writes while it goes: metrics.jsonl, one JSON object a line, and the same numbers for TensorBoard.

Knows files and numbers; not what they mean. Only rank 0 writes. A resumed run cuts off the lines of the steps it does again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"


class RunLog:
    """The log of one worker group; does nothing on other ranks.

    Args:
        folder: where the files lie.
        start: the step that the run starts or resumes from; older lines stay.
        writes: whether this worker writes.
    """

    def __init__(self, folder: Path, *, start: int, writes: bool) -> None:
        self._file: TextIO | None = None
        self._board: Any = None
        if not writes:
            return
        path = folder / METRICS
        kept = [line for line in read_metrics(folder) if "event" in line or line["step"] <= start]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1)

    def event(self, event: str, *, step: int, **facts: Any) -> None:
        """A line that is no measurement: the start of a worker group, a checkpoint."""
        self._line({"event": event, "step": step, "time": round(time.time(), 3), **facts})

    def numbers(self, kind: str, *, step: int, numbers: dict[str, float]) -> None:
        """A line of measurements after `step` steps; `kind` is train or validation."""
        self._line({"step": step, "kind": kind, **numbers})
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close both."""
        if self._file is not None:
            self._file.close()
            self._board.close()

    def _line(self, values: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl so far; a line that is still being written is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]
