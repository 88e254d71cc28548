"""One progress bar for every job: label, rate and counts; a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TextIO, cast

from reid_ray.terminal.own_lines import standard_error

_LINE = "{desc}: {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"
_LINE_EVERY_S = 5.0


class ProgressBar(Protocol):
    """Interface (protocol) of what a long step tells how far it is."""

    def update(self, n: float, /) -> Any:
        """So much more is done."""
        ...


Progress = Callable[[str, int], AbstractContextManager[ProgressBar]]  # of a step's name and how much it has to do


class _Unseen:
    def update(self, n: float, /) -> None:
        """Nobody looks."""


def unseen(label: str, total: int) -> AbstractContextManager[ProgressBar]:
    """A Progress that shows nothing."""
    del label, total
    return nullcontext(_Unseen())


def progress_bar(label: str, total: int | None, *, unit: str = "img", initial: int = 0) -> Any:
    """A tqdm bar on standard error, for use as a context manager: call .update(n) and .set_postfix_str(counts).

    `initial` of the total were done before; they do not count for the rate.
    """
    from tqdm import tqdm

    stream = standard_error()
    if stream.isatty():
        return tqdm(desc=label, total=total, initial=initial, unit=unit, file=stream, dynamic_ncols=True, mininterval=0.2)
    return tqdm(
        desc=label,
        total=total,
        initial=initial,
        unit=unit,
        file=cast(TextIO, _Lines(stream)),
        bar_format=_LINE,
        mininterval=_LINE_EVERY_S,
        maxinterval=2 * _LINE_EVERY_S,
    )


class _Lines(io.TextIOBase):
    """What tqdm draws over itself on one line, as a line for each state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, ""

    def write(self, text: str, /) -> int:
        """Write the line that `text` draws, if it is another than the one before."""
        line = text.strip("\r\n ")
        if line and line != self._last:
            self._last = line
            print(line, file=self._stream, flush=True)
        return len(text)

    def isatty(self) -> bool:
        """Never."""
        return False
